package update_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"updater/bmap"
	"updater/update"
	"updater/verify"
)

func (s stream) Close() error { return nil }

// written lists the offsets that were written or zeroed.
func written(d *device) []string {
	return slices.DeleteFunc(slices.Clone(d.journal), func(s string) bool {
		return !strings.HasPrefix(s, "write") && !strings.HasPrefix(s, "zero") && !strings.HasPrefix(s, "discard")
	})
}

// An install that was interrupted writes only the missing ranges, and one that was complete writes nothing.
func TestResume(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536})
	d := newDevice(1 << 20)
	writes := 0
	d.onOp = func(n int) {
		if strings.HasPrefix(d.journal[n-1], "write") {
			if writes++; writes == 4 {
				d.failAt = n
			}
		}
	}
	if _, err := update.Install(t.Context(), k.job(d)); !errors.Is(err, errInjected) {
		t.Fatalf("the interrupted install = %v", err)
	}
	copy(d.medium, d.data)
	d.onOp, d.failAt, d.journal = nil, 0, nil
	res, err := update.Install(t.Context(), k.job(d))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"write 196608", "write 397312", "write 696320"}; !slices.Equal(written(d), want) {
		t.Errorf("the second install did %v; want %v", written(d), want)
	}
	if res.SkippedBytes != 8192+2*65536 || res.WrittenBytes+res.SkippedBytes != res.MappedBytes {
		t.Errorf("result %+v", res)
	}
	d.journal = nil
	if res, err = update.Install(t.Context(), k.job(d)); err != nil || len(written(d)) > 0 || res.WrittenBytes != 0 {
		t.Errorf("the third install = %+v, %v, and did %v", res, err, written(d))
	}
	d.journal = nil
	j := k.job(d)
	j.Rewrite = true
	if res, err = update.Install(t.Context(), j); err != nil || res.WrittenBytes != res.MappedBytes {
		t.Errorf("an install that rewrites = %+v, %v", res, err)
	}
}

// badSectors is a target whose sectors cannot be read until they are written.
type badSectors struct {
	target
	mu  sync.Mutex     // ranges are compared while others are written
	bad map[int64]bool // by sector of 4096 bytes
}

func (b *badSectors) heal(off, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := off / 4096; s*4096 < off+n; s++ {
		delete(b.bad, s)
	}
}

func (b *badSectors) WriteAt(p []byte, off int64) (int, error) {
	b.heal(off, int64(len(p)))
	return b.target.WriteAt(p, off)
}

func (b *badSectors) Zero(off, n int64) error {
	b.heal(off, n)
	return b.target.Zero(off, n)
}

func (b *badSectors) ReadBackAt(p []byte, off int64) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := off / 4096; s*4096 < off+int64(len(p)); s++ {
		if b.bad[s] { // right or not, the bytes do not count
			n, _ := b.target.ReadBackAt(p, off)
			return n, unix.EIO
		}
	}
	return b.target.ReadBackAt(p, off)
}

// TestUnreadable: unreadable sectors are written, in mapped ranges of any length and in holes; the content beside them stays.
func TestUnreadable(t *testing.T) {
	for _, longest := range []int64{65536, -1} { // with the sizes of the job the second ones are compared while they stream
		k := newKit(t, bmap.CreateOptions{MaxRange: longest})
		m, err := bmap.Parse(k.doc)
		if err != nil {
			t.Fatal(err)
		}
		d := newDevice(1 << 20)
		copy(d.data, k.image)
		copy(d.medium, k.image)
		job := copyJob(k, d, m)
		job.Sizes = update.Sizes{Chunk: 8192, Held: 65536, Read: 4096}
		b := &badSectors{target: target{d}, bad: map[int64]bool{1: true, 5: true, 20: true, 60: true, 170: true}}
		job.Target = b
		res, err := update.Copy(t.Context(), job)
		if err != nil || !bytes.Equal(d.medium[:len(k.image)], k.image) || len(b.bad) > 0 {
			t.Errorf("ranges of %d bytes: Copy = %v, sectors %v are unreadable still", longest, err, b.bad)
		}
		if res != nil && res.SkippedBytes == 0 {
			t.Error("nothing was found equal")
		}
	}
}

