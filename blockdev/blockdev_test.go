package blockdev_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"updater/blockdev"
)

// need skips when a host tool is missing.
func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// began is the time when the process began, or a little later.
var began = time.Now()

// newDisk makes a disk image of 64 MiB with three partitions, one label used twice.
func newDisk(t *testing.T) string {
	t.Helper()
	return partitioned(t, 64<<20, "-n1:2048:+8M", "-t1:ef00", "-c1:esp", "-n2:0:+16M", "-c2:rootfs_a", "-n3:0:+16M", "-c3:rootfs_b",
		"-n4:0:+1M", "-c4:twice", "-n5:0:+1M", "-c5:twice", "-u2:11111111-2222-3333-4444-555555555555")
}

// tables are the first and the last MiB of disks that sgdisk, which sleeps for a second, has made.
var tables = map[string][2][]byte{}

// partitioned makes a disk image with the partitions that sgdisk is asked for.
func partitioned(t *testing.T, size int64, sgdisk ...string) string {
	t.Helper()
	need(t, "sgdisk")
	path := filepath.Join(t.TempDir(), "disk.img")
	truncate(t, path, size)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	key := fmt.Sprint(size, sgdisk)
	if _, ok := tables[key]; !ok {
		run(t, "sgdisk", append(sgdisk, path)...)
		head, tail := make([]byte, 1<<20), make([]byte, 1<<20)
		_, herr := f.ReadAt(head, 0)
		_, terr := f.ReadAt(tail, size-1<<20)
		if err := errors.Join(herr, terr); err != nil {
			t.Fatal(err)
		}
		tables[key] = [2][]byte{head, tail}
	}
	_, herr := f.WriteAt(tables[key][0], 0)
	_, terr := f.WriteAt(tables[key][1], size-1<<20)
	if err := errors.Join(herr, terr); err != nil {
		t.Fatal(err)
	}
	return path
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
}

func openDisk(t *testing.T, path string) *blockdev.Disk {
	t.Helper()
	d, err := blockdev.OpenDisk(path)
	if err != nil {
		t.Fatalf("OpenDisk(%s) = %v", path, err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func find(t *testing.T, d *blockdev.Disk, spec string) blockdev.Partition {
	t.Helper()
	p, err := d.Find(spec)
	if err != nil {
		t.Fatalf("Find(%q) = %v", spec, err)
	}
	return p
}

func TestFind(t *testing.T) {
	d := openDisk(t, newDisk(t))
	for _, c := range []struct {
		name, spec string
		number     int
		want       string // in the error
	}{
		{name: "label", spec: "PARTLABEL=rootfs_b", number: 3},
		{name: "uuid in capitals", spec: "PARTUUID=11111111-2222-3333-4444-555555555555", number: 2},
		{name: "node of an image file", spec: "/dev/mmcblk0p3", number: 3},
		{name: "node without p", spec: "/dev/vda2", number: 2},
		{name: "node of NVMe", spec: "/dev/nvme0n1p4", number: 4},
		{name: "node of a loop device", spec: "/dev/loop12p1", number: 1},
		{name: "node of a network block device", spec: "/dev/nbd0p1", number: 1},
		{name: "node of Xen", spec: "/dev/xvda2", number: 2},
		{name: "node of IDE", spec: "/dev/hdb2", number: 2},
		{name: "whole disk", spec: "/dev/mmcblk1", want: "by number"},
		{name: "whole NVMe disk", spec: "/dev/nvme0n1", want: "by number"},
		{name: "another name", spec: "/dev/mysda1", want: "by number"},
		{name: "label is exact", spec: "PARTLABEL=ROOTFS_B", want: `has partitions 1 "esp", 2 "rootfs_a"`},
		{name: "ambiguous", spec: "PARTLABEL=twice", want: "ambiguous"},
		{name: "empty", spec: "PARTLABEL=", want: "names no partition"},
		{name: "other tag", spec: "LABEL=esp", want: "expected PARTLABEL="},
		{name: "no number", spec: "/dev/disk/by-label/x", want: "by number"},
		{name: "missing number", spec: "/dev/sda9", want: "is not on disk"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := d.Find(c.spec)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("Find(%q) = %v, %v; want an error with %q", c.spec, p, err, c.want)
				}
				return
			}
			if err != nil || p.Number != c.number {
				t.Fatalf("Find(%q) = %d, %v; want partition %d", c.spec, p.Number, err, c.number)
			}
		})
	}
}

