package blockdev

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Mode is the access that [Partition.Open] and [OpenPath] claim.
type Mode int

const (
	// ReadOnly opens for reading, without a claim; the device may be in use.
	ReadOnly Mode = iota
	// Exclusive opens for reading and writing. A mounted, claimed or locked device is a [BusyError].
	Exclusive
	// Shared opens for reading and writing without a claim on a block device, for boot state at a raw offset of a disk whose
	// partitions are in use. A window of a regular file is locked as by Exclusive.
	Shared
)

// flags returns the access flags of open(2).
func (m Mode) flags() int {
	switch m {
	case Exclusive:
		return unix.O_RDWR | unix.O_EXCL
	case Shared:
		return unix.O_RDWR
	}
	return unix.O_RDONLY
}

// directAlign is the alignment in bytes of O_DIRECT buffers, and a page. It is enough for sectors of 512 and 4096 bytes.
const directAlign = 4096

// defaultChunk is the default of Files.Chunk. Larger direct reads gain little.
const defaultChunk = 1 << 20

// Device is an open block device, or a window of a block device or regular file. ReadAt, WriteAt, Zero and ReadBackAt are safe
// for concurrent use; Sync covers the writes that returned before it was called.
type Device struct {
	name     string
	base     int64 // of the window in the file
	size     int64
	f        File   // reads, writes, sync_file_range
	sentinel File   // the flush barrier; opened before the first write; nil when read-only
	direct   File   // O_DIRECT; nil where the file system has none
	align    int64  // of O_DIRECT offsets and lengths in the file, bytes: a logical block
	chunk    int    // largest single O_DIRECT read
	zeroing  int64  // largest single ZeroOut or Discard
	paced    bool   // sync_file_range works
	fills    bool   // the blocks belong to one image: unreadable bytes beside a write may become zero
	node     string // folder of the block device in sysfs; "" for a file
	sysfs    string // folder of its whole disk
	fixed    bool   // a partition of a built-in medium

	mu       sync.Mutex
	poisoned error
	bounce   sync.Pool // of *[]byte, chunk long, aligned to directAlign: for unaligned memory
}

// Files are the descriptors that a [Device] works with.
type Files struct {
	Main     File  // reads, writes, sync_file_range
	Sentinel File  // the barrier; opened before anything is written; nil for a read-only device
	Direct   File  // O_DIRECT; nil where there is none
	Align    int64 // of O_DIRECT offsets and lengths, bytes: a logical block; 0 is 4096
	Base     int64 // where the window begins in the file, bytes
	Size     int64 // of the window, bytes
	Fixed    bool  // the window is a part of a built-in medium
	Chunk    int   // largest single direct read in bytes, whole pages; 0 is 1 MiB
	Zeroing  int64 // largest single ZeroOut or Discard in bytes, whole pages, since it cannot be interrupted; 0 is 64 MiB
}

// New returns a device on open descriptors, which it owns and closes. name is used in errors. It serves disk models;
// [Partition.Open] and [OpenPath] open real devices.
func New(name string, f Files) *Device {
	d := &Device{name: name, base: f.Base, size: f.Size, f: f.Main, sentinel: f.Sentinel, direct: f.Direct, fixed: f.Fixed}
	d.align, d.chunk, d.zeroing = cmp.Or(f.Align, directAlign), cmp.Or(f.Chunk, defaultChunk), cmp.Or(f.Zeroing, 64<<20)
	d.bounce.New = func() any { return alignedBuffer(d.chunk) }
	d.paced = hasSyncRange(d.f)
	return d
}

// openDevice opens size bytes at base of the file or block device path. name is used in errors.
func openDevice(name, path string, base, size int64, mode Mode) (*Device, error) {
	if base < 0 || size <= 0 || base > base+size {
		return nil, fmt.Errorf("opening %s: window of %d bytes at offset %d is empty or out of range", name, size, base)
	}
	f, err := os.OpenFile(path, mode.flags()|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, busyBlock(name, path)
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", name, err)
	}
	main := &kernelFile{File: f}
	files := Files{Main: main, Base: base, Size: size}
	if main.block, err = checkWindow(f, base, size); err != nil {
		err = fmt.Errorf("opening %s: %w", name, err)
	} else {
		err = files.openOthers(name, f, mode, main.block)
	}
	if err != nil {
		return nil, errors.Join(err, files.close())
	}
	d := New(name, files)
	d.node, d.sysfs = sysfsOf(f)
	d.fixed = d.node != d.sysfs && builtIn(d.sysfs)
	if mode != ReadOnly && d.Facts().ReadOnly {
		return nil, errors.Join(fmt.Errorf("opening %s: %w", name, unix.EROFS), files.close())
	}
	return d, nil
}

