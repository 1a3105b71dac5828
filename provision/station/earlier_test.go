package station

import (
	"encoding/binary"
	"io"
	"testing"

	"updater/device/config"
	"updater/provision/target"
	"updater/state"
)

// memory is a medium in memory.
type memory []byte

func (d memory) ReadBackAt(p []byte, off int64) (int, error) {
	if n := copy(p, d[min(off, int64(len(d))):]); n < len(p) {
		return n, io.EOF
	}
	return len(p), nil
}
func (d memory) WriteAt(p []byte, off int64) (int, error) { return copy(d[off:], p), nil }
func (d memory) Zero(off, n int64) error                  { clear(d[off:][:n]); return nil }
func (d memory) Sync() error                              { return nil }
func (d memory) Size() int64                              { return int64(len(d)) }

// written is the area of a state store that is written.
type written struct{ area }

func (w written) WriteAt(p []byte, off int64) (int, error) { return w.Medium.WriteAt(p, w.off+off) }

// TestEarlier: a device is found by its slots, on a disk with an MBR too, and its floor is that of its state store.
func TestEarlier(t *testing.T) {
	d := make(memory, 8<<20)
	for i, mib := range []uint32{1, 2, 3} { // of 1 MiB each: both slots, the state store
		e := d[446+16*i:]
		e[4] = 0x83
		binary.LittleEndian.PutUint32(e[8:], mib<<11)
		binary.LittleEndian.PutUint32(e[12:], 1<<11)
	}
	copy(d[440:], "\xdd\xcc\xbb\xaa")
	copy(d[510:], "\x55\xaa")
	old, err := target.ReadOldTable(d, 512)
	if err != nil || len(old) != 3 {
		t.Fatalf("ReadOldTable = %+v, %v", old, err)
	}
	conf := func(state string, slots ...string) *config.Config {
		c := new(config.Config)
		c.State.Device, c.Release.RollbackIndex = state, 3
		for _, s := range slots {
			c.Slot = append(c.Slot, config.Slot{Partitions: map[string]string{"rootfs": s}})
		}
		return c
	}
	for _, c := range []struct {
		name  string
		conf  *config.Config
		used  bool // the state store was written
		is    bool
		floor int64
	}{
		{"run that was cut off", conf("/dev/mmcblk0p3", "/dev/mmcblk0p1", "/dev/mmcblk0p2"), false, false, 0},
		{"by node", conf("/dev/mmcblk0p3", "/dev/mmcblk0p1", "/dev/mmcblk0p2"), true, true, 7},
		{"by PARTUUID", conf("PARTUUID=AABBCCDD-03", "PARTUUID=aabbccdd-01", "PARTUUID=aabbccdd-09"), true, true, 7},
		{"state elsewhere", conf("/data/state", "/dev/mmcblk0p1"), true, true, 3},
		{"other device", conf("/dev/mmcblk0p3", "PARTLABEL=rootfs_a"), true, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.used {
				store, err := state.Open(written{area{Medium: d, off: 3 << 20, size: 1 << 20}}, state.State{})
				if err != nil {
					t.Fatal(err)
				}
				if err := store.Update(func(s *state.State) { s.Floor = 7 }); err != nil {
					t.Fatal(err)
				}
			}
			got, err := earlier(c.conf, d, old)
			if err != nil || got.Device != c.is || got.Floor != c.floor {
				t.Errorf("earlier = %+v, %v; want %v with floor %d", got, err, c.is, c.floor)
			}
		})
	}
}
