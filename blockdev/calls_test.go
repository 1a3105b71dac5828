package blockdev_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"updater/blockdev"
)

// calls notes the calls of all descriptors of a disk in memory, in the order in which they end.
type calls struct {
	mu   sync.Mutex
	log  []string
	data []byte
}

// traced is a descriptor that notes its calls, and takes time for each write.
type traced struct {
	*calls
	name     string
	took     func(bytes int)
	zero     error  // of ZeroOut and Discard
	fail     string // the call that fails
	inFlight int
	most     int // writes at a time
}

func (f *traced) note(format string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	call := fmt.Sprintf(format, args...)
	f.log = append(f.log, f.name+" "+call)
	if call == f.fail {
		return unix.EIO
	}
	return nil
}

func (f *traced) Pread(p []byte, off int64) (int, error) {
	return copy(p, f.data[off:]), f.note("read %d+%d", off, len(p))
}

func (f *traced) Pwrite(p []byte, off int64) (int, error) {
	f.mu.Lock()
	f.inFlight++
	f.most = max(f.most, f.inFlight)
	f.mu.Unlock()
	if f.took != nil {
		f.took(len(p))
	}
	err := f.note("write %d+%d", off, len(p))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inFlight--
	return copy(f.data[off:], p), err
}

func (f *traced) SyncRange(off, length int64, flags blockdev.SyncFlags) error {
	if flags == 0 {
		return nil
	}
	return f.note("%s %d+%d", map[blockdev.SyncFlags]string{blockdev.Write: "start", blockdev.WriteAndWait: "wait"}[flags], off, length)
}

func (f *traced) Datasync() error             { return f.note("flush") }
func (f *traced) DropCache(off, length int64) { _ = f.note("drop %d+%d", off, length) }
func (f *traced) ZeroOut(off, n int64) error  { return cmp.Or(f.note("zero %d+%d", off, n), f.zero) }
func (f *traced) Discard(off, n int64) error  { return cmp.Or(f.note("discard %d+%d", off, n), f.zero) }
func (f *traced) Close() error                { return f.note("close, %d in flight", f.inFlight) }

// tracedFiles are the descriptors of a disk of size bytes.
func tracedFiles(size int64) (c *calls, f blockdev.Files) {
	c = &calls{data: make([]byte, size)}
	return c, blockdev.Files{
		Main: &traced{calls: c, name: "main"}, Sentinel: &traced{calls: c, name: "sentinel"}, Direct: &traced{calls: c, name: "direct"},
		Align: 512, Size: size,
	}
}

func (c *calls) want(t *testing.T, what string, want ...string) {
	t.Helper()
	if !slices.Equal(c.log, want) {
		t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(c.log, "\n"), strings.Join(want, "\n"))
	}
	c.log = nil
}

