package blockdev

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Mode says how [Partition.Open] and [OpenFile] open.
type Mode int

const (
	// ReadOnly opens without any claim; the device may be in use.
	ReadOnly Mode = iota
	// Exclusive opens for reading and writing, and refuses what is mounted, claimed or locked.
	Exclusive
	// Shared opens for reading and writing beside others: for boot state at a raw offset of a disk whose
	// partitions are in use. A window of a regular file is locked as with Exclusive.
	Shared
)

// directAlign is the alignment of O_DIRECT offsets, lengths and buffers. It covers 512-byte and
// 4096-byte sector devices.
const directAlign = 4096

// readBackChunk is the largest single O_DIRECT read.
const readBackChunk = 1 << 20

// Device is an open block device, or a window of one or of a regular file. ReadAt, WriteAt, Zero and
// ReadBackAt may be called from several goroutines; a flush covers the writes that returned before it
// was called.
type Device struct {
	name     string
	base     int64 // of the window in the file
	size     int64
	f        File   // reads, writes, sync_file_range
	sentinel File   // the flush barrier; opened before the first write; nil when read-only
	direct   File   // O_DIRECT; nil where the file system has none
	align    int64  // of O_DIRECT offsets and lengths in the file, bytes: a logical block
	paced    bool   // sync_file_range works
	node     string // folder of the block device in sysfs; "" for a file
	sysfs    string // folder of its whole disk

	mu       sync.Mutex
	poisoned error
	bounce   sync.Pool // of *[]byte, readBackChunk long, aligned to directAlign: for reads that are not
}

// Files are the descriptors that a [Device] works with.
type Files struct {
	Main     File  // reads, writes, sync_file_range
	Sentinel File  // the barrier; opened before anything is written; nil for a read-only device
	Direct   File  // O_DIRECT; nil where there is none
	Align    int64 // of O_DIRECT offsets and lengths, bytes: a logical block; 0 is 4096
	Base     int64 // where the window begins in the file, bytes
	Size     int64 // of the window, bytes
}

// New returns the device behind open descriptors, which it owns from now on. name is used in errors. It is for
// disk models; [Partition.Open] and [OpenPath] open what the kernel has.
func New(name string, f Files) *Device {
	d := &Device{name: name, base: f.Base, size: f.Size, f: f.Main, sentinel: f.Sentinel, direct: f.Direct, align: f.Align}
	if d.align == 0 {
		d.align = directAlign
	}
	d.bounce.New = func() any { return alignedBuffer(readBackChunk) }
	d.paced = d.sentinel != nil && hasSyncRange(d.f)
	return d
}

// openDevice opens size bytes at base of the file or block device path. name is used in errors.
func openDevice(name, path string, base, size int64, mode Mode) (_ *Device, err error) {
	if base < 0 || size <= 0 || base > base+size {
		return nil, fmt.Errorf("opening %s: %d bytes at offset %d is no usable window", name, size, base)
	}
	files := Files{Base: base, Size: size}
	defer func() {
		if err != nil {
			files.close()
		}
	}()
	flags := [...]int{ReadOnly: unix.O_RDONLY, Exclusive: unix.O_RDWR | unix.O_EXCL, Shared: unix.O_RDWR}[mode]
	f, err := os.OpenFile(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.EBUSY) {
			return nil, busyBlock(name, path)
		}
		return nil, fmt.Errorf("opening %s: %w", name, err)
	}
	main := &kernelFile{File: f}
	files.Main = main
	if main.block, err = checkWindow(f, base, size); err != nil {
		return nil, fmt.Errorf("opening %s: %w", name, err)
	}
	if mode != ReadOnly {
		if !main.block {
			if err := lockWindow(name, f, base, size); err != nil {
				return nil, err
			}
		}
		s, err := os.OpenFile(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("opening %s: sentinel descriptor: %w", name, err)
		}
		files.Sentinel = &kernelFile{File: s, block: main.block}
	}
	// A file system without O_DIRECT answers EINVAL here; ReadBackAt then drops the cache instead.
	direct, err := os.OpenFile(path, flags&^unix.O_EXCL|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return nil, fmt.Errorf("opening %s: for direct access: %w", name, err)
	}
	if err == nil {
		files.Direct, files.Align = &kernelFile{File: direct, block: main.block}, alignOf(f, main.block)
	}
	d := New(name, files)
	d.node, d.sysfs = sysfsOf(f)
	if mode != ReadOnly && d.Facts().ReadOnly {
		return nil, fmt.Errorf("opening %s: %w", name, unix.EROFS)
	}
	return d, nil
}

func (f *Files) close() error {
	var errs []error
	for _, file := range []File{f.Direct, f.Main, f.Sentinel} {
		if file != nil {
			errs = append(errs, file.Close())
		}
	}
	return errors.Join(errs...)
}

// checkWindow refuses what is neither a block device nor a regular file, and a window past its end.
func checkWindow(f *os.File, base, size int64) (block bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	block = info.Mode()&os.ModeDevice != 0 && info.Mode()&os.ModeCharDevice == 0
	if !block && !info.Mode().IsRegular() {
		return false, errors.New("is neither a block device nor a regular file")
	}
	total, err := sizeOf(f, info)
	if err != nil {
		return false, err
	}
	if base+size > total {
		return false, fmt.Errorf("bytes %d to %d reach past its end at %d", base, base+size, total)
	}
	return block, nil
}

