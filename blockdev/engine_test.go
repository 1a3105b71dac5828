package blockdev_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"updater/blockdev"
	"updater/internal/crashdisk"
)

// Every engine writes any sequence of pieces, zeros and tails as asked, on sectors of 512 and 4096 bytes, also in a
// window that begins off a page; nothing around it changes; and after Flush all of it is on the medium.
func TestEngines(t *testing.T) {
	const size = 1 << 20
	for _, engine := range []string{blockdev.Paced, blockdev.Direct, blockdev.Auto} {
		for _, sector := range []int64{512, 4096} {
			for seed := range uint64(20) {
				rng := rand.New(rand.NewPCG(seed, uint64(sector)))
				before := bytes.Repeat([]byte{0xa5}, size)
				disk := crashdisk.New(before, crashdisk.Options{Sector: sector, MaxIO: 16 << 10, Seed: seed})
				base, length := int64(rng.IntN(16))*sector, int64(600<<10)
				files := disk.Files(base, length)
				files.Zeroing = []int64{0, 4096, 8192}[rng.IntN(3)] // 0 is the default
				files.Chunk, files.Direct = []int{0, 4096, 8192}[rng.IntN(3)], aligned{files.Direct}
				w := newWriter(t, blockdev.New("slot", files), blockdev.WriterOptions{
					Engine: engine, Window: 16 << 10, Checkpoint: 128 << 10, InFlight: 1 + rng.IntN(3), Buffer: []int64{0, 4096, 12288}[rng.IntN(3)],
				})
				want := bytes.Clone(before)
				for off := int64(0); off < length; {
					n := min(length-off, 1+rng.Int64N(40<<10))
					if rng.IntN(4) > 0 { // mostly whole blocks, as images have
						n = min(length-off, (n+4095)&^4095)
					}
					var err error
					switch rng.IntN(4) {
					case 0:
						err = w.Zero(off, n)
						clear(want[base+off : base+off+n])
					case 1: // a hole that is kept
					default:
						p := make([]byte, n)
						for i := range p {
							p[i] = byte(rng.UintN(255))
						}
						_, err = w.WriteAt(p, off)
						copy(want[base+off:], p)
					}
					if err != nil {
						t.Fatal(err)
					}
					off += n
				}
				if err := w.Flush(); err != nil {
					t.Fatal(err)
				}
				if got := disk.Medium(); !bytes.Equal(got, want) {
					i := 0
					for got[i] == want[i] {
						i++
					}
					t.Fatalf("%s, sectors of %d, seed %d, window at %d: byte %d is %#x; want %#x", engine, sector, seed, base, i, got[i], want[i])
				}
			}
		}
	}
}

// aligned is a descriptor with O_DIRECT that refuses memory that does not begin at a page.
type aligned struct{ blockdev.File }

func (f aligned) Pread(p []byte, off int64) (int, error) {
	if uintptr(unsafe.Pointer(unsafe.SliceData(p)))%4096 != 0 {
		return 0, unix.EINVAL
	}
	return f.File.Pread(p, off)
}

func (f aligned) Pwrite(p []byte, off int64) (int, error) {
	if uintptr(unsafe.Pointer(unsafe.SliceData(p)))%4096 != 0 {
		return 0, unix.EFAULT
	}
	return f.File.Pwrite(p, off)
}

// TestWrittenOutIsTrue checks that progress counts bytes that were written out, never those in the page cache only.
func TestWrittenOutIsTrue(t *testing.T) {
	for _, engine := range []string{blockdev.Paced, blockdev.Direct} {
		disk := crashdisk.New(make([]byte, 1<<20), crashdisk.Options{})
		w := newWriter(t, disk.Device("slot", 0, 1<<20), blockdev.WriterOptions{Engine: engine, Window: 64 << 10, InFlight: 1})
		data := bytes.Repeat([]byte{7}, 48<<10)
		for off := int64(0); off < 16*int64(len(data)); off += int64(len(data)) {
			if _, err := w.WriteAt(data, off); err != nil {
				t.Fatal(err)
			}
			out := w.WrittenOut() // before the look at the drive: a write may be under way
			if taken := int64(bytes.Count(disk.Content(), []byte{7})); out > taken {
				t.Fatalf("%s: WrittenOut() = %d; the drive has %d bytes", engine, out, taken)
			}
			if dirty := off + int64(len(data)) - int64(bytes.Count(disk.Content(), []byte{7})); engine == blockdev.Paced && dirty > 2*64<<10 {
				t.Fatalf("%d bytes are dirty; want at most two windows", dirty)
			}
		}
		if err := w.Flush(); err != nil || w.WrittenOut() != 16*int64(len(data)) {
			t.Errorf("%s: WrittenOut() = %d after %v", engine, w.WrittenOut(), err)
		}
	}
}