// Long ranges are compared in pieces, and comparing stops if it finds nothing.
func TestComparingIsBounded(t *testing.T) {
	sizes := update.Sizes{Chunk: 8 << 10, Held: 16 << 10, Read: 16 << 10, Budget: 256 << 10}
	image := make([]byte, 640<<10)
	rand.NewChaCha8([32]byte{9}).Read(image)
	k := newKit(t, bmap.CreateOptions{})
	for _, maxRange := range []int64{-1, 16 << 10} {
		k.sign(t, image, bmap.CreateOptions{MaxRange: maxRange})
		d := newDevice(640 << 10)
		reads := func() (n int64) {
			for _, s := range d.journal[:slices.Index(d.journal, "flush")] {
				if s == "read back" {
					n++
				}
			}
			return n
		}
		job := k.job(d)
		job.Sizes = sizes
		if _, err := update.Install(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		each := sizes.Read // of a range of at most Held
		if maxRange < 0 {
			each = sizes.Chunk
		}
		if n := reads(); n != sizes.Budget/each {
			t.Errorf("ranges of %d: %d reads in vain; want 256 KiB of them", maxRange, n)
		}
		d.journal = nil
		for _, at := range []int{48 << 10, 624 << 10} {
			d.data[at]++
			d.medium[at]++
		}
		job = k.job(d)
		job.Sizes = sizes
		res, err := update.Install(t.Context(), job)
		if err != nil || res.WrittenBytes == 0 || res.WrittenBytes > 32<<10 {
			t.Errorf("ranges of %d: an install with two bytes that differ = %+v, %v", maxRange, res, err)
		}
	}
}

// Equal ranges extend the budget for differing ones: if two thirds of a slot are right, all of them are found.
func TestEqualPaysForDifferent(t *testing.T) {
	image := make([]byte, 640<<10)
	rand.NewChaCha8([32]byte{9}).Read(image)
	k := newKit(t, bmap.CreateOptions{})
	for _, c := range []struct{ maxRange, held, each int }{{16 << 10, 16 << 10, 16 << 10}, {-1, 16 << 10, 8 << 10}} {
		k.sign(t, image, bmap.CreateOptions{MaxRange: int64(c.maxRange)})
		d := newDevice(640 << 10)
		var differs int64
		for at := 0; at < len(image); at += c.each {
			if copy(d.medium[at:], image[at:at+c.each]); at/c.each%3 == 2 {
				d.medium[at] ^= 1
				differs += int64(c.each)
			}
		}
		copy(d.data, d.medium)
		job := k.job(d)
		job.Sizes = update.Sizes{Chunk: 8 << 10, Held: int64(c.held), Read: 16 << 10, Budget: 64 << 10}
		if res, err := update.Install(t.Context(), job); err != nil || res.WrittenBytes != differs || res.SkippedBytes != res.MappedBytes-differs {
			t.Errorf("ranges of %d: Install = %+v, %v; want %d bytes written", c.maxRange, res, err, differs)
		}
	}
}

// Unreadable ranges, and holes that are not zero, are charged to the budget as well.
func TestVainReadsAreBounded(t *testing.T) {
	image := make([]byte, 640<<10)
	rand.NewChaCha8([32]byte{9}).Read(image)
	k := newKit(t, bmap.CreateOptions{})
	sizes := update.Sizes{Chunk: 8 << 10, Held: 64 << 10, Read: 16 << 10, Budget: 64 << 10, Piece: 16 << 10}
	for _, c := range []struct {
		name     string
		maxRange int64
		hole     bool // all but the first block is one
		zeros    int  // at the beginning of each 16 KiB
		broken   bool
		reads    int64
	}{
		{"ranges that cannot be read", 16 << 10, false, 0, true, 4},
		{"a long range that cannot be read", -1, false, 0, true, 8},
		{"a long range that differs", -1, false, 0, false, 8},
		{"a long range, compared while it streams alone", -1, false, 0, false, 80},
		{"a hole", 4096, true, 0, false, 1 + 7},
		{"a hole of half zeros", 4096, true, 8 << 10, false, 1 + 8},
	} {
		k.sign(t, image, bmap.CreateOptions{MaxRange: c.maxRange})
		if c.hole {
			sum := sha256.Sum256(image[:4096])
			m, err := bmap.FromRanges(640<<10, "sha256", []bmap.Range{{Length: 4096, Checksum: hex.EncodeToString(sum[:])}})
			if err != nil {
				t.Fatal(err)
			}
			k.doc = m.Encode()
			k.sig = k.signed(k.doc)
		}
		d := newDevice(640 << 10)
		for at := 4096; c.zeros > 0 && at < len(d.medium); at += 16 << 10 {
			clear(d.medium[at:min(at+c.zeros, len(d.medium))])
		}
		copy(d.data, d.medium)
		v := &vain{device: d, target: target{d}, broken: c.broken}
		job := k.job(d)
		if job.Disk, job.Sizes = v, sizes; c.reads == 80 {
			job.Budget = 640 << 10
		}
		if _, err := update.Install(t.Context(), job); err != nil || v.reads != c.reads {
			t.Errorf("%s: Install = %v after %d reads in vain; want %d", c.name, err, v.reads, c.reads)
		}
	}
}

// vain counts the reads before the flush, and may fail them.
type vain struct {
	*device
	target
	reads   int64
	broken  bool
	flushed atomic.Bool
}

func (v *vain) OpenSlot(string, string) (update.Target, error) { return vainTarget{v}, nil }

type vainTarget struct{ *vain }

func (v vainTarget) Flush() error { v.flushed.Store(true); return v.target.Flush() }

func (v vainTarget) ReadBackAt(p []byte, off int64) (int, error) {
	if !v.flushed.Load() {
		if v.reads++; v.broken {
			return 0, unix.EIO
		}
	}
	return v.target.ReadBackAt(p, off)
}

// Ranges that read back wrong are written once more; if that does not help, or there is no second source, the error names every range.
func TestRepair(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536})
	reopen := func(context.Context) (update.ImageCloser, error) {
		return stream{Reader: bytes.NewReader(k.image)}, nil
	}
	for _, c := range []struct {
		name   string
		reopen func(context.Context) (update.ImageCloser, error)
		at     []int64
		again  []int64 // bytes that are wrong after the repair, too
		ranges []bmap.Span
	}{
		{"a mapped byte", reopen, []int64{70_000}, nil, nil},
		{"an unmapped byte", reopen, []int64{300_000}, nil, nil},
		{"both", reopen, []int64{70_000, 300_000}, nil, nil},
		{"more than all buffers take", reopen, []int64{70_000, 150_000, 199_000, 697_000}, nil, nil},
		{"twice", reopen, []int64{70_000}, []int64{70_000}, []bmap.Span{{Offset: 65536, Length: 65536}}},
		{"one of them twice", reopen, []int64{70_000, 150_000}, []int64{150_000}, []bmap.Span{{Offset: 131072, Length: 65536}}},
		{"both twice", reopen, []int64{70_000, 150_000}, []int64{70_000, 150_000}, []bmap.Span{{Offset: 65536, Length: 65536}, {Offset: 131072, Length: 65536}}},
		{"two ranges, one source", nil, []int64{150_000, 70_000}, nil, []bmap.Span{{Offset: 65536, Length: 65536}, {Offset: 131072, Length: 65536}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDevice(1 << 20)
			flushes := 0
			d.onOp = func(n int) {
				switch op := d.journal[n-1]; {
				case op == "flush":
					for _, at := range [][]int64{c.at, c.again, nil}[min(flushes, 2)] {
						d.medium[at] ^= 1
					}
					flushes++
				case flushes > 0 && strings.HasPrefix(op, "write"):
					time.Sleep(time.Millisecond) // the reader takes every buffer that is free
				}
			}
			j := k.job(d)
			j.Reopen, j.Chunk = c.reopen, 4096
			res, err := update.Install(t.Context(), j)
			if c.ranges == nil {
				if err != nil || res.RepairedBytes == 0 || d.next() != "B" || !bytes.Equal(d.medium[:len(k.image)], k.image) {
					t.Fatalf("Install = %+v, %v, next %s", res, err, d.next())
				}
				return
			}
			bad, ok := errors.AsType[*update.ReadBackError](err)
			if !ok || !isA[*verify.MismatchError](err) || !slices.Equal(bad.Ranges, c.ranges) || d.next() != "A" || flushes > 2 {
				t.Errorf("Install = %v after %d flushes, next %s; want ranges %v", err, flushes, d.next(), c.ranges)
			}
		})
	}
	// A source that changed is not written.
	d := newDevice(1 << 20)
	d.flip = 70_000
	j := k.job(d)
	j.Reopen = func(context.Context) (update.ImageCloser, error) {
		other := slices.Clone(k.image)
		other[66_000] ^= 1
		return stream{Reader: bytes.NewReader(other)}, nil
	}
	_, err := update.Install(t.Context(), j)
	if _, ok := errors.AsType[*update.ImageError](err); !ok || d.next() != "A" {
		t.Errorf("Install with a source that changed = %v; want an ImageError", err)
	}
	j.Reopen = func(context.Context) (update.ImageCloser, error) { return nil, io.ErrUnexpectedEOF }
	j.Image = stream{Reader: bytes.NewReader(k.image)}
	_, err = update.Install(t.Context(), j)
	if _, ok := errors.AsType[*update.SourceError](err); !ok {
		t.Errorf("Install with a source that is gone = %v; want a SourceError", err)
	}
}

