package barebox_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"testing"

	"updater/boot"
	"updater/boot/barebox"
	"updater/boot/boottest"
	"updater/internal/crashdisk/bootdisk"
)

func open(areas []boot.Area, booted string) (boot.Backend, error) {
	return barebox.New(barebox.Options{
		Area: areas[0], Stride: boottest.BucketStride, Magic: boottest.BucketMagic, Slots: []string{"A", "B"},
		Targets: map[string]barebox.Target{"A": {Attempts: 0, Priority: 4}, "B": {Attempts: 12, Priority: 16}},
	}, booted)
}

func TestContract(t *testing.T) {
	boottest.Contract(t, boottest.Rig{
		Volatile: bootdisk.New,
		Fresh:    func(*testing.T) boottest.Disk { return boottest.Disk{Areas: [][]byte{boottest.Buckets(3, 20, 3, 10)}} },
		Open:     func(m *boottest.Medium, booted string) (boot.Backend, error) { return open(m.Areas(), booted) },
		Boot:     boottest.Bootchooser,
		Caps:     boot.Caps{MaxTries: 99, MarkGoodEveryBoot: true, SwitchAtomic: true},
		Others:   func(d boottest.Disk) []string { return []string{string(d.Areas[0][32:36])} },
	})
}

// The first bucket, byte for byte, after Activate(B, 2).
func TestVector(t *testing.T) {
	m := boottest.NewMedium(boottest.Buckets(3, 20, 3, 10))
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

// Repair rewrites invalid buckets from a valid one, which is not touched while it is the only one.
func TestRepair(t *testing.T) {
	for only := range 3 {
		area := boottest.Buckets(3, 20, 3, 10)
		for i := range 3 {
			if i != only {
				area[i*boottest.BucketStride+24] ^= 1
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
			if got := boottest.Bootchooser(&d); got != "A" {
				t.Fatalf("bucket %d only: a cut during Repair leaves %q", only+1, got)
			}
		})
		if st, err := b.State(t.Context()); err != nil || len(st.Findings) != 0 {
			t.Errorf("after Repair State = %+v, %v", st, err)
		}
	}
}

// A bucket with an unreadable sector is a bad bucket. Its padding is not read.
func TestUnreadableSectors(t *testing.T) {
	boottest.UnreadableSectors(t, boottest.Rig{
		Fresh: func(*testing.T) boottest.Disk { return boottest.Disk{Areas: [][]byte{boottest.Buckets(3, 20, 3, 10)}} },
		Open:  func(m *boottest.Medium, booted string) (boot.Backend, error) { return open(m.Areas(), booted) },
		Boot:  boottest.Bootchooser,
	})
}

// A first bucket that barebox uses, but that cannot be written, is refused even if a later one could be.
func TestFirstBucketDecides(t *testing.T) {
	le := binary.LittleEndian
	for name, change := range map[string]func(b []byte){
		"HMAC":           func(b []byte) { le.PutUint32(b[4:], 16+20+32) },
		"long":           func(b []byte) { le.PutUint32(b[4:], 1<<31) },
		"without header": func(b []byte) { copy(b, b[8:8+16+20]) },
		"less data": func(b []byte) {
			le.PutUint16(b[14:], 16)
			le.PutUint32(b[4:], 16+16)
			le.PutUint32(b[16:], crc32.ChecksumIEEE(b[24:40]))
			le.PutUint32(b[20:], crc32.ChecksumIEEE(b[8:20]))
		},
	} {
		area := boottest.Buckets(3, 20, 3, 10)
		change(area)
		m := boottest.NewMedium(area)
		b, err := open(m.Areas(), "A")
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Activate(t.Context(), "B", 1); !errors.Is(err, boot.ErrState) || m.Writes() > 0 {
			t.Errorf("%s: Activate = %v, %d writes; want ErrState and none", name, err, m.Writes())
		}
	}
}

func FuzzBuckets(f *testing.F) {
	f.Fuzz(func(t *testing.T, head, data []byte) { takes(t, head, data) })
}

func TestSeeds(t *testing.T) {
	boottest.Seeds(t, "FuzzBuckets", 8, 3, func(v []string) bool { return takes(t, []byte(v[0]), []byte(v[1])) })
}

// takes marks slot A good in a state whose first bucket has an arbitrary head and data, with valid checksums if the head is
// long enough. It reports whether the state is valid.
func takes(t *testing.T, head, data []byte) bool {
	area := make([]byte, 3*boottest.BucketStride)
	copy(area, head)
	copy(area[24:boottest.BucketStride], data)
	if len(head) >= 16 {
		n := min(int(binary.LittleEndian.Uint16(area[14:])), boottest.BucketStride-24)
		binary.LittleEndian.PutUint32(area[16:], crc32.ChecksumIEEE(area[24:24+n]))
		binary.LittleEndian.PutUint32(area[20:], crc32.ChecksumIEEE(area[8:20]))
	}
	m := boottest.NewMedium(area)
	b, err := open(m.Areas(), "A")
	if err != nil {
		t.Fatal(err)
	}
	return boottest.Takes(t, b)
}

// TestOnlyValidBucketIsLast: a change that fails anywhere leaves a valid bucket, whichever was the only one.
func TestOnlyValidBucketIsLast(t *testing.T) {
	for only := range 3 {
		for n := 1; ; n++ {
			area := boottest.Buckets(3, 20, 3, 10)
			for i := range 3 {
				if i != only {
					area[i*boottest.BucketStride+24] ^= 1
				}
			}
			m := boottest.NewMedium(bytes.Clone(area))
			b, err := open(m.Areas(), "A")
			if err != nil {
				t.Fatal(err)
			}
			m.FailAt = m.Operations() + n
			err = b.Activate(t.Context(), "B", 2)
			now := m.Snapshot()[0]
			same := func(i int) bool {
				return bytes.Equal(now[i*boottest.BucketStride:][:64], area[i*boottest.BucketStride:][:64])
			}
			if err != nil && !same(only) && same((only+1)%3) && same((only+2)%3) {
				t.Fatalf("bucket %d only: it was written first, operation %d failed: %v", only+1, n, err)
			}
			if m.Operations() < m.FailAt { // no operation failed
				break
			}
		}
	}
}