func TestPartitionTableAgreesWithSgdisk(t *testing.T) {
	path := newDisk(t)
	p := find(t, openDisk(t, path), "PARTLABEL=rootfs_a")
	info := run(t, "sgdisk", "-i2", path)
	if !strings.Contains(info, "First sector: "+itoa(p.Offset/512)+" ") || !strings.Contains(info, "Partition size: "+itoa(p.Size/512)+" sectors") {
		t.Errorf("partition 2 = offset %d, size %d; sgdisk says\n%s", p.Offset, p.Size, info)
	}
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func TestDamagedTables(t *testing.T) {
	path := newDisk(t)
	smash := func(off int64) {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt(bytes.Repeat([]byte{0x5a}, 512), off); err != nil {
			t.Fatal(err)
		}
	}
	smash(512)
	d := openDisk(t, path)
	if d.Degraded() == "" {
		t.Error("Degraded() is empty with a damaged primary table")
	}
	find(t, d, "PARTLABEL=rootfs_b")
	smash(64<<20 - 512)
	if _, err := blockdev.OpenDisk(path); err == nil {
		t.Error("OpenDisk succeeded with both tables damaged")
	}
}

// openers are the kinds of target that every durable-write test runs on.
func openers(t *testing.T) map[string]func(t *testing.T) *blockdev.Device {
	return map[string]func(t *testing.T) *blockdev.Device{
		"window of a file": func(t *testing.T) *blockdev.Device {
			return open(t, find(t, openDisk(t, newDisk(t)), "PARTLABEL=rootfs_b"))
		},
		"loop device": func(t *testing.T) *blockdev.Device {
			node := loop(t, filepath.Join(t.TempDir(), "loop.img"), 16<<20)
			d, err := blockdev.OpenPath(node, 0, 0, blockdev.Exclusive)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { d.Close() })
			return d
		},
	}
}

