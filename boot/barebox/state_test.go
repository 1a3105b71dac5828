package barebox_test

import (
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"testing"

	"updater/boot"
	"updater/boot/barebox"
	"updater/boot/boottest"
)

const (
	stride = 1024
	magic  = 0x4d433230
)

// bucket is a bucket with attempts and priority of A and B, and a variable of others between them.
func bucket(values ...uint32) []byte {
	b := make([]byte, stride)
	data := make([]byte, 20)
	for i, at := range []int{0, 4, 12, 16} {
		binary.LittleEndian.PutUint32(data[at:], values[i])
	}
	copy(data[8:], "last")
	le := binary.LittleEndian
	le.PutUint32(b, 0x2354fdf3)
	le.PutUint32(b[4:], 16+20)
	le.PutUint32(b[8:], magic)
	le.PutUint16(b[14:], 20)
	le.PutUint32(b[16:], crc32.ChecksumIEEE(data))
	le.PutUint32(b[20:], crc32.ChecksumIEEE(b[8:20]))
	copy(b[24:], data)
	return b
}

func disk(values ...uint32) []byte {
	b := bucket(values...)
	return append(append(append([]byte{}, b...), b...), b...)
}

// bootchooser is barebox: the first whole bucket, the highest priority with attempts left, one of which it spends.
func bootchooser(d *boottest.Disk) string {
	le := binary.LittleEndian
	for i := range 3 {
		b := d.Areas[0][i*stride:]
		if le.Uint32(b) != 0x2354fdf3 || le.Uint32(b[20:]) != crc32.ChecksumIEEE(b[8:20]) || le.Uint32(b[16:]) != crc32.ChecksumIEEE(b[24:44]) {
			continue
		}
		v := []uint32{le.Uint32(b[24:]), le.Uint32(b[28:]), le.Uint32(b[36:]), le.Uint32(b[40:])}
		a, bb := v[0] > 0 && v[1] > 0, v[2] > 0 && v[3] > 0
		name := ""
		switch {
		case a && (!bb || v[1] >= v[3]):
			name, v[0] = "A", v[0]-1
		case bb:
			name, v[2] = "B", v[2]-1
		}
		copy(d.Areas[0], disk(v...))
		return name
	}
	return "defaults"
}

func open(areas []boot.Area, booted string) (boot.Backend, error) {
	return barebox.New(barebox.Options{
		Area: areas[0], Stride: stride, Magic: magic, Slots: []string{"A", "B"},
		Targets: map[string]barebox.Target{"A": {Attempts: 0, Priority: 4}, "B": {Attempts: 12, Priority: 16}},
	}, booted)
}

func TestContract(t *testing.T) {
	boottest.Contract(t, boottest.Rig{
		Fresh:  func(*testing.T) boottest.Disk { return boottest.Disk{Areas: [][]byte{disk(3, 20, 3, 10)}} },
		Open:   func(m *boottest.Medium, booted string) (boot.Backend, error) { return open(m.Areas(), booted) },
		Boot:   bootchooser,
		Others: func(d boottest.Disk) []string { return []string{string(d.Areas[0][32:36])} },
	})
}

// The first bucket, byte for byte, after Activate(B, 2).
func TestVector(t *testing.T) {
	m := boottest.NewMedium(disk(3, 20, 3, 10))
	b, err := open(m.Areas(), "A")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Activate(t.Context(), "B", 2); err != nil {
		t.Fatal(err)
	}
	got := hex.EncodeToString(m.Snapshot()[0][24:44])
	if want := "03000000" + "13000000" + "6c617374" + "02000000" + "14000000"; got != want {
		t.Errorf("the data is %s; want %s", got, want)
	}
}

// Damaged buckets are restored from a whole one, which is not touched while it is the only one.
func TestRepair(t *testing.T) {
	for only := range 3 {
		area := disk(3, 20, 3, 10)
		for i := range 3 {
			if i != only {
				area[i*stride+24] ^= 1
			}
		}
		m := boottest.NewMedium(area)
		b, err := open(m.Areas(), "A")
		if err != nil {
			t.Fatal(err)
		}
		if st, err := b.State(t.Context()); err != nil || len(st.Findings) != 2 || st.Next != "A" {
			t.Fatalf("State = %+v, %v; want two damaged buckets and A", st, err)
		}
		if err := b.Repair(t.Context()); err != nil {
			t.Fatal(err)
		}
		m.CrashDisks(func(d boottest.Disk) {
			if got := bootchooser(&d); got != "A" {
				t.Fatalf("bucket %d only: a cut during Repair leaves %q", only+1, got)
			}
		})
		if st, err := b.State(t.Context()); err != nil || len(st.Findings) != 0 {
			t.Errorf("after Repair State = %+v, %v", st, err)
		}
	}
}

func FuzzBuckets(f *testing.F) {
	f.Add(disk(3, 20, 3, 10))
	f.Add(make([]byte, 3*stride))
	f.Fuzz(func(t *testing.T, data []byte) {
		area := make([]byte, 3*stride)
		copy(area, data)
		m := boottest.NewMedium(area)
		b, err := open(m.Areas(), "A")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.State(t.Context()); err == nil {
			if err := b.MarkGood(t.Context(), "A"); err != nil {
				t.Fatal(err)
			}
		}
	})
}