// noSyncRange is a descriptor of a kernel without sync_file_range, or of one that forbids it.
type noSyncRange struct {
	blockdev.File
	err   error
	syncs *int
}

func (f noSyncRange) SyncRange(int64, int64, blockdev.SyncFlags) error { return f.err }
func (f noSyncRange) Datasync() error                                  { *f.syncs++; return f.File.Datasync() }

func TestWithoutSyncFileRange(t *testing.T) {
	for _, errno := range []error{unix.ENOSYS, unix.EPERM, unix.ESPIPE} {
		disk, syncs := crashdisk.New(make([]byte, 1<<20), crashdisk.Options{}), 0
		f := disk.Files(0, 1<<20)
		f.Direct, f.Fixed = nil, true
		f.Main, f.Sentinel = noSyncRange{f.Main, errno, new(int)}, noSyncRange{f.Sentinel, errno, &syncs}
		w := newWriter(t, blockdev.New("slot", f), blockdev.WriterOptions{Engine: blockdev.Paced, Window: 64 << 10})
		data := bytes.Repeat([]byte{7}, 300<<10)
		if _, err := w.WriteAt(data, 0); err != nil {
			t.Fatal(err)
		}
		if syncs != 4 || !strings.Contains(w.Engine(), "fdatasync every 64 KiB") {
			t.Errorf("%v: %d flushes after 4 windows, engine %q", errno, syncs, w.Engine())
		}
		if got := w.WrittenOut(); got != 256<<10 {
			t.Errorf("%v: WrittenOut = %d after 4 windows", errno, got)
		}
		if err := w.Flush(); err != nil || !bytes.Equal(disk.Medium()[:len(data)], data) {
			t.Errorf("%v: Flush = %v, or the medium is not what was written", errno, err)
		}
		if syncs = 0; w.Flush() != nil || syncs != 1 {
			t.Errorf("%v: Flush of nothing does %d flushes", errno, syncs)
		}
		got := newWriter(t, blockdev.New("slot", f), blockdev.WriterOptions{}).Engine()
		if got != "paced (fdatasync every 4096 KiB), read-back after dropping the page cache" || w.Barriers() != 0 {
			t.Errorf("Engine = %q, %d barriers are counted; want none without O_DIRECT", got, w.Barriers())
		}
	}
}

func TestDirectIsRefusedWhereItCannotWork(t *testing.T) {
	disk := crashdisk.New(make([]byte, 1<<20), crashdisk.Options{Sector: 4096})
	d := disk.Device("slot", 512, 1<<16)
	if _, err := d.NewWriter(blockdev.WriterOptions{Engine: blockdev.Direct}); !errors.Is(err, blockdev.ErrNoDirect) {
		t.Errorf("NewWriter(direct) on a window at 512 with sectors of 4096 = %v; want ErrNoDirect", err)
	}
	w := newWriter(t, d, blockdev.WriterOptions{})
	if !strings.HasPrefix(w.Engine(), "paced") {
		t.Errorf("auto chose %q", w.Engine())
	}
	if _, err := d.NewWriter(blockdev.WriterOptions{Engine: "fast"}); err == nil {
		t.Error("an unknown engine is accepted")
	}
}