func open(t *testing.T, p blockdev.Partition) *blockdev.Device {
	t.Helper()
	d, err := p.Open(blockdev.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// loop attaches a file of size bytes to a loop device, or skips.
func loop(t *testing.T, path string, size int64, options ...string) string {
	t.Helper()
	need(t, "losetup")
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	truncate(t, path, size)
	out, err := exec.Command("losetup", append(options, "--direct-io=on", "-f", "--show", path)...).Output()
	if err != nil {
		t.Skipf("no loop device: %v", err)
	}
	node := strings.TrimSpace(string(out))
	forget := func() { // a loop device keeps the partitions that were added to it
		parts, _ := filepath.Glob("/sys/class/block/" + filepath.Base(node) + "p*")
		for _, p := range parts {
			_ = exec.Command("delpart", node, strings.TrimPrefix(filepath.Base(p), filepath.Base(node)+"p")).Run()
		}
	}
	forget()
	t.Cleanup(func() {
		forget()
		_ = exec.Command("losetup", "-d", node).Run()
	})
	return node
}

func TestWriteFlushReadBack(t *testing.T) {
	for name, opener := range openers(t) {
		t.Run(name, func(t *testing.T) {
			d := opener(t)
			want := make([]byte, d.Size())
			rng := rand.NewChaCha8([32]byte{1})
			rng.Read(want)
			w := newWriter(t, d, blockdev.WriterOptions{Window: 1 << 20, Checkpoint: 4 << 20})
			if _, err := w.WriteAt(want, 0); err != nil {
				t.Fatal(err)
			}
			// Zero over random data first, with edges off every alignment, then data around it.
			hole := func(off, n int64) {
				if err := w.Flush(); err != nil {
					t.Fatal(err)
				}
				if err := w.Zero(off, n); err != nil {
					t.Fatal(err)
				}
				clear(want[off : off+n])
			}
			hole(0, 4096)
			hole(1<<20+512, 3<<20)
			hole(5<<20+1, 100)
			hole(6<<20, 512)
			hole(d.Size()-700, 700)
			for off := int64(7 << 20); off < 12<<20; off += 300_001 {
				patch := bytes.Repeat([]byte{byte(off)}, 77_777)
				copy(want[off:], patch)
				if _, err := w.WriteAt(patch, off); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
			if got := w.WrittenOut(); got < d.Size() {
				t.Errorf("WrittenOut() = %d after a flush; want at least %d", got, d.Size())
			}
			for _, c := range []struct{ off, n int64 }{{0, d.Size()}, {1, 4095}, {511, 2}, {4096, 4096}, {d.Size() - 1, 1}, {3<<20 - 1, 2<<20 + 3}} {
				got := make([]byte, c.n)
				if n, err := d.ReadBackAt(got, c.off); err != nil || int64(n) != c.n {
					t.Fatalf("ReadBackAt(%d bytes, %d) = %d, %v", c.n, c.off, n, err)
				}
				if !bytes.Equal(got, want[c.off:c.off+c.n]) {
					t.Errorf("ReadBackAt(%d bytes, %d): bytes differ", c.n, c.off)
				}
			}
			if !d.ReadBackDirect() {
				t.Log("no O_DIRECT here: the cache was dropped instead")
			}
		})
	}
}

// TestReadBackCopiesNothing checks that a page-aligned read goes straight into the caller's memory: a buffer in between, as large
// as the read, costs a copy and has the collector run without end below a memory limit.
func TestReadBackCopiesNothing(t *testing.T) {
	d := open(t, find(t, openDisk(t, newDisk(t)), "PARTLABEL=rootfs_b"))
	if !d.ReadBackDirect() {
		t.Skip("no O_DIRECT here")
	}
	p := make([]byte, 1<<20)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 4 {
		if _, err := d.ReadBackAt(p, 4096); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got >= uint64(len(p)) {
		t.Errorf("four reads of %d bytes allocated %d", len(p), got)
	}
}

func TestBoundsAndNeighbours(t *testing.T) {
	path := newDisk(t)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := find(t, openDisk(t, path), "PARTLABEL=rootfs_b")
	d := open(t, p)
	if _, err := d.WriteAt(make([]byte, 2), d.Size()-1); err == nil {
		t.Error("a write past the end succeeded")
	}
	if _, err := d.WriteAt(make([]byte, 1), -1); err == nil {
		t.Error("a write at a negative offset succeeded")
	}
	if err := d.Zero(d.Size(), 1); err == nil {
		t.Error("zeroing past the end succeeded")
	}
	if err := d.Zero(0, -1); err == nil {
		t.Error("zeroing -1 bytes succeeded")
	}
	if err := d.Discard(4096, d.Size()); err == nil {
		t.Error("discarding past the end succeeded")
	}
	full := bytes.Repeat([]byte{0xa5}, int(d.Size()))
	if _, err := d.WriteAt(full, 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	for _, read := range []func([]byte, int64) (int, error){d.ReadAt, d.ReadBackAt} {
		if n, err := read(make([]byte, 10), d.Size()-4); n != 4 || !errors.Is(err, io.EOF) {
			t.Errorf("reading over the end = %d, %v; want 4, EOF", n, err)
		}
		if n, err := read(make([]byte, 1), d.Size()); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("reading at the end = %d, %v; want 0, EOF", n, err)
		}
		for _, off := range []int64{-1, d.Size() + 1} {
			if _, err := read(make([]byte, 1), off); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("reading at %d = %v; want an error", off, err)
			}
		}
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copy(before[p.Offset:], full)
	if !bytes.Equal(before, after) {
		t.Error("writing a partition changed bytes outside it")
	}
}

func TestExclusive(t *testing.T) {
	t.Run("window", func(t *testing.T) {
		disk := openDisk(t, newDisk(t))
		open(t, find(t, disk, "PARTLABEL=rootfs_b"))
		if _, err := find(t, disk, "PARTLABEL=rootfs_b").Open(blockdev.Exclusive); !isBusy(err) {
			t.Errorf("opening a held window = %v; want a BusyError", err)
		}
		if _, err := find(t, disk, "PARTLABEL=rootfs_b").Open(blockdev.ReadOnly); err != nil {
			t.Errorf("reading a held window = %v", err)
		}
		open(t, find(t, disk, "PARTLABEL=rootfs_a"))
	})
	t.Run("mounted", func(t *testing.T) {
		need(t, "mkfs.ext4", "mount")
		node := loop(t, filepath.Join(t.TempDir(), "fs.img"), 16<<20)
		run(t, "mkfs.ext4", "-q", node)
		dir := t.TempDir()
		if out, err := exec.Command("mount", node, dir).CombinedOutput(); err != nil {
			t.Skipf("mount: %v: %s", err, out)
		}
		defer func() { _ = exec.Command("umount", dir).Run() }()
		_, err := blockdev.OpenPath(node, 0, 0, blockdev.Exclusive)
		if !isBusy(err) || !strings.Contains(err.Error(), "mounted on "+dir) {
			t.Errorf("opening a mounted device = %v; want a BusyError that names %s", err, dir)
		}
	})
	t.Run("swap", func(t *testing.T) {
		need(t, "mkswap", "swapon")
		node := loop(t, filepath.Join(t.TempDir(), "swap.img"), 1<<20)
		run(t, "mkswap", node)
		if out, err := exec.Command("swapon", node).CombinedOutput(); err != nil {
			t.Skipf("swapon: %v: %s", err, out)
		}
		defer run(t, "swapoff", node)
		if _, err := blockdev.OpenPath(node, 0, 0, blockdev.Exclusive); !isBusy(err) || !strings.Contains(err.Error(), "used as swap") {
			t.Errorf("opening swap = %v; want a BusyError that names it", err)
		}
	})
	t.Run("claimed", func(t *testing.T) {
		node := loop(t, filepath.Join(t.TempDir(), "disk.img"), 1<<20)
		open := func(mode blockdev.Mode) error {
			d, err := blockdev.OpenPath(node, 0, 0, mode)
			if err == nil {
				err = d.Close()
			}
			return err
		}
		claim, err := os.OpenFile(node, os.O_RDWR|os.O_EXCL, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := open(blockdev.Exclusive); !isBusy(err) || !strings.Contains(err.Error(), "held by another program") {
			t.Errorf("opening a claimed device = %v; want a BusyError", err)
		}
		if err := errors.Join(open(blockdev.Shared), open(blockdev.ReadOnly), claim.Close(), open(blockdev.Exclusive)); err != nil {
			t.Error(err)
		}
	})
	t.Run("a partition is mounted", func(t *testing.T) {
		need(t, "mkfs.ext4", "mount")
		node := loop(t, filepath.Join(t.TempDir(), "fs.img"), 16<<20)
		if err := blockdev.AddPartition(node, 1, 1<<20, 8<<20); err != nil {
			t.Skip(err)
		}
		part := filepath.Join(t.TempDir(), "p1")
		dev, err := os.ReadFile("/sys/class/block/" + filepath.Base(node) + "p1/dev")
		if err != nil {
			t.Fatal(err)
		}
		major, minor, _ := strings.Cut(strings.TrimSpace(string(dev)), ":")
		run(t, "mknod", part, "b", major, minor)
		run(t, "mkfs.ext4", "-q", part)
		dir := t.TempDir()
		if out, err := exec.Command("mount", part, dir).CombinedOutput(); err != nil {
			t.Skipf("mount: %v: %s", err, out)
		}
		defer func() { _ = exec.Command("umount", dir).Run() }()
		_, err = blockdev.OpenPath(node, 0, 0, blockdev.Exclusive)
		if want := "its partition " + node + "p1 is mounted on " + dir; !isBusy(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("opening a disk with a mounted partition = %v; want a BusyError with %q", err, want)
		}
	})
	t.Run("loop over the file", func(t *testing.T) {
		path := newDisk(t)
		if err := os.Symlink(path, path+".link"); err != nil {
			t.Fatal(err)
		}
		disk := openDisk(t, path+".link")
		loop(t, path, 64<<20)
		if _, err := find(t, disk, "PARTLABEL=rootfs_b").Open(blockdev.Exclusive); !isBusy(err) {
			t.Errorf("opening a file behind a loop device = %v; want a BusyError", err)
		}
		if err := find(t, disk, "PARTLABEL=rootfs_b").Busy(); !isBusy(err) {
			t.Errorf("Busy of a file behind a loop device = %v; want a BusyError", err)
		}
	})
}

func isBusy(err error) bool {
	_, ok := errors.AsType[*blockdev.BusyError](err)
	return ok
}

func TestLock(t *testing.T) {
	path := newDisk(t)
	first, second := openDisk(t, path), openDisk(t, path)
	others := func(at int64) { // other locks of this disk, and shared ones of other files, which /proc/locks lists, too
		for i := range int64(8) {
			f, err := os.Create(filepath.Join(t.TempDir(), "other"))
			if err == nil {
				err = unix.Flock(int(f.Fd()), unix.LOCK_SH)
			}
			w, werr := blockdev.OpenPath(path, at+i*512, 512, blockdev.Exclusive)
			if err := errors.Join(err, werr); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = errors.Join(f.Close(), w.Close()) })
		}
	}
	others(0)
	if err := first.Lock(0); err != nil {
		t.Fatal(err)
	}
	others(mib)
	start := time.Now()
	err := second.Lock(0)
	if took := time.Since(start); took >= 10*time.Second {
		t.Errorf("Lock(0) waited for %v, as for udev's shared lock", took)
	}
	locked, ok := errors.AsType[*blockdev.LockedError](err)
	if least := time.Since(began) - time.Second; !ok || locked.PID != os.Getpid() || locked.Age <= max(0, least) || locked.Age > least+time.Minute {
		t.Errorf("second Lock() = %+v; want a LockedError that names process %d and its age", locked, os.Getpid())
	}
	for want, e := range map[string]blockdev.LockedError{
		"disk d is locked by another process": {Disk: "d"}, "disk d is locked by process 7": {Disk: "d", PID: 7},
		"disk d is locked by process 7, which has been running for 2s": {Disk: "d", PID: 7, Age: 2 * time.Second},
	} {
		if got := e.Error(); got != want {
			t.Errorf("Error = %q; want %q", got, want)
		}
	}
	first.Close()
	if err := second.Lock(0); err != nil {
		t.Errorf("Lock() after the holder closed = %v", err)
	}
}

// TestLockWaitsForProbing: udev takes a shared lock of a disk while it looks at it, which only delays an install.
func TestLockWaitsForProbing(t *testing.T) {
	path := newDisk(t)
	d := openDisk(t, path)
	probe, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(probe.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(100*time.Millisecond, func() { probe.Close() })
	if err := d.Lock(0); err != nil {
		t.Errorf("Lock of a disk that udev looks at = %v", err)
	}
}

// TestWindowOfAnImage opens parts of a partition of a disk image file, and refuses windows that are not inside it.
func TestWindowOfAnImage(t *testing.T) {
	path := newDisk(t)
	disk := openDisk(t, path)
	if head, tail, err := disk.TableAreas(); err != nil || head != 34*512 || tail != 33*512 || !disk.IsFile() {
		t.Errorf("TableAreas = %d, %d, %v", head, tail, err)
	}
	p, want := find(t, disk, "PARTLABEL=rootfs_b"), readAll(t, path)
	if err := p.Busy(); err != nil {
		t.Errorf("Busy = %v", err)
	}
	if whole, err := blockdev.IsWholeDisk(path); whole || err != nil {
		t.Errorf("IsWholeDisk of a file = %v, %v", whole, err)
	}
	for _, c := range []struct{ off, size int64 }{{p.Size, 1}, {0, p.Size + 1}, {1, p.Size}, {-p.Size - 1, 1}, {0, 0}, {0, -1}} {
		if _, err := p.OpenWindow(c.off, c.size, blockdev.ReadOnly); err == nil || !strings.Contains(err.Error(), "not inside") {
			t.Errorf("OpenWindow(%d, %d) = %v", c.off, c.size, err)
		}
	}
	before := openFiles(path)
	for i, c := range []struct{ off, at int64 }{{0, 0}, {512, 512}, {-4096, p.Size - 4096}, {p.Size - 8192, p.Size - 8192}, {-512, p.Size - 512}} {
		w, err := p.OpenWindow(c.off, 512, blockdev.Exclusive)
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Statx_t
		if unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_DIOALIGN, &st) == nil && st.Dio_offset_align == 512 && !w.Features().Direct {
			t.Errorf("the window at %d has no O_DIRECT, which the file system has for blocks of 512 bytes", c.at)
		}
		data := bytes.Repeat([]byte{byte(i + 1)}, 512)
		copy(want[p.Offset+c.at:], data)
		_, err = w.WriteAt(data, 0)
		if err := errors.Join(err, w.Sync(), w.Close()); err != nil {
			t.Error(err)
		}
	}
	if !bytes.Equal(readAll(t, path), want) {
		t.Error("the windows are not where they were asked for")
	}
	if after := openFiles(path); after != before {
		t.Errorf("%d files are open; want %d", after, before)
	}
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	_, err := p.Open(blockdev.Exclusive)
	_, ferr := p.OpenFATFile("grubenv", blockdev.ReadOnly)
	for _, err := range []error{err, ferr, p.Busy()} {
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("opening a partition of an image that is gone = %v; want ErrNotExist", err)
		}
	}
}

// An error is final: a full backing device fails the flush, and every later call repeats that error.
func TestErrorsPoison(t *testing.T) {
	need(t, "mount")
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=4M", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("mount: %v: %s", err, out)
	}
	defer func() { _ = exec.Command("umount", "-l", dir).Run() }()
	node := loop(t, filepath.Join(dir, "thin.img"), 32<<20)
	d, err := blockdev.OpenPath(node, 0, 0, blockdev.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	w := newWriter(t, d, blockdev.WriterOptions{Window: 1 << 20})
	chunk := bytes.Repeat([]byte{1}, 1<<20)
	var first error
	for off := int64(0); off < 16<<20 && first == nil; off += int64(len(chunk)) {
		_, first = w.WriteAt(chunk, off)
	}
	if first == nil {
		first = w.Flush()
	}
	if first == nil {
		t.Fatal("16 MiB were written to a device with 4 MiB behind it without an error")
	}
	if err := d.Sync(); err == nil || !strings.Contains(err.Error(), "poisoned by an earlier error") {
		t.Errorf("Sync() after %v = %v; want a refusal", first, err)
	}
	if _, err := d.WriteAt(chunk, 0); err == nil {
		t.Error("a write after an error succeeded")
	}
}

func TestSyncRange(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for _, c := range []struct {
		name     string
		f        *os.File
		off, len int64
		flags    blockdev.SyncFlags
		want     string
	}{
		{"write and wait", f, 0, 4096, blockdev.WriteAndWait, ""},
		{"start", f, 0, 4096, blockdev.StartAll, ""},
		{"length 0", f, 0, 0, blockdev.WriteAndWait, ""},
		{"negative offset", f, -4096, 4096, blockdev.Write, "invalid argument"},
		{"overflow", f, 1 << 62, 1 << 62, blockdev.Write, "invalid argument"},
		{"unknown flag", f, 0, 4096, 64, "invalid argument"},
		{"pipe", w, 0, 4096, blockdev.Write, "illegal seek"},
		{"length 0 of a pipe", w, 0, 0, blockdev.WriteAndWait, ""},
		{"probe of a pipe", w, 0, 0, 0, "illegal seek"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := blockdev.SyncRange(c.f, c.off, c.len, c.flags)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("SyncRange(%d, %d, %d) = %v; want %q", c.off, c.len, c.flags, err, c.want)
			}
		})
	}
}

