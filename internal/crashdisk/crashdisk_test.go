package crashdisk_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"updater/blockdev"
	"updater/internal/crashdisk"
)

const size = 1 << 20

func newDisk(o crashdisk.Options) *crashdisk.Disk { return crashdisk.New(make([]byte, size), o) }

func fill(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

func mustWrite(t *testing.T, f *crashdisk.FD, p []byte, off int64) {
	t.Helper()
	if n, err := f.Pwrite(p, off); n != len(p) || err != nil {
		t.Fatalf("Pwrite = %d, %v", n, err)
	}
}

// bad counts the sectors that a descriptor does not read as b.
func bad(t *testing.T, f *crashdisk.FD, off int64, n int, b byte) int {
	t.Helper()
	p := make([]byte, n)
	if got, err := f.Pread(p, off); got != n || err != nil {
		t.Fatalf("Pread = %d, %v", got, err)
	}
	count := 0
	for i := 0; i < n; i += 512 {
		if !bytes.Equal(p[i:i+512], fill(b, 512)) {
			count++
		}
	}
	return count
}

const (
	w   = blockdev.Write
	bwa = blockdev.WriteAndWait
)

// Linux's behaviour after one failed write-out: the error is reported once per descriptor, for any range; a buffered
// read shows the data that was never written; the sentinel still gets the error.
func TestErrorOfTheWriteOut(t *testing.T) {
	d := newDisk(crashdisk.Options{MaxIO: 1 << 16})
	a, sentinel := d.Open(), d.Open()
	mustWrite(t, a, fill(1, 1<<16), 0)
	mustWrite(t, a, fill(2, 1<<16), 1<<16)
	d.Inject(crashdisk.Fault{N: 1, Kind: crashdisk.EIO})
	for _, c := range []struct {
		name string
		err  error
		want error
	}{
		{"W", a.SyncRange(0, 1<<16, w), nil},
		{"W again", a.SyncRange(0, 1<<16, w), nil},
		{"BWA of another range", a.SyncRange(1<<16, 1<<16, bwa), unix.EIO},
		{"BWA of the failed range", a.SyncRange(0, 1<<16, bwa), nil},
		{"fdatasync", a.Datasync(), nil},
		{"fdatasync of the sentinel", sentinel.Datasync(), unix.EIO},
		{"and again", sentinel.Datasync(), nil},
		{"a descriptor that was opened later", d.Open().Datasync(), nil},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s = %v; want %v", c.name, c.err, c.want)
		}
	}
	direct := d.OpenDirect()
	if n := bad(t, a, 0, 1<<16, 1); n != 0 {
		t.Errorf("a buffered read shows %d bad sectors; want the phantom", n)
	}
	if n := bad(t, direct, 0, 1<<16, 1); n == 0 {
		t.Error("a direct read shows no loss")
	}
	a.DropCache(0, 1<<16)
	if n := bad(t, a, 0, 1<<16, 1); n == 0 {
		t.Error("a buffered read after dropping the cache shows no loss")
	}
	// B failed, so W was not done.
	if n := bad(t, direct, 1<<16, 1<<16, 2); n != 0 {
		t.Errorf("%d sectors are missing after a later fdatasync", n)
	}
}

func TestUnseenErrorWaitsForTheNextOpener(t *testing.T) {
	d := newDisk(crashdisk.Options{})
	a := d.Open()
	mustWrite(t, a, fill(1, 4096), 0)
	d.Inject(crashdisk.Fault{N: 1, Kind: crashdisk.EIO})
	if err := a.SyncRange(0, 4096, w); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if err := d.Open().Datasync(); !errors.Is(err, unix.EIO) {
		t.Errorf("fdatasync of a new descriptor = %v; want EIO", err)
	}
}

func TestFlush(t *testing.T) {
	for _, c := range []struct {
		kind    crashdisk.Kind
		durable bool
	}{{crashdisk.NoFault, true}, {crashdisk.FlushKeep, true}, {crashdisk.FlushDrop, false}} {
		t.Run(c.kind.String(), func(t *testing.T) {
			d := newDisk(crashdisk.Options{})
			a, other := d.Open(), d.Open()
			mustWrite(t, a, fill(1, 8192), 0)
			if err := a.SyncRange(0, 8192, bwa); err != nil {
				t.Fatal(err)
			}
			if d.Volatile() != 8192 {
				t.Fatalf("%d bytes are volatile after sync_file_range; want 8192", d.Volatile())
			}
			if c.kind != crashdisk.NoFault {
				d.Inject(crashdisk.Fault{N: 1, Kind: c.kind})
				if err := a.Datasync(); !errors.Is(err, unix.EIO) {
					t.Fatalf("fdatasync = %v; want EIO", err)
				}
			}
			for _, f := range []*crashdisk.FD{a, other} {
				if err := f.Datasync(); err != nil {
					t.Fatalf("fdatasync = %v; only the caller of the failed flush sees it", err)
				}
			}
			if got := bytes.Equal(d.Medium()[:8192], fill(1, 8192)); got != c.durable {
				t.Errorf("durable is %v; want %v", got, c.durable)
			}
			if n := bad(t, a, 0, 8192, 1); n != 0 {
				t.Errorf("a buffered read shows %d bad sectors", n)
			}
		})
	}
}