// TestRepairEveryFailure: if any operation after the first flush fails, or is the last one before the install is cancelled, nothing is
// retried, and there is no switch. The repair needs a second stream, which is closed.
func TestRepairEveryFailure(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536})
	for _, cancels := range []bool{false, true} {
		for n, done := 1, false; !done; n++ {
			d, at, open := newDevice(1<<20), 0, 0
			ctx, cancel := context.WithCancelCause(t.Context())
			d.onOp = func(i int) {
				if d.journal[i-1] == "flush" && at == 0 {
					at = i + n
					d.medium[70_000], d.medium[150_000], d.medium[300_000] = ^d.medium[70_000], ^d.medium[150_000], 1
				}
				if i == at && cancels {
					cancel(errInjected)
				} else if i == at {
					d.failAt = i
				}
			}
			job := k.job(d)
			job.Chunk = 32768
			job.Reopen = func(ctx context.Context) (update.ImageCloser, error) {
				open++
				image, err := k.reopen(ctx)
				return counted{image, &open}, err
			}
			res, err := update.Install(ctx, job)
			cancel(nil)
			if done = at > len(d.journal); done {
				again := slices.DeleteFunc(slices.Clone(d.journal[slices.Index(d.journal, "flush"):]), func(op string) bool { return op == "read back" })
				if want := []string{"flush", "zero 200704", "write 65536", "write 98304", "write 131072", "write 163840", "flush", "activate B 3"}; !slices.Equal(again, want) {
					t.Errorf("the repair did %q; want %q", again, want)
				}
				if err != nil || res.RepairedBytes != 2*65536+400_000/4096*4096-200_704 || !bytes.Equal(d.medium[:len(k.image)], k.image) {
					t.Errorf("Install = %+v, %v", res, err)
				}
				continue
			}
			op := d.journal[at-1]
			if cancels && strings.HasPrefix(op, "activate") {
				continue
			}
			if !errors.Is(err, errInjected) || d.next() != "A" || open != 0 || !cancels && !classOf(op, err) {
				t.Fatalf("operation %d (%s) failed, or cancelled: Install = %T %v, next %s, %d streams open", at, op, err, err, d.next(), open)
			}
			if !cancels || !strings.HasPrefix(op, "zero") { // else a chunk may follow
				wantNothingAfter(t, d.journal, at)
			}
		}
	}
}