func TestOpenFATFile(t *testing.T) {
	need(t, "mkfs.vfat", "mcopy", "mmd")
	for _, c := range []struct {
		bits string
		size int64
	}{{"12", 4 << 20}, {"16", 16 << 20}, {"32", 64 << 20}} {
		t.Run("FAT"+c.bits, func(t *testing.T) {
			dir := t.TempDir()
			disk, esp := filepath.Join(dir, "disk.img"), filepath.Join(dir, "esp.img")
			truncate(t, esp, c.size)
			run(t, "mkfs.vfat", "-F", c.bits, esp)
			env := filepath.Join(dir, "grubenv")
			want := append([]byte("# GRUB Environment Block\n"), bytes.Repeat([]byte("#"), 999)...)
			if err := os.WriteFile(env, want, 0o600); err != nil {
				t.Fatal(err)
			}
			run(t, "mmd", "-i", esp, "::/grub")
			run(t, "mcopy", "-i", esp, env, "::/grub/grubenv")
			big := filepath.Join(dir, "big")
			truncate(t, big, 1<<20+1)
			run(t, "mcopy", "-i", esp, big, "::/big")
			truncate(t, disk, c.size+4<<20)
			run(t, "sgdisk", "-n1:2048:+"+itoa(c.size/1024)+"K", "-c1:esp", disk)
			run(t, "dd", "if="+esp, "of="+disk, "bs=1M", "seek=1", "conv=notrunc,sparse", "status=none")

			p := find(t, openDisk(t, disk), "PARTLABEL=esp")
			d, err := p.OpenFATFile("/grub/grubenv", blockdev.Exclusive)
			if err != nil {
				t.Fatal(err)
			}
			if d.Size() != int64(len(want)) {
				t.Fatalf("Size() = %d; want %d", d.Size(), len(want))
			}
			copy(want[25:], "ORDER=B A\n")
			if _, err := d.WriteAt(want, 0); err != nil {
				t.Fatal(err)
			}
			if err := d.Sync(); err != nil {
				t.Fatal(err)
			}
			d.Close()
			got := run(t, "mtype", "-i", disk+"@@1M", "::/grub/grubenv")
			if got != string(want) {
				t.Errorf("mtype reads %.60q; want %.60q", got, want)
			}
			for name, want := range map[string]string{"/grub/none": "not exist", "/none/grubenv": "not exist", "/big": "expected at most 1048576"} {
				if _, err := p.OpenFATFile(name, blockdev.ReadOnly); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("OpenFATFile(%s) = %v; want %q", name, err, want)
				}
			}
			if c.bits == "12" {
				wantCleanFailures(t, disk, func() (any, error) {
					d, err := p.OpenFATFile("/grub/grubenv", blockdev.Exclusive)
					if err != nil {
						return nil, err
					}
					return d.Size(), d.Close()
				})
				change(t, disk, func(b []byte) { clear(b[1<<20 : 1<<20+512]) })
				if d, err := p.OpenFATFile("/grub/grubenv", blockdev.ReadOnly); err == nil || !strings.Contains(err.Error(), "locating /grub/grubenv") {
					t.Errorf("OpenFATFile without a file system = %v, %v; want an error", d, err)
				}
			}
			if n := openFiles(disk); n != 1 {
				t.Errorf("%d files are open; want the disk", n)
			}
		})
	}
}

func newWriter(t *testing.T, d *blockdev.Device, o blockdev.WriterOptions) *blockdev.Writer {
	t.Helper()
	w, err := d.NewWriter(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() }) // gives the kernel's limits back
	return w
}