// The states of two writes and a flush, counted by hand: two sectors before it, one behind it.
func TestCrashStates(t *testing.T) {
	d := newDisk(crashdisk.Options{})
	f := d.OpenDirect()
	mustWrite(t, f, fill(1, 512), 0)
	mustWrite(t, f, fill(2, 512), 512)
	if err := f.Datasync(); err != nil {
		t.Fatal(err)
	}
	d.Mark("done")
	mustWrite(t, f, fill(3, 512), 0)
	seen := map[string]int{}
	n, err := d.Crashes(crashdisk.Plan{}, func(s *crashdisk.State) error {
		seen[fmt.Sprint(s.Image[0], s.Image[512], s.Has("done"))]++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1 0 false", "0 2 false", "1 2 false", "1 2 true", "3 2 true"} {
		if seen[want] == 0 {
			t.Errorf("state %q was not tried", want)
		}
		delete(seen, want)
	}
	if len(seen) != 0 {
		t.Errorf("states that cannot be: %v", seen)
	}
	if n != 6 {
		t.Errorf("%d states; want 6", n)
	}
}

// A dirty page may be written out at any time, before any write-out was asked for.
func TestDirtyPagesMayBeOnTheMedium(t *testing.T) {
	d := newDisk(crashdisk.Options{})
	mustWrite(t, d.Open(), fill(1, 4096), 0)
	torn := false
	if _, err := d.Crashes(crashdisk.Plan{}, func(s *crashdisk.State) error {
		torn = torn || s.Image[0] == 1 && s.Image[4095] == 0
		return nil
	}); err != nil || !torn {
		t.Errorf("Crashes = %v; a torn page was tried: %v", err, torn)
	}
}

func TestViolationIsShrunk(t *testing.T) {
	d := newDisk(crashdisk.Options{Sector: 4096})
	f := d.OpenDirect()
	for i := range 20 {
		mustWrite(t, f, fill(1, 4096), int64(i)*4096)
	}
	mustWrite(t, f, fill(9, 4096), 1<<19)
	_, err := d.Crashes(crashdisk.Plan{}, func(s *crashdisk.State) error {
		if s.Image[1<<19] == 9 && s.Image[7*4096] != 1 {
			return errors.New("9 before block 7")
		}
		return nil
	})
	v, ok := errors.AsType[*crashdisk.Violation](err)
	if !ok || len(v.Lost) != 1 || v.Lost[0].Off != 7*4096 || len(v.Trace) == 0 || !strings.Contains(v.Error(), "all of 28672+4096") {
		t.Errorf("Crashes = %v", err)
	}
}

func TestZeroDropsDirtyPages(t *testing.T) {
	d := newDisk(crashdisk.Options{})
	f := d.Open()
	mustWrite(t, f, fill(1, 3*4096), 0)
	if err := f.ZeroOut(4096, 4096); err != nil {
		t.Fatal(err)
	}
	if err := f.Datasync(); err != nil {
		t.Fatal(err)
	}
	want := append(append(fill(1, 4096), make([]byte, 4096)...), fill(1, 4096)...)
	if !bytes.Equal(d.Medium()[:3*4096], want) {
		t.Error("the medium is not data, zeros, data")
	}
}

// A real device on the model: exact offsets, the poisoned state, read-back past the page cache.
func TestDevice(t *testing.T) {
	d := newDisk(crashdisk.Options{MaxIO: 1 << 14})
	dev := d.Device("slot", 1<<19, 1<<19)
	defer dev.Close()
	wr := newWriter(t, dev, blockdev.WriterOptions{Window: 1 << 14, Checkpoint: 1 << 16})
	want := make([]byte, 1<<18+100)
	for i := range want {
		want[i] = byte(i >> 8)
	}
	if _, err := wr.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	if err := wr.Flush(); err != nil {
		t.Fatal(err)
	}
	if m := d.Medium(); !bytes.Equal(m[1<<19:][:len(want)], want) || !bytes.Equal(m[:1<<19], make([]byte, 1<<19)) {
		t.Error("the medium is not what was written")
	}
	d.Inject(crashdisk.Fault{N: 1, Kind: crashdisk.FlushDrop})
	if err := wr.Flush(); !errors.Is(err, unix.EIO) {
		t.Fatalf("Flush = %v; want EIO", err)
	}
	if err := wr.Flush(); err == nil || d.Fired() != 1 {
		t.Errorf("Flush after a failed one = %v, %d faults; want a refusal without a second flush", err, d.Fired())
	}
}

// The same seed gives the same run.
func TestSeed(t *testing.T) {
	run := func(seed uint64) string {
		d := newDisk(crashdisk.Options{Seed: seed})
		f := d.Open()
		d.Inject(crashdisk.Fault{N: 2, Kind: crashdisk.EIO, Sticky: true})
		for i := range 8 {
			_, _ = f.Pwrite(fill(byte(i), 9000), int64(i)*8192)
			_ = f.SyncRange(int64(i)*8192, 8192, bwa)
		}
		sum := 0
		for i, b := range d.Cut(seed) {
			sum = sum*31 + int(b)*i
		}
		return fmt.Sprint(sum, d.Trace())
	}
	if first, again := run(3), run(3); first != again {
		t.Error("two runs with the same seed differ")
	}
}

func newWriter(t *testing.T, d *blockdev.Device, o blockdev.WriterOptions) *blockdev.Writer {
	t.Helper()
	w, err := d.NewWriter(o)
	if err != nil {
		t.Fatal(err)
	}
	return w
}
