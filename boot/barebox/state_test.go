package barebox_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
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
		"no data":        func(b []byte) { le.PutUint32(b[4:], 16); le.PutUint16(b[14:], 0); le.PutUint32(b[16:], 0); sealHead(b) },
		"less data": func(b []byte) {
			le.PutUint16(b[14:], 16)
			le.PutUint32(b[4:], 16+16)
			le.PutUint32(b[16:], crc32.ChecksumIEEE(b[24:40]))
			sealHead(b)
		},
	} {
		area := boottest.Buckets(3, 20, 3, 10)
		change(area)
		m := boottest.NewMedium(area)
		b, err := open(m.Areas(), "A")
		if err != nil {
			t.Fatal(err)
		}
		for do, err := range map[string]error{"Activate": b.Activate(t.Context(), "B", 1), "Repair": b.Repair(t.Context())} {
			if !errors.Is(err, boot.ErrState) || m.Writes() > 0 {
				t.Errorf("%s: %s = %v, %d writes; want ErrState and none", name, do, err, m.Writes())
			}
		}
	}
}

// TestBucketBeyondTheStride: a bucket that reaches into the next one is refused.
func TestBucketBeyondTheStride(t *testing.T) {
	for stride, refused := range map[int64]bool{43: true, 44: false} {
		m := boottest.NewMedium(boottest.Buckets(3, 20, 3, 10))
		b, err := barebox.New(barebox.Options{Area: m.Areas()[0], Stride: stride, Magic: boottest.BucketMagic, Slots: []string{"A"},
			Targets: map[string]barebox.Target{"A": {Attempts: 0, Priority: 4}}}, "A")
		if err != nil {
			t.Fatal(err)
		}
		_, err = b.State(t.Context())
		if refused != (errors.Is(err, boot.ErrState) && strings.Contains(err.Error(), "more than the stride of 43")) || !refused && err != nil {
			t.Errorf("a bucket of 44 bytes with a stride of %d: State = %v; want a refusal: %v", stride, err, refused)
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

// TestNew: strides and offsets that no state has are refused.
func TestNew(t *testing.T) {
	two := map[string]barebox.Target{"A": {Attempts: 0, Priority: 4}, "B": {Attempts: 12, Priority: 1 << 16}}
	for _, c := range []struct {
		size    int
		stride  int64
		targets map[string]barebox.Target
		ok      bool
	}{
		{3072, 1024, two, true}, {3071, 1024, two, false}, {72, 24, two, true}, {72, 23, two, false},
		{3 << 20, 1 << 20, two, true}, {4 << 20, 1<<20 + 1, two, false},
		{3072, 1024, map[string]barebox.Target{"A": {Priority: 4}}, false},
		{3072, 1024, map[string]barebox.Target{"A": {Attempts: -1, Priority: 4}, "B": {Priority: 4}}, false},
		{3072, 1024, map[string]barebox.Target{"A": {Attempts: 0, Priority: 4}, "B": {Attempts: 8, Priority: 1<<16 + 1}}, false},
	} {
		o := barebox.Options{Area: boottest.NewMedium(make([]byte, c.size)).Areas()[0], Stride: c.stride, Slots: []string{"A", "B"}, Targets: c.targets}
		if _, err := barebox.New(o, ""); (err == nil) != c.ok || err != nil && !errors.Is(err, boot.ErrState) {
			t.Errorf("New on %d bytes with stride %d and %v = %v; want success: %v", c.size, c.stride, c.targets, err, c.ok)
		}
	}
}

// seal writes the checksums of a bucket.
func seal(b []byte) {
	binary.LittleEndian.PutUint32(b[16:], crc32.ChecksumIEEE(b[24:44]))
	sealHead(b)
}

// sealHead writes the checksum of a bucket's header.
func sealHead(b []byte) { binary.LittleEndian.PutUint32(b[20:], crc32.ChecksumIEEE(b[8:20])) }

// TestBuckets: a bucket that barebox does not use, or one of an older state, is found, and Repair or the next change rewrites it.
func TestBuckets(t *testing.T) {
	le := binary.LittleEndian
	for name, damage := range map[string]func(b []byte){
		"has state magic 11111111": func(b []byte) { le.PutUint32(b[8:], 0x11111111); seal(b) },
		"has header checksum":      func(b []byte) { b[8] ^= 1 },
		"has data checksum":        func(b []byte) { b[24] ^= 1 },
		"declares 65535 bytes":     func(b []byte) { le.PutUint16(b[14:], 0xffff); sealHead(b) },
		"has 8 bytes":              func(b []byte) { le.PutUint32(b[4:], 8) },
		"differs":                  func(b []byte) { b[24]--; seal(b) },
	} {
		for at := range 3 {
			if name == "differs" && at == 0 {
				continue // the first valid one counts
			}
			for _, do := range []func(b boot.Backend) error{
				func(b boot.Backend) error { return b.Repair(t.Context()) }, func(b boot.Backend) error { return b.Activate(t.Context(), "B", 9) },
			} {
				area := boottest.Buckets(3, 20, 3, 10)
				damage(area[at*boottest.BucketStride:][:boottest.BucketStride])
				m := boottest.NewMedium(area)
				b, err := open(m.Areas(), "A")
				if err != nil {
					t.Fatal(err)
				}
				found := func(f boot.Finding) bool { return f.Remedy == boot.RemedyRepair && strings.Contains(f.Evidence, name) }
				if st, err := b.State(t.Context()); err != nil || st.Next != "A" || !slices.ContainsFunc(st.Findings, found) {
					t.Errorf("%s, bucket %d: State = %+v, %v", name, at+1, st, err)
				}
				if err := do(b); err != nil {
					t.Fatal(err)
				}
				got := m.Snapshot()[0]
				for i := range 3 {
					if !bytes.Equal(got[i*boottest.BucketStride:][:44], got[:44]) {
						t.Errorf("%s, bucket %d: bucket %d differs from the first", name, at+1, i+1)
					}
				}
				if st, err := b.State(t.Context()); err != nil || slices.ContainsFunc(st.Findings, found) {
					t.Errorf("%s, bucket %d: afterwards State = %+v, %v", name, at+1, st, err)
				}
			}
		}
	}
}

// TestReadFails: a bucket whose header or data cannot be read is found, and the others serve.
func TestReadFails(t *testing.T) {
	for n := range 6 {
		m := boottest.NewMedium(boottest.Buckets(3, 20, 3, 10))
		b, err := open(m.Areas(), "A")
		if err != nil {
			t.Fatal(err)
		}
		m.FailAt = n + 1
		st, err := b.State(t.Context())
		want := fmt.Sprintf("bucket %d of area 1 cannot be read", n/2+1)
		if err != nil || st.Next != "A" || len(st.Findings) == 0 || !strings.Contains(st.Findings[0].Evidence, want) {
			t.Errorf("read %d failed: State = %+v, %v; want %q", n+1, st, err, want)
		}
	}
}

// TestAttempts: a good target has as many attempts as its default, three unless it is configured; any number is read.
func TestAttempts(t *testing.T) {
	for _, c := range []struct {
		attempts, limit uint32
		good            bool
		left            int
	}{{2, 0, false, 2}, {3, 0, true, 3}, {4, 5, false, 4}, {5, 5, true, 5}, {1<<32 - 1, 0, true, 1 << 20}} {
		m := boottest.NewMedium(boottest.Buckets(c.attempts, 1<<32-1, 3, 10))
		b, err := barebox.New(barebox.Options{
			Area: m.Areas()[0], Stride: boottest.BucketStride, Magic: boottest.BucketMagic, Slots: []string{"A"},
			Targets: map[string]barebox.Target{"A": {Attempts: 0, Priority: 4}}, GoodTries: int(c.limit),
		}, "A")
		if err != nil {
			t.Fatal(err)
		}
		if st, err := b.State(t.Context()); err != nil || st.Slots[0].Good != c.good || st.Slots[0].TriesLeft != c.left {
			t.Errorf("%d attempts of %d: State = %+v, %v", c.attempts, c.limit, st, err)
		}
		if err := b.MarkGood(t.Context(), "A"); err != nil {
			t.Fatal(err)
		}
		if got := binary.LittleEndian.Uint32(m.Snapshot()[0][24:]); got < max(c.limit, 3) {
			t.Errorf("%d attempts of %d: after MarkGood there are %d", c.attempts, c.limit, got)
		}
	}
}

// TestRecognize: three buckets of one stride are a state, and nothing else is.
func TestRecognize(t *testing.T) {
	spread := func(stride int) []byte {
		out := make([]byte, 3*stride+boottest.BucketStride)
		for i := range 3 {
			copy(out[i*stride:], boottest.Buckets(3, 20, 3, 10)[:boottest.BucketStride])
		}
		return out
	}
	for _, stride := range []int{1024, 2048, 1 << 20} {
		magic, got, data, ok := barebox.Recognize(bytes.NewReader(spread(stride)))
		if !ok || magic != boottest.BucketMagic || got != int64(stride) || data != 20 {
			t.Errorf("Recognize at stride %d = %#x, %d, %d, %v", stride, magic, got, data, ok)
		}
	}
	for name, damage := range map[string]func(p []byte){
		"first": func(p []byte) { p[0] ^= 1 }, "second": func(p []byte) { p[1024+8] ^= 1 }, "third": func(p []byte) { p[2048] ^= 1 },
		"checksum": func(p []byte) { p[20] ^= 1 },
	} {
		p := spread(1024)
		damage(p)
		if _, _, _, ok := barebox.Recognize(bytes.NewReader(p)); ok {
			t.Errorf("Recognize takes a state whose %s is damaged", name)
		}
	}
	for _, p := range [][]byte{nil, spread(1024)[:2048+23], spread(2 << 20)} {
		if _, stride, _, ok := barebox.Recognize(bytes.NewReader(p)); ok || stride != 0 {
			t.Errorf("Recognize of %d bytes = stride %d", len(p), stride)
		}
	}
}