// TestPacedCalls: a full window is submitted, then the one before it is waited for and its pages are dropped; a window is all that was
// written since, in any order. The barrier is on the descriptor that was opened for it.
func TestPacedCalls(t *testing.T) {
	c, f := tracedFiles(256 << 10)
	f.Base, f.Size, f.Direct = 8192, 240<<10, nil
	w := newWriter(t, blockdev.New("slot", f), blockdev.WriterOptions{Engine: blockdev.Paced, Window: 8192})
	write := func(length int, off int64) {
		t.Helper()
		if _, err := w.WriteAt(make([]byte, length), off); err != nil {
			t.Fatal(err)
		}
	}
	write(12288, 0)
	c.want(t, "a window and a half", "main write 8192+8192", "main start 8192+8192", "main write 16384+4096")
	write(4096, 16384)
	c.want(t, "a hole in the second window", "main write 24576+4096", "main start 16384+12288", "main wait 8192+8192", "main drop 8192+8192")
	if got := w.WrittenOut(); got != 8192 {
		t.Errorf("WrittenOut = %d; want one window", got)
	}
	write(4096, 65536)
	write(4096, 32768)
	c.want(t, "a window in descending order", "main write 73728+4096", "main write 40960+4096", "main start 40960+36864", "main wait 16384+12288",
		"main drop 16384+12288")
	write(1, 131072)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	c.want(t, "a flush", "main write 139264+1", "main start 139264+1", "main wait 40960+36864", "main drop 40960+36864", "main wait 139264+1",
		"main drop 139264+1", "sentinel flush")
	if got := w.WrittenOut(); got != 3*8192+1 {
		t.Errorf("WrittenOut = %d; want all", got)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	c.want(t, "a flush of nothing", "sentinel flush")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	c.want(t, "Close", "main close, 0 in flight", "sentinel close, 0 in flight")
}

// TestCallErrors: the call that has an error returns it, not a later one.
func TestCallErrors(t *testing.T) {
	for _, engine := range []string{blockdev.Paced, blockdev.Auto} {
		for _, fail := range []string{"write 0+4096", "write 4096+4096", "start 0+4096", "start 4096+4096", "wait 0+4096", "flush"} {
			c, f := tracedFiles(64 << 10)
			f.Main.(*traced).fail, f.Sentinel.(*traced).fail = fail, fail
			checkpoint := map[bool]int64{true: 8192}[fail == "flush"] // else the default
			w := newWriter(t, blockdev.New("slot", f), blockdev.WriterOptions{Engine: engine, Window: 4096, Checkpoint: checkpoint})
			if n, err := w.WriteAt(make([]byte, 8192), 0); !errors.Is(err, unix.EIO) || strings.Contains(err.Error(), "earlier error") {
				t.Errorf("%s: WriteAt with a failing %s = %d, %v; want EIO", engine, fail, n, err)
			}
			c.log = nil
			if err := w.Flush(); !errors.Is(err, unix.EIO) {
				t.Errorf("%s: Flush after a failing %s = %v; want EIO", engine, fail, err)
			}
			c.want(t, "a flush after a failing "+fail)
		}
	}
	for fail, tt := range map[string]struct {
		writes [][2]int64 // offsets and lengths, of which the last one fails
		calls  int        // that write, at most
	}{
		"write 100+412": {[][2]int64{{100, 2000}}, 1},           // the rest of a block
		"write 512+100": {[][2]int64{{0, 612}, {8192, 512}}, 2}, // the beginning of a block, at a jump
		"write 0+4096":  {[][2]int64{{0, 64 << 10}}, 4},         // a buffer, and no more than are in flight are written after it
	} {
		synctest.Test(t, func(t *testing.T) {
			c, f := tracedFiles(128 << 10)
			f.Main.(*traced).fail, f.Direct.(*traced).fail = fail, fail
			f.Direct.(*traced).took = func(int) { time.Sleep(time.Second) }
			w := newWriter(t, blockdev.New("slot", f), blockdev.WriterOptions{Engine: blockdev.Direct, Buffer: 4096, InFlight: 1})
			for i, part := range tt.writes {
				n, err := w.WriteAt(make([]byte, part[1]), part[0])
				if last := i == len(tt.writes)-1; err != nil != last || last && !errors.Is(err, unix.EIO) {
					t.Errorf("direct: WriteAt of %d bytes at %d with a failing %s = %d, %v; want EIO at the end", part[1], part[0], fail, n, err)
				}
			}
			err := w.Flush()
			c.log = slices.DeleteFunc(c.log, func(call string) bool { return !strings.Contains(call, " write ") })
			if !errors.Is(err, unix.EIO) || len(c.log) > tt.calls {
				t.Errorf("direct: Flush after a failing %s = %v, and %d calls: %q", fail, err, len(c.log), c.log)
			}
		})
	}
	for _, fail := range []string{"start 4096+904", "wait 0+4096", "wait 4096+904", "flush", "direct write 0+512"} { // of Flush, and of Zero
		_, f := tracedFiles(64 << 10)
		engine, length := blockdev.Paced, 5000
		if write, ok := strings.CutPrefix(fail, "direct "); ok {
			engine, length, fail = blockdev.Direct, 512, write
		}
		f.Main.(*traced).fail, f.Sentinel.(*traced).fail, f.Direct.(*traced).fail = fail, fail, fail
		w := newWriter(t, blockdev.New("slot", f), blockdev.WriterOptions{Engine: engine, Window: 4096})
		_, err := w.WriteAt(make([]byte, length), 0)
		if err == nil && engine == blockdev.Direct {
			err = w.Zero(1024, 512)
		} else if err == nil {
			err = w.Flush()
		}
		if !errors.Is(err, unix.EIO) || strings.Contains(err.Error(), "earlier error") {
			t.Errorf("a failing %s = %v; want EIO", fail, err)
		}
	}
	_, g := tracedFiles(64 << 10) // without sync_file_range each window is flushed
	g.Main, g.Sentinel.(*traced).fail = noSyncRange{g.Main, unix.ENOSYS, new(int)}, "flush"
	window := newWriter(t, blockdev.New("slot", g), blockdev.WriterOptions{Engine: blockdev.Paced, Window: 4096})
	if n, err := window.WriteAt(make([]byte, 4096), 0); !errors.Is(err, unix.EIO) || window.WrittenOut() != 0 {
		t.Errorf("WriteAt with a failing flush = %d, %v, %d bytes written out; want EIO, and none", n, err, window.WrittenOut())
	}
	for _, engine := range []string{blockdev.Paced, blockdev.Direct, blockdev.Auto} { // bytes outside the window are not queued
		c, f := tracedFiles(64 << 10)
		f.Size = 32 << 10
		w := newWriter(t, blockdev.New("slot", f), blockdev.WriterOptions{Engine: engine})
		if _, err := w.WriteAt(make([]byte, 1024), 32<<10-512); err == nil || w.Flush() != nil || strings.Contains(fmt.Sprint(c.log), " write ") {
			t.Errorf("%s: WriteAt past the end of the window = %v, the calls are %q", engine, err, c.log)
		}
	}
	_, f := tracedFiles(64 << 10)
	f.Main.(*traced).fail = "wait 4096+4096" // at the end of the first trial
	w := newWriter(t, blockdev.New("slot", f), blockdev.WriterOptions{Window: 4096})
	if _, err := w.WriteAt(make([]byte, 8192), 0); !errors.Is(err, unix.EIO) {
		t.Errorf("WriteAt at the end of a trial = %v; want EIO", err)
	}
	for _, fail := range []string{"zero 4096+4096", "write 512+3584", "write 8192+512"} { // the pages, and the parts beside them
		_, f := tracedFiles(64 << 10)
		f.Direct, f.Main.(*traced).fail = nil, fail
		d := blockdev.New("slot", f)
		if err := d.Zero(512, 8192); !errors.Is(err, unix.EIO) || d.Sync() == nil {
			t.Errorf("Zero with a failing %s = %v; want EIO, for good", fail, err)
		}
	}
	for i, fail := range []string{"write 512+512", "write 0+4096"} { // one block, and a page that cannot be read either
		_, f := tracedFiles(64 << 10)
		f.Main.(*traced).fail, f.Direct.(*traced).fail, f.Direct = fail, fail, failing{f.Direct, unix.EIO}
		d := blockdev.New("slot", f)
		newWriter(t, d, blockdev.WriterOptions{})
		if n, err := d.WriteAt(make([]byte, []int{512, 4096}[i]), []int64{512, 0}[i]); !errors.Is(err, unix.EIO) || d.Sync() == nil {
			t.Errorf("WriteAt with a failing %s = %d, %v; want EIO, for good", fail, n, err)
		}
	}
	_, f = tracedFiles(64 << 10)
	f.Main.(*traced).fail, f.Direct.(*traced).fail = "read 0+4096", "read 0+4096"
	d := blockdev.New("slot", f)
	for _, read := range []func([]byte, int64) (int, error){d.ReadAt, d.ReadBackAt} {
		if n, err := read(make([]byte, 4096), 0); n != 0 || !errors.Is(err, unix.EIO) {
			t.Errorf("a read that fails = %d, %v; want EIO", n, err)
		}
	}
	f.Direct.(*traced).fail = "read 0+512"
	if n, err := d.ReadBackAt(make([]byte, 100), 100); n != 0 || !errors.Is(err, unix.EIO) {
		t.Errorf("a read of a part of a block that fails = %d, %v; want EIO", n, err)
	}
}

// TestPieces: commands that cannot be interrupted, and direct reads, are bounded; zeroing and discarding skip no piece.
func TestPieces(t *testing.T) {
	c, f := tracedFiles(64 << 10)
	f.Zeroing, f.Chunk = 8192, 8192
	d := blockdev.New("slot", f)
	if err := d.Zero(0, 20480); err != nil {
		t.Fatal(err)
	}
	c.want(t, "Zero", "main zero 0+8192", "main zero 8192+8192", "main zero 16384+4096")
	if err := d.Zero(100, 4000); err != nil {
		t.Fatal(err)
	}
	c.want(t, "Zero of no whole page", "main write 100+3996", "main write 4096+4")
	copy(c.data, bytes.Repeat([]byte{1, 2, 3, 5, 7}, 5000))
	for _, part := range []struct{ skip, off int }{{0, 0}, {1, 0}, {0, 512}, {0, 100}} { // 1 is memory that is not aligned
		c.log = nil
		p := make([]byte, 24<<10)[part.skip:]
		if _, err := d.ReadBackAt(p, int64(part.off)); err != nil || !bytes.Equal(p, c.data[part.off:part.off+len(p)]) {
			t.Errorf("ReadBackAt %d = %v, or other bytes", part.off, err)
		}
		for _, call := range c.log {
			var off, n int
			if _, err := fmt.Sscanf(call, "direct read %d+%d", &off, &n); err != nil || n > 8192 || off%512 != 0 || n%512 != 0 {
				t.Errorf("ReadBackAt %d: %s; want direct reads of whole blocks, 8192 bytes at most", part.off, call)
			}
		}
	}
	c.log = nil
	for _, n := range []int{8192, 8704} { // as long as a direct write may be, and longer
		if _, err := d.WriteAt(make([]byte, n), 512); err != nil {
			t.Fatal(err)
		}
	}
	c.want(t, "WriteAt", "direct write 512+8192", "main write 512+3584", "main write 4096+4096", "main write 8192+1024")
	c, f = tracedFiles(64 << 10)
	f.Zeroing, f.Base, f.Size = 8192, 512, 60<<10
	d = blockdev.New("slot", f)
	if err := errors.Join(d.Discard(0, 30000), d.Discard(100, 5000)); err != nil {
		t.Fatal(err)
	}
	c.want(t, "Discard", "main discard 4096+8192", "main discard 12288+8192", "main discard 20480+8192")
	f.Main.(*traced).zero = fmt.Errorf("none: %w", errors.ErrUnsupported)
	if err := errors.Join(d.Discard(0, 30000), d.Sync()); err != nil {
		t.Errorf("a device that cannot discard: %v", err)
	}
	c.want(t, "Discard without a command", "main discard 4096+8192", "sentinel flush")
}

// TestDirectInFlight: a fast source fills the queue of direct writes and no more, and Close waits for them.
func TestDirectInFlight(t *testing.T) {
	for _, n := range []int{0, 1, 2} { // 0 is the default
		synctest.Test(t, func(t *testing.T) {
			c, f := tracedFiles(16 << 20)
			direct := f.Direct.(*traced)
			direct.took = func(int) { time.Sleep(time.Second) }
			w, err := blockdev.New("slot", f).NewWriter(blockdev.WriterOptions{Engine: blockdev.Direct, InFlight: n})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.WriteAt(make([]byte, 7<<20), 0); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				n = blockdev.DefaultInFlight
			}
			if direct.most != n+1 { // and the buffer that is being filled
				t.Errorf("%d writes were in flight; want %d", direct.most, n+1)
			}
			if len(c.log) != 1+14+3 { // the probe, 512 KiB each
				t.Errorf("%d calls for 7 MiB: %q", len(c.log), c.log)
			}
			c.log = c.log[len(c.log)-3:]
			c.want(t, "Close", "direct close, 0 in flight", "main close, 0 in flight", "sentinel close, 0 in flight")
		})
	}
}