// The facts of a loop device, and the kernel's limits on dirty pages, which are restored.
func TestFactsAndLimits(t *testing.T) {
	node := loop(t, filepath.Join(t.TempDir(), "loop.img"), 16<<20)
	d, err := blockdev.OpenPath(node, 0, 0, blockdev.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	f := d.Facts()
	if f.Kind != "block device" || f.Size != 16<<20 || f.LogicalBlock != 512 || f.WriteCache == "" || f.ReadOnly {
		t.Errorf("Facts() = %+v", f)
	}
	bdi := filepath.Join("/sys/block", filepath.Base(node), "bdi")
	defaults := func() {
		for name, value := range map[string]string{"strict_limit": "0", "max_ratio": "100"} { // the values of a new loop device
			_ = os.WriteFile(filepath.Join(bdi, name), []byte(value), 0)
		}
	}
	defaults()
	defer defaults()
	read := func() (s string) {
		for _, name := range []string{"strict_limit", "max_ratio_fine", "max_ratio"} {
			text, _ := os.ReadFile(filepath.Join(bdi, name))
			s += name + "=" + strings.TrimSpace(string(text)) + " "
		}
		return s
	}
	before := read()
	seq, _ := os.ReadFile(filepath.Join("/sys/block", filepath.Base(node), "diskseq"))
	notes := func() int {
		list, _ := filepath.Glob("/run/updater/bdi-" + filepath.Base(node) + "-" + strings.TrimSpace(string(seq)) + "*")
		return len(list)
	}
	w := newWriter(t, d, blockdev.WriterOptions{Engine: blockdev.Paced})
	during := read()
	if os.WriteFile(filepath.Join(bdi, "strict_limit"), []byte("1"), 0) == nil && (!strings.Contains(during, "strict_limit=1") || notes() != 1) {
		t.Errorf("the limits are %s under a paced writer, with %d notes", during, notes())
	}
	if text, err := os.ReadFile(filepath.Join(bdi, "max_bytes")); err == nil { // in steps of the memory's millionth
		if n, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); n > 9*blockdev.DefaultWindow || n < 4*blockdev.DefaultWindow {
			t.Errorf("the kernel keeps up to %d dirty bytes; want 8 windows, or 9 as the kernel rounds", n)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if read() != before || notes() != 0 {
		t.Errorf("the limits are %s after Close, with %d notes; want %s", read(), notes(), before)
	}
	if during == before {
		t.Logf("this kernel lets no limit be set: %s", before)
	}
	for share, want := range map[string]string{"7000": "7000", "0": "1000000"} { // a limit set by another program, and one under which all writes wait
		fine := filepath.Join(bdi, "max_ratio_fine")
		if os.WriteFile(fine, []byte(share), 0) != nil {
			continue
		}
		again, err := blockdev.OpenPath(node, 0, 0, blockdev.Exclusive)
		if err != nil {
			t.Fatal(err)
		}
		if err := newWriter(t, again, blockdev.WriterOptions{Engine: blockdev.Paced}).Close(); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(fine); strings.TrimSpace(string(got)) != want {
			t.Errorf("a share of %s is %s after Close; want %s", share, got, want)
		}
	}
	defaults()
	for _, engine := range []string{blockdev.Direct, blockdev.Paced} {
		killed, err := blockdev.OpenPath(node, 0, 0, blockdev.Exclusive)
		if err != nil {
			t.Fatal(err)
		}
		newWriter(t, killed, blockdev.WriterOptions{Engine: blockdev.Paced})
		if err := killed.Close(); err != nil { // without its writer, as a process ends that is killed
			t.Fatal(err)
		}
		next, err := blockdev.OpenPath(node, 0, 0, blockdev.Exclusive)
		if err != nil {
			t.Fatal(err)
		}
		w := newWriter(t, next, blockdev.WriterOptions{Engine: engine})
		if got := read(); engine == blockdev.Direct && got != before {
			t.Errorf("the limits are %s under a direct writer, after a run that was killed; want %s", got, before)
		}
		if err := w.Close(); err != nil || read() != before {
			t.Errorf("%s: the limits are %s after a run that was killed and another one, %v; want %s", engine, read(), err, before)
		}
	}
	t.Log(f, "|", before, "|", during)
}

func TestReadOnlyDevice(t *testing.T) {
	node := loop(t, filepath.Join(t.TempDir(), "loop.img"), 16<<20)
	run(t, "blockdev", "--setro", node)
	defer run(t, "blockdev", "--setrw", node)
	for _, mode := range []blockdev.Mode{blockdev.Exclusive, blockdev.Shared} {
		if _, err := blockdev.OpenPath(node, 0, 0, mode); !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EPERM) {
			t.Errorf("opening a read-only device for writing = %v", err)
		}
	}
	d, err := blockdev.OpenPath(node, 0, 0, blockdev.ReadOnly)
	if err != nil || !d.Facts().ReadOnly || openFiles(node) != 2 {
		t.Fatalf("opening a read-only device for reading = %v, with %d files", err, openFiles(node))
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func TestDiscard(t *testing.T) {
	disk := crashdisk.New(bytes.Repeat([]byte{1}, 1<<16), crashdisk.Options{})
	w := newWriter(t, disk.Device("slot", 0, 1<<16), blockdev.WriterOptions{Engine: blockdev.Paced})
	if err := errors.Join(w.Discard(100, 20_000), w.Flush()); err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte{1}, 1<<16)
	copy(want[4096:16384], bytes.Repeat([]byte{0xdc}, 12288))
	if !bytes.Equal(disk.Medium(), want) {
		t.Error("a discard touched more or less than the whole pages of its range")
	}
}

// TestExtCSD parses a register with the bytes that JESD84-B51 names. No eMMC is at hand: the request itself is not tested.
func TestExtCSD(t *testing.T) {
	b := make([]byte, 512)
	set := func(at int, v ...byte) { copy(b[at:], v) }
	set(192, 8)             // EXT_CSD_REV
	set(249, 0, 0x10, 0, 0) // CACHE_SIZE, kilobits
	set(33, 1)              // CACHE_CTRL
	set(167, 0x1f)          // WR_REL_SET
	set(267, 2)             // PRE_EOL_INFO
	set(268, 3)             // DEVICE_LIFE_TIME_EST_TYP_A
	set(269, 5)             // ..._B
	e, err := blockdev.ParseExtCSD(b)
	if want := (blockdev.EMMC{Revision: 8, Cache: 512 << 10, CacheOn: true, Reliable: true, Used: 50, PreEOL: 2}); err != nil || e != want {
		t.Errorf("ParseExtCSD = %+v, %v; want %+v", e, err, want)
	}
	if got, want := e.String(), "eMMC with a cache of 512 KiB 50 % of its life used"; got != want {
		t.Errorf("String = %q; want %q", got, want)
	}
	set(269, 11)
	set(249, 0, 0, 1, 2)
	if e, err = blockdev.ParseExtCSD(b); err != nil || e.Used != 110 || e.Cache != 0x02010000*128 {
		t.Errorf("ParseExtCSD = %+v, %v; want 110 %% used and another cache", e, err)
	}
	set(249, 0, 0, 0, 0)
	set(268, 12) // reserved
	if e, err = blockdev.ParseExtCSD(b); err != nil || e.Used != 0 || e.CacheOn || e.String() != "eMMC" {
		t.Errorf("ParseExtCSD = %+v, %v; want an unknown life, and no cache", e, err)
	}
	set(249, 0, 0x10)
	set(167, 0x1e) // not the user area
	set(33, 0)
	if e, err = blockdev.ParseExtCSD(b); err != nil || e.Reliable || e.CacheOn || !strings.Contains(e.String(), "without write reliability") {
		t.Errorf("ParseExtCSD = %+v, %v; want no reliability and no cache", e, err)
	}
	if _, err := blockdev.ParseExtCSD(b[:511]); err == nil {
		t.Error("a short register is read")
	}
}

// TestFailureIsFinal: nothing succeeds after a failed write or flush, although the drive would accept it: the kernel has dropped the
// pages that it could not write, and a second flush would report nothing.
func TestFailureIsFinal(t *testing.T) {
	for _, kind := range []crashdisk.Kind{crashdisk.FlushKeep, crashdisk.EIO, crashdisk.ShortWrite} {
		for _, engine := range []string{blockdev.Paced, blockdev.Direct, blockdev.Auto} {
			fired := false
			for n := 1; n < 40; n++ {
				disk := crashdisk.New(make([]byte, 1<<20), crashdisk.Options{})
				d := disk.Device("slot", 0, 1<<20)
				w := newWriter(t, d, blockdev.WriterOptions{Engine: engine, Window: 32 << 10})
				disk.Inject(crashdisk.Fault{N: n, Kind: kind})
				_, err := w.WriteAt(bytes.Repeat([]byte{7}, 130<<10+5), 0)
				if err == nil {
					err = w.Flush()
				}
				if fired = fired || disk.Fired() > 0; (disk.Fired() > 0) != (err != nil) {
					t.Errorf("%s: %v at operation %d: writing and flushing = %v", engine, kind, n, err)
				}
				if disk.Fired() == 0 {
					continue
				}
				disk.Heal()
				_, write := w.WriteAt(make([]byte, 4096), 256<<10)
				for name, again := range map[string]error{"Flush": w.Flush(), "Zero": w.Zero(0, 4096), "Discard": w.Discard(0, 4096), "WriteAt": write, "Sync": d.Sync()} {
					if again == nil {
						t.Errorf("%s: %s succeeded after %v at operation %d, which ended with %v", engine, name, kind, n, err)
					}
				}
			}
			if !fired {
				t.Errorf("%s: %v never occurred", engine, kind)
			}
		}
	}
}

// TestZeroingFailureIsFinal: the same holds after a failed zeroing or discard.
func TestZeroingFailureIsFinal(t *testing.T) {
	for name, change := range map[string]func(w *blockdev.Writer) error{
		"Zero":    func(w *blockdev.Writer) error { return w.Zero(0, 8192) },
		"Discard": func(w *blockdev.Writer) error { return w.Discard(0, 8192) },
	} {
		disk := crashdisk.New(make([]byte, 64<<10), crashdisk.Options{})
		w := newWriter(t, disk.Device("slot", 0, 64<<10), blockdev.WriterOptions{Engine: blockdev.Paced})
		disk.Inject(crashdisk.Fault{N: 1, Kind: crashdisk.EIO})
		if err := change(w); !errors.Is(err, unix.EIO) {
			t.Errorf("%s with a failing drive = %v; want EIO", name, err)
		}
		disk.Heal()
		if _, err := w.WriteAt(make([]byte, 4096), 0); err == nil || w.Flush() == nil {
			t.Errorf("a write or a flush succeeded after a failed %s", name)
		}
	}
}

// ordered is a descriptor that records the offsets of its writes, as they end.
type ordered struct {
	*badSector
	mu  *sync.Mutex
	log *[]int64
}

func (o ordered) Pwrite(p []byte, off int64) (int, error) {
	if off%8192 <= 512 && off < 9000 {
		time.Sleep(50 * time.Millisecond)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	*o.log = append(*o.log, off)
	return o.badSector.Pwrite(p, off)
}

// TestDirectSettles: a hole that is not whole pages is zeroed only when no direct write is in flight: they may share a page, and the page
// cache would write its old content over the new one.
func TestDirectSettles(t *testing.T) {
	for _, hole := range []struct {
		off, length int64
		engine      string
		base        int64
	}{{1024, 512, blockdev.Direct, 0}, {1024, 3072, blockdev.Direct, 0}, {4096, 512, blockdev.Direct, 0}, {1024, 4096, blockdev.Direct, 0},
		{4096, 4096, blockdev.Direct, 512}, {1024, 512, blockdev.Auto, 0}} {
		var mu sync.Mutex
		var log []int64
		disk := &badSector{data: make([]byte, 64<<10), bad: -1}
		d := blockdev.New("slot", blockdev.Files{
			Main: ordered{disk, &mu, &log}, Sentinel: disk, Direct: ordered{disk, &mu, &log}, Align: 512, Base: hole.base, Size: 63 << 10,
		})
		w := newWriter(t, d, blockdev.WriterOptions{Engine: hole.engine, Window: 4096})
		if hole.engine == blockdev.Auto { // the direct engine is tried after the paced one
			if _, err := w.WriteAt(make([]byte, 8192), 32<<10); err != nil {
				t.Fatal(err)
			}
			log = nil
		}
		if _, err := w.WriteAt(bytes.Repeat([]byte{7}, 1024), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteAt(bytes.Repeat([]byte{7}, 1024), 8192); err != nil { // the first is in flight now
			t.Fatal(err)
		}
		if err := w.Zero(hole.off, hole.length); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		if len(log) < 2 || !slices.Equal(slices.Sorted(slices.Values(log[:2])), []int64{hole.base, hole.base + 8192}) {
			t.Errorf("zeroing %d bytes at %d: the writes ended in the order %d; want 0 and 8192 first", hole.length, hole.off, log)
		}
		mu.Unlock()
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEdgeWaits: a part of a block is written only when no direct write is in flight, for the same reason.
func TestEdgeWaits(t *testing.T) {
	var mu sync.Mutex
	var log []int64
	disk := &badSector{data: make([]byte, 64<<10), bad: -1}
	d := blockdev.New("slot", blockdev.Files{
		Main: ordered{disk, &mu, &log}, Sentinel: disk, Direct: ordered{disk, &mu, &log}, Align: 512, Size: 64 << 10,
	})
	w := newWriter(t, d, blockdev.WriterOptions{Engine: blockdev.Direct})
	if _, err := w.WriteAt(bytes.Repeat([]byte{7}, 1024), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteAt(bytes.Repeat([]byte{7}, 100), 1124); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil || !slices.Equal(log, []int64{0, 1124}) || w.WrittenOut() != 1124 {
		t.Errorf("Flush = %v, %d bytes were written in the order %d; want 1124, 0 first", err, w.WrittenOut(), log)
	}
}

// TestZeroWithoutCommand: if the kernel has no command for zeros, they are written, all of them and no more.
func TestZeroWithoutCommand(t *testing.T) {
	before := bytes.Repeat([]byte{0xa5}, 2<<20)
	for _, span := range [][2]int{{0, 2 << 20}, {100, 900_000}, {4096, 8192}, {5000, 5100}} {
		disk := crashdisk.New(before, crashdisk.Options{NoZero: true})
		w := newWriter(t, disk.Device("slot", 0, 2<<20), blockdev.WriterOptions{})
		if err := errors.Join(w.Zero(int64(span[0]), int64(span[1]-span[0])), w.Flush()); err != nil {
			t.Fatal(err)
		}
		want := bytes.Clone(before)
		clear(want[span[0]:span[1]])
		if !bytes.Equal(disk.Medium(), want) {
			t.Errorf("zeroing bytes %d to %d: the medium differs", span[0], span[1])
		}
	}
}

// TestReadBackPastTheCache: without O_DIRECT a read-back still sees the medium, not the pages that were read before: a boot loader, or
// another node of the disk, may have written it since.
func TestReadBackPastTheCache(t *testing.T) {
	for _, direct := range []bool{true, false} {
		disk := crashdisk.New(make([]byte, 64<<10), crashdisk.Options{})
		files := disk.Files(0, 64<<10)
		if !direct {
			files.Direct = nil
		}
		d := blockdev.New("area", files)
		got, want := make([]byte, 4096), bytes.Repeat([]byte{7}, 4096)
		if _, err := d.ReadAt(got, 8192); err != nil {
			t.Fatal(err)
		}
		if err := disk.WriteCommand(want, 8192); err != nil {
			t.Fatal(err)
		}
		for _, part := range []struct{ off, end int }{{0, 4096}, {512, 1000}} {
			p := make([]byte, part.end-part.off)
			if _, err := d.ReadBackAt(p, int64(8192+part.off)); err != nil || !bytes.Equal(p, want[part.off:part.end]) {
				t.Errorf("direct %v: ReadBackAt of bytes %d to %d = %v, or old data", direct, part.off, part.end, err)
			}
		}
	}
}

// TestCheckpoint: a writer flushes the drive at every checkpoint, so that a power cut costs no more than the bytes since.
func TestCheckpoint(t *testing.T) {
	for _, engine := range []string{blockdev.Paced, blockdev.Direct, blockdev.Auto} {
		disk := crashdisk.New(make([]byte, 1<<20), crashdisk.Options{})
		w := newWriter(t, disk.Device("slot", 0, 1<<20), blockdev.WriterOptions{Engine: engine, Window: 16 << 10, Checkpoint: 128 << 10})
		for off := int64(0); off < 1<<20; off += 32 << 10 {
			if _, err := w.WriteAt(bytes.Repeat([]byte{7}, 32<<10), off); err != nil {
				t.Fatal(err)
			}
			if durable := int64(bytes.Count(disk.Medium(), []byte{7})); durable < (off+32<<10)>>17<<17 {
				t.Fatalf("%s: %d bytes are durable after %d; want every whole checkpoint", engine, durable, off+32<<10)
			}
		}
		if w.Barriers() != 0 {
			t.Errorf("%d barriers are counted on a medium that is not known to be built in", w.Barriers())
		}
	}
}