// openOthers opens the sentinel and the O_DIRECT descriptor beside main, and locks the window of a regular file for writing.
func (f *Files) openOthers(name string, main *os.File, mode Mode, block bool) error {
	if mode != ReadOnly {
		if !block {
			if err := lockWindow(name, main, f.Base, f.Size); err != nil {
				return err
			}
		}
		s, err := os.OpenFile(main.Name(), unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("opening the sentinel descriptor of %s: %w", name, err)
		}
		f.Sentinel = &kernelFile{File: s, block: block}
	}
	// File systems without O_DIRECT return EINVAL; ReadBackAt then drops the page cache instead.
	direct, err := os.OpenFile(main.Name(), mode.flags()&^unix.O_EXCL|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("opening %s for direct access: %w", name, err)
	}
	if err == nil {
		f.Direct, f.Align = &kernelFile{File: direct, block: block}, alignOf(main, block)
	}
	return nil
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

// checkWindow reports whether f is a block device. It refuses files without a size, and windows past the end.
func checkWindow(f *os.File, base, size int64) (block bool, err error) {
	total, block, err := sizeOf(f)
	if err == nil && base+size > total {
		err = fmt.Errorf("window of bytes %d to %d ends behind its %d bytes", base, base+size, total)
	}
	return block, err
}

// alignOf returns the alignment in bytes of O_DIRECT offsets and lengths on f: the logical block of a block device, STATX_DIOALIGN
// of a file (statx(2)), 4096 if the kernel does not report it.
func alignOf(f *os.File, block bool) int64 {
	if block {
		n, _ := unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET)
		return cmp.Or(int64(n), directAlign)
	}
	var st unix.Statx_t
	_ = unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st) // fields that it does not report stay 0
	return cmp.Or(int64(st.Dio_offset_align), directAlign)
}

// String returns the name that the device was opened by.
func (d *Device) String() string { return d.name }

// Size returns the length of the window in bytes.
func (d *Device) Size() int64 { return d.size }

// Close releases the device and its claim. It does not flush: only data before a successful [Device.Sync] is durable.
func (d *Device) Close() error {
	files := Files{Main: d.f, Sentinel: d.sentinel, Direct: d.direct}
	return files.close()
}

// ReadAt reads through the page cache, which proves nothing about the medium; see [Device.ReadBackAt].
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

// WriteAt writes p at off. It is durable after [Device.Sync]. Whole pages go through the page cache. Other runs of whole logical blocks,
// up to 1 MiB, are written with O_DIRECT if possible: the page cache would first read the rest of the page, and fail on an unreadable
// sector that the write would have rewritten. So are parts of a block whose page cannot be read, if the block can. Once the device has a
// [Writer], the rest of an unreadable block becomes zero; before that, the write fails: the rest may be another copy of the boot state,
// on a drive that will answer again. A write past the end writes nothing. An error poisons the device.
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
	if d.writesBlocks(len(p), off) {
		return d.writeBlocks(p, off)
	}
	written := 0
	for len(p) > 0 { // a part of a page, whole pages, a part of a page
		n := len(p) &^ (directAlign - 1)
		if head := int(off % directAlign); head != 0 || n == 0 {
			n = min(len(p), directAlign-head)
		}
		done, err := pwrite(d.f, p[:n], off)
		if n < directAlign && isBadSector(err) {
			done, err = d.writeAround(p[:n], off, err)
		}
		written += done
		if err != nil {
			return written, err
		}
		p, off = p[n:], off+int64(n)
	}
	return written, nil
}