// TestAutoChooses: each engine writes two windows, then direct goes on unless paced was faster by a tenth.
func TestAutoChooses(t *testing.T) {
	for _, tt := range []struct {
		direct time.Duration // for 1 MiB; paced takes 10 ms
		want   string
	}{
		{20 * time.Millisecond, "paced (auto: paced 100 MiB/s, direct 50 MiB/s), direct read-back"},
		{10500 * time.Microsecond, "direct (auto: paced 100 MiB/s, direct 95 MiB/s), direct read-back"},
		{8 * time.Millisecond, "direct (auto: paced 100 MiB/s, direct 125 MiB/s), direct read-back"},
	} {
		synctest.Test(t, func(t *testing.T) {
			c, f := tracedFiles(32 << 20)
			one := make(chan struct{}, 1) // the drive takes one write at a time
			drive := func(each time.Duration) func(int) {
				return func(n int) {
					one <- struct{}{}
					time.Sleep(each * time.Duration(n) / (1 << 20))
					<-one
				}
			}
			f.Main.(*traced).took, f.Direct.(*traced).took = drive(10*time.Millisecond), drive(tt.direct)
			w, err := blockdev.New("slot", f).NewWriter(blockdev.WriterOptions{Window: 4 << 20})
			if err != nil {
				t.Fatal(err)
			}
			for i := range int64(20) {
				if _, err := w.WriteAt(make([]byte, 1<<20), i<<20); err != nil {
					t.Fatal(err)
				}
				if got := w.Engine(); (got != tt.want) != (i < 15) || i < 15 && got != "paced, direct read-back" {
					t.Errorf("%q after %d MiB; want %q after 16", got, i+1, tt.want)
				}
			}
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
			name, _, _ := strings.Cut(tt.want, " ")
			last := "main write 19922944+1048576"
			if name == blockdev.Direct {
				last = "direct write 20447232+524288"
			}
			if !slices.Contains(c.log, last) {
				t.Errorf("the calls lack %q", last)
			}
		})
	}
}