// alignOf is what O_DIRECT offsets and lengths on f must be a multiple of: the logical block of a block device;
// of a file what the file system says, and 4096 where it does not (statx(2), STATX_DIOALIGN).
func alignOf(f *os.File, block bool) int64 {
	if block {
		if n, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET); err == nil && n > 0 {
			return int64(n)
		}
		return directAlign
	}
	var st unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st)
	if err != nil || st.Mask&unix.STATX_DIOALIGN == 0 || st.Dio_offset_align == 0 {
		return directAlign
	}
	return int64(st.Dio_offset_align)
}

// String names the device as it was asked for, for errors.
func (d *Device) String() string { return d.name }

// Size is the size of the window in bytes.
func (d *Device) Size() int64 { return d.size }

// Close releases the device and its claim. It does not flush: data without a successful [Device.Sync]
// before is not durable.
func (d *Device) Close() error {
	files := Files{Main: d.f, Sentinel: d.sentinel, Direct: d.direct}
	return files.close()
}

// ReadAt reads through the page cache. It is of no use to verify what was written; see [Device.ReadBackAt].
func (d *Device) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > d.size {
		return 0, fmt.Errorf("reading %s: offset %d is outside its %d bytes", d.name, off, d.size)
	}
	var n int
	for want := int(min(int64(len(p)), d.size-off)); n < want; {
		got, err := d.f.Pread(p[n:want], d.base+off+int64(n))
		if err == nil && got == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return n, fmt.Errorf("reading %s at %d: %w", d.name, off+int64(n), err)
		}
		n += got
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt writes; [Device.Sync] makes it durable. Whole pages go into the page cache. A smaller run of whole logical blocks is
// written with O_DIRECT where there is one: the page cache would read the rest of the page first, and so could never rewrite a
// sector that cannot be read. A write past the end is refused whole. An error poisons the device.
func (d *Device) WriteAt(p []byte, off int64) (int, error) {
	if err := d.check("writing", off, int64(len(p))); err != nil {
		return 0, err
	}
	n, err := d.write(p, d.base+off)
	if err != nil {
		return n, d.poison(fmt.Errorf("writing %s at %d: %w", d.name, off+int64(n), err))
	}
	return n, nil
}

// write writes p at an offset of the file.
func (d *Device) write(p []byte, off int64) (int, error) {
	if !d.writesBlocks(len(p), off) {
		return pwrite(d.f, p, off)
	}
	buf := d.bounce.Get().(*[]byte)
	defer d.bounce.Put(buf)
	return pwrite(d.direct, (*buf)[:copy(*buf, p)], off)
}

// writesBlocks reports whether a write is one of whole logical blocks that are not whole pages.
func (d *Device) writesBlocks(n int, off int64) bool {
	pages := off%directAlign == 0 && n%directAlign == 0
	return d.direct != nil && !pages && n <= readBackChunk && off%d.align == 0 && int64(n)%d.align == 0
}

// pwrite writes p with one call. A short write to a device is the end of it or an error on the way: it is
// never continued.
func pwrite(f File, p []byte, off int64) (int, error) {
	n, err := f.Pwrite(p, off)
	if err == nil && n < len(p) {
		err = fmt.Errorf("%d of %d bytes: %w", n, len(p), io.ErrShortWrite)
	}
	return n, err
}

// Sync is the barrier: it writes out every dirty page and flushes the drive's cache (fdatasync on the
// sentinel descriptor; block/fops.c, blkdev_fsync). Data written before is on stable storage when it
// returns nil. An error is final: the device is poisoned and the call is never repeated, because the
// kernel reports a lost page only once.
func (d *Device) Sync() error {
	if err := d.check("flushing", 0, 0); err != nil {
		return err
	}
	if err := d.sentinel.Datasync(); err != nil {
		return d.poison(fmt.Errorf("flushing %s: %w", d.name, err))
	}
	return nil
}

// syncRange is [SyncRange] on the window, with poisoning.
func (d *Device) syncRange(off, length int64, flags SyncFlags) error {
	if err := d.check("writing out", off, length); err != nil {
		return err
	}
	if length == 0 {
		return nil
	}
	if err := d.f.SyncRange(d.base+off, length, flags); err != nil {
		return d.poison(fmt.Errorf("writing out %s at %d: %w", d.name, off, err))
	}
	return nil
}

// dropCache asks the kernel to forget clean pages of the range. It is advice: dirty and locked pages stay.
func (d *Device) dropCache(off, length int64) {
	d.f.DropCache(d.base+off, length)
}

func (d *Device) check(doing string, off, length int64) error {
	if d.sentinel == nil {
		return fmt.Errorf("%s %s: opened read-only", doing, d.name)
	}
	if off < 0 || length < 0 || off > d.size || length > d.size-off {
		return fmt.Errorf("%s %s: %d bytes at offset %d reach past its end at %d", doing, d.name, length, off, d.size)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.poisoned != nil {
		return fmt.Errorf("%s %s: refused after an earlier error: %w", doing, d.name, d.poisoned)
	}
	return nil
}

func (d *Device) poison(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.poisoned == nil {
		d.poisoned = err
	}
	return err
}