func TestUnmapped(t *testing.T) {
	for _, c := range []struct {
		signed, device string
		want           byte // of an unmapped block that held 0xa5
		result         string
	}{
		{"", "", 0, "zero"}, {"", "keep", 0xa5, "keep"}, {"", "discard", 0xdc, "discard"},
		{"keep", "", 0xa5, "keep"}, {"keep", "discard", 0xa5, "keep"}, {"zero", "keep", 0, "zero"}, {"zero", "discard", 0, "zero"},
	} {
		o := bmap.CreateOptions{MaxRange: 65536}
		if c.signed != "" {
			o.Update = &bmap.Update{Unmapped: c.signed}
		}
		k := newKit(t, o)
		d := newDevice(1 << 20)
		j := k.job(d)
		j.Unmapped = c.device
		res, err := update.Install(t.Context(), j)
		if err != nil || d.medium[300_000] != c.want || res.Unmapped != c.result || (res.ZeroedBytes > 0) != (c.want == 0) {
			t.Errorf("signed %q, device %q: %#x, %+v, %v; want %#x", c.signed, c.device, d.medium[300_000], res, err, c.want)
		}
	}
}

// TestHoleThatIsPartlyZero: a hole that begins with zeros is compared to its end, and zeroed if anything is in it.
func TestHoleThatIsPartlyZero(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536})
	for _, at := range []int64{8192, 16384, 65535} { // of the hole from 8192 to 65536
		d := newDevice(1 << 20)
		clear(d.data[8192:65536])
		d.data[at] = 1
		copy(d.medium, d.data)
		job := k.job(d)
		job.Sizes = update.Sizes{Chunk: 8192, Read: 8192}
		if _, err := update.Install(t.Context(), job); err != nil || d.medium[at] != 0 {
			t.Errorf("byte %d of a hole: Install = %v, and it is %d", at, err, d.medium[at])
		}
	}
}

// The unmapped blocks of a unit are treated before its data, and those of the next unit after that.
func TestGapsComeFirst(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536})
	for gap, want := range map[int64][]string{
		0: {"zero 8192", "zero 200704", "zero 401408", "write 0", "write 65536", "write 131072", "write 196608", "write 397312", "write 696320"},
		131072: {"zero 8192", "write 0", "write 65536", "zero 200704", "write 131072", "write 196608", "zero 262144", "zero 401408", "write 397312",
			"zero 524288", "write 696320"},
	} {
		d := newDevice(1 << 20)
		job := k.job(d)
		job.Gap = gap
		if _, err := update.Install(t.Context(), job); err != nil || !slices.Equal(written(d), want) {
			t.Errorf("Install = %v in units of %d: %q; want %q", err, gap, written(d), want)
		}
	}
}

// sign gives the kit another image.
func (k *kit) sign(t *testing.T, image []byte, o bmap.CreateOptions) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	writeSparse(t, f, image)
	m, err := bmap.Create(t.Context(), f, o)
	if err != nil {
		t.Fatal(err)
	}
	k.image, k.doc, k.imageSize = image, m.Encode(), int64(len(image))
	k.sig = k.signed(k.doc)
}