// TestDirectProbe: the direct engine needs O_DIRECT, a window of whole blocks, and reads that the file system accepts. A bad sector is no
// reason against it.
func TestDirectProbe(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(f *blockdev.Files)
		works  bool
	}{
		"direct":                 {func(*blockdev.Files) {}, true},
		"a bad sector":           {func(f *blockdev.Files) { f.Direct = failing{f.Direct, unix.EIO} }, true},
		"no descriptor":          {func(f *blockdev.Files) { f.Direct = nil }, false},
		"EINVAL":                 {func(f *blockdev.Files) { f.Direct = failing{f.Direct, unix.EINVAL} }, false},
		"EOPNOTSUPP":             {func(f *blockdev.Files) { f.Direct = failing{f.Direct, unix.EOPNOTSUPP} }, false},
		"a window off a block":   {func(f *blockdev.Files) { f.Base = 256 }, false},
		"less than a block":      {func(f *blockdev.Files) { f.Size = 511 }, false},
		"blocks of several page": {func(f *blockdev.Files) { f.Align = 8192 }, false},
	} {
		_, f := tracedFiles(64 << 10)
		f.Size = 32 << 10
		tt.change(&f)
		d := blockdev.New("slot", f)
		_, err := d.NewWriter(blockdev.WriterOptions{Engine: blockdev.Direct})
		if (err == nil) != tt.works || err != nil && !errors.Is(err, blockdev.ErrNoDirect) || d.Features().Direct != tt.works {
			t.Errorf("%s: NewWriter = %v, Features %+v; want direct %v", name, err, d.Features(), tt.works)
		}
		w, err := d.NewWriter(blockdev.WriterOptions{Window: 512}) // auto
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.WriteAt(make([]byte, 511), 0)
		if err := errors.Join(err, w.Flush()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// failing is a descriptor whose reads fail.
type failing struct {
	blockdev.File
	err error
}

func (f failing) Pread([]byte, int64) (int, error) { return 0, f.err }

// TestOpenPathRefuses: a window that is not inside the file is refused, and nothing stays open. So is a write to a device that is open for reading.
func TestOpenPathRefuses(t *testing.T) {
	dir := t.TempDir()
	path, fifo := filepath.Join(dir, "file"), filepath.Join(dir, "fifo")
	truncate(t, path, 8192)
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := blockdev.OpenPath(path, -4096, 0, blockdev.Shared)
	if err != nil || d.Size() != 4096 || !strings.HasSuffix(d.String(), "file at 0x1000") {
		t.Fatalf("OpenPath of the last 4096 bytes = %v, %v", d, err)
	}
	before := openFiles(dir)
	for _, c := range []struct {
		path      string
		off, size int64
	}{{path, 0, 8193}, {path, 8192, 1}, {path, 8192, 0}, {path, 8193, 0}, {path, -8193, 1}, {path, 0, -1}, {path, 1 << 62, 1 << 62},
		{fifo, 0, 1}, {dir, 0, 1}, {"/dev/null", 0, 1}, {path, 4000, 1000}} { // the last one is locked
		for _, mode := range []blockdev.Mode{blockdev.ReadOnly, blockdev.Exclusive} {
			if c.off == 4000 && mode == blockdev.ReadOnly {
				continue
			}
			d, err := blockdev.OpenPath(c.path, c.off, c.size, mode)
			if err == nil || isBusy(err) != (c.off == 4000) || !strings.Contains(err.Error(), c.path) {
				t.Errorf("OpenPath(%s, %d, %d) = %v, %v; want an error that names it", c.path, c.off, c.size, d, err)
			}
		}
	}
	empty := filepath.Join(dir, "empty")
	truncate(t, empty, 0)
	for path, want := range map[string]string{path: "partition table", fifo: "expected a block device", dir: "expected a block device",
		empty: "window of 0 bytes"} {
		if d, err := blockdev.OpenDisk(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("OpenDisk(%s) = %v, %v; want %q", path, d, err, want)
		}
	}
	if after := openFiles(dir); after != before {
		t.Errorf("%d files are open after errors; want %d", after, before)
	}
	r, err := blockdev.OpenPath(path, 0, 0, blockdev.ReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	_, werr := r.WriteAt(make([]byte, 512), 0)
	for _, err := range []error{werr, r.Zero(0, 512), r.Zero(0, 0), r.Discard(0, 4096), r.Sync()} {
		if err == nil || !strings.Contains(err.Error(), "open read-only") {
			t.Errorf("changing a device that is open for reading = %v", err)
		}
	}
	if err := errors.Join(r.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
	if after := openFiles(dir); after != 0 {
		t.Errorf("%d files are open after Close", after)
	}
}

// TestTooManyOpenFiles: an open that fails for want of descriptors, at any step, returns that error, and nothing stays open.
func TestTooManyOpenFiles(t *testing.T) {
	path := newDisk(t)
	for name, open := range map[string]func() (any, error){
		"OpenDisk": func() (any, error) {
			d, err := blockdev.OpenDisk(path)
			if err != nil {
				return nil, err
			}
			return d.Degraded(), d.Close()
		},
		"OpenPath": func() (any, error) {
			d, err := blockdev.OpenPath(path, 1<<20, 1<<20, blockdev.Exclusive)
			if err != nil {
				return nil, err
			}
			return d.Features(), d.Close()
		},
	} {
		t.Run(name, func(t *testing.T) { wantCleanFailures(t, path, open) })
	}
}

// wantCleanFailures lowers the limit of open files until open fails. Otherwise it returns the result without a limit.
func wantCleanFailures(t *testing.T, dir string, open func() (any, error)) {
	t.Helper()
	var usual unix.Rlimit
	want, err := open() // which starts the poller of the runtime, too
	if err := errors.Join(err, unix.Getrlimit(unix.RLIMIT_NOFILE, &usual)); err != nil {
		t.Fatal(err)
	}
	before, failed := openFiles(dir), 0
	for n := uint64(3); ; n++ {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: usual.Max}); err != nil {
			t.Fatal(err)
		}
		got, err := open()
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &usual); err != nil {
			t.Fatal(err)
		}
		if err == nil && got == want {
			break
		}
		failed++
		if after := openFiles(dir); !errors.Is(err, unix.EMFILE) || after != before {
			t.Errorf("with %d descriptors: %v, %v, and %d files are open; want EMFILE, and %d", n, got, err, after, before)
		}
	}
	if failed == 0 {
		t.Error("no limit made it fail")
	}
}

// TestShrunkFile: a file that became shorter behind an open device is an unexpected end, not the end of the device.
func TestShrunkFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	truncate(t, path, 16384)
	d, err := blockdev.OpenPath(path, 0, 0, blockdev.ReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	cached := blockdev.New("cached", blockdev.Files{Main: blockdev.KernelFile(f, false), Size: 16384})
	defer cached.Close()
	truncate(t, path, 4100) // 4 bytes of a block
	for name, read := range map[string]func([]byte, int64) (int, error){
		"ReadAt": d.ReadAt, "ReadBackAt": d.ReadBackAt, "without O_DIRECT": cached.ReadBackAt,
	} {
		for _, off := range []int64{4100, 8192, 4101} {
			if n, err := read(make([]byte, 4096), off); n != 0 || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s at %d = %d, %v; want ErrUnexpectedEOF", name, off, n, err)
			}
		}
	}
}