// writeBlocks writes whole logical blocks, with O_DIRECT if the file system accepts their alignment.
func (d *Device) writeBlocks(p []byte, off int64) (int, error) {
	buf := d.bounce.Get().(*[]byte)
	defer d.bounce.Put(buf)
	n, err := pwrite(d.direct, (*buf)[:copy(*buf, p)], off)
	if errors.Is(err, unix.EINVAL) { // nothing was written: the file system refuses the alignment
		return pwrite(d.f, p, off)
	}
	return n, err
}

// isBadSector reports whether a read failed because of the medium (block/blk-core.c, blk_errors).
func isBadSector(err error) bool { return errors.Is(err, unix.EIO) || errors.Is(err, unix.ENODATA) }

// writeAround writes a part of a page whose rest the page cache could not read, with the error unread. It writes whole logical blocks
// with O_DIRECT. The other bytes in them stay. If they cannot be read, they become zero on a device of one image, else nothing is
// written. If the page can be read, it was the write that failed, and that is final.
func (d *Device) writeAround(p []byte, off int64, unread error) (int, error) {
	if d.direct == nil || d.align > directAlign {
		return 0, unread
	}
	buf := d.bounce.Get().(*[]byte)
	defer d.bounce.Put(buf)
	if _, err := d.direct.Pread((*buf)[:directAlign], off&^(directAlign-1)); !isBadSector(err) {
		return 0, unread
	}
	for n := 0; n < len(p); {
		block := (*buf)[:d.align]
		start := (off + int64(n)) / d.align * d.align
		switch got, err := d.direct.Pread(block, start); {
		case isBadSector(err) && d.fills && start >= d.base && start+d.align <= d.base+d.size:
			clear(block)
		case err != nil || got < len(block):
			return n, unread
		}
		part := copy(block[off+int64(n)-start:], p[n:])
		if _, err := pwrite(d.direct, block, start); err != nil {
			return n, err
		}
		n += part
	}
	return len(p), nil
}

// writesBlocks reports whether a write is one of whole logical blocks that are not whole pages.
func (d *Device) writesBlocks(n int, off int64) bool {
	pages := off%directAlign == 0 && n%directAlign == 0
	return d.direct != nil && !pages && n <= d.chunk && off%d.align == 0 && int64(n)%d.align == 0
}

// pwrite writes p with one call. A short write is an error; it is never continued.
func pwrite(f File, p []byte, off int64) (int, error) {
	n, err := f.Pwrite(p, off)
	if err == nil && n < len(p) {
		err = fmt.Errorf("wrote %d of %d bytes: %w", n, len(p), io.ErrShortWrite)
	}
	return n, err
}

// Sync is the barrier: it writes out every dirty page and flushes the drive's cache (fdatasync on the sentinel descriptor;
// block/fops.c, blkdev_fsync). When it returns nil, all writes before it are on stable storage. An error is final and poisons
// the device. The call is never repeated, because the kernel reports a lost page only once.
func (d *Device) Sync() error {
	if err := d.check("flushing", 0, 0); err != nil {
		return err
	}
	if err := d.sentinel.Datasync(); err != nil {
		return d.poison(fmt.Errorf("flushing %s: %w", d.name, err))
	}
	return nil
}

// syncRange calls [SyncRange] on the window. An error poisons the device.
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

// dropCache advises the kernel to drop clean pages of the range. Dirty and locked pages stay.
func (d *Device) dropCache(off, length int64) {
	d.f.DropCache(d.base+off, length)
}

func (d *Device) check(doing string, off, length int64) error {
	if d.sentinel == nil {
		return fmt.Errorf("%s %s: device is open read-only", doing, d.name)
	}
	if off < 0 || length < 0 || length > d.size-off {
		return fmt.Errorf("%s %s: %d bytes at offset %d are not inside its %d bytes", doing, d.name, length, off, d.size)
	}
	if err := d.failure(); err != nil {
		return fmt.Errorf("%s %s: device is poisoned by an earlier error: %w", doing, d.name, err)
	}
	return nil
}

// failure returns the error that has poisoned the device.
func (d *Device) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.poisoned
}

func (d *Device) poison(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.poisoned == nil {
		d.poisoned = err
	}
	return err
}