// TestKernelFile: a request that a kernel or a file system has no command for is unsupported, any other error is not.
func TestKernelFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, bytes.Repeat([]byte{7}, 16384), 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(name string, flags int) *os.File {
		f, err := os.OpenFile(name, flags, 0)
		if err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	rw := open(path, os.O_RDWR)
	file, block := blockdev.KernelFile(rw, false), blockdev.KernelFile(rw, true)
	if err := errors.Join(file.Datasync(), file.ZeroOut(4096, 4096), file.Discard(12288, 8192)); err != nil {
		t.Fatal(err)
	}
	want := slices.Concat(bytes.Repeat([]byte{7}, 4096), make([]byte, 4096), bytes.Repeat([]byte{7}, 4096), make([]byte, 4096))
	if !bytes.Equal(readAll(t, path), want) {
		t.Error("punching changed more than the range, or less")
	}
	for name, err := range map[string]error{
		"EINVAL": file.ZeroOut(0, 0), "ENOTTY": block.ZeroOut(0, 4096), "ENOTTY of a discard": block.Discard(0, 4096),
		"EOPNOTSUPP": blockdev.KernelFile(open("/proc/self/comm", os.O_RDWR), false).ZeroOut(0, 4096),
	} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s = %v; want ErrUnsupported", name, err)
		}
	}
	err := blockdev.KernelFile(open(path, os.O_RDONLY), false).ZeroOut(0, 4096)
	if !errors.Is(err, unix.EBADF) || errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("ZeroOut of a file that is open for reading = %v; want EBADF", err)
	}
	for name, call := range map[string]func([]byte, int64) (int, error){
		"Pwrite to a file that is open for reading":  blockdev.KernelFile(open(path, os.O_RDONLY), false).Pwrite,
		"Pread from a file that is open for writing": blockdev.KernelFile(open(path, os.O_WRONLY), false).Pread,
	} {
		if n, err := call([]byte{1}, 0); n != 0 || !errors.Is(err, unix.EBADF) {
			t.Errorf("%s = %d, %v; want EBADF", name, n, err)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if err = blockdev.KernelFile(w, false).Datasync(); !errors.Is(err, unix.EINVAL) {
		t.Errorf("Datasync of a pipe = %v; want EINVAL", err)
	}
	if err := rw.Sync(); err != nil {
		t.Fatal(err)
	}
	now := func() error { // cached pages are read at once
		_, err := unix.Preadv2(int(rw.Fd()), [][]byte{make([]byte, 4096)}, 0, unix.RWF_NOWAIT)
		return err
	}
	if err := now(); err != nil {
		t.Skip(err)
	}
	for range 100 { // the kernel may hold a page for a moment
		if file.DropCache(0, 16384); errors.Is(now(), unix.EAGAIN) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the pages are in the cache after DropCache")
}

// openFiles counts the descriptors of this process on files below dir.
func openFiles(dir string) (n int) {
	list, _ := filepath.Glob("/proc/self/fd/*")
	for _, fd := range list {
		if target, err := os.Readlink(fd); err == nil && strings.HasPrefix(target, dir) {
			n++
		}
	}
	return n
}
