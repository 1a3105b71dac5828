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
	f        *os.File // reads, writes, sync_file_range
	sentinel *os.File // the flush barrier; opened before the first write
	direct   *os.File // O_DIRECT; nil where the file system has none
	isBlock  bool
	paced    bool // sync_file_range works

	mu       sync.Mutex
	poisoned error
	buffers  sync.Pool // of *[]byte, readBackChunk long, aligned to directAlign
}

// openDevice opens size bytes at base of the file or block device path. name is used in errors.
func openDevice(name, path string, base, size int64, mode Mode) (_ *Device, err error) {
	if base < 0 || size <= 0 || base > base+size {
		return nil, fmt.Errorf("opening %s: %d bytes at offset %d is no usable window", name, size, base)
	}
	d := &Device{name: name, base: base, size: size}
	d.buffers.New = func() any { return alignedBuffer(readBackChunk) }
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	flags := [...]int{ReadOnly: unix.O_RDONLY, Exclusive: unix.O_RDWR | unix.O_EXCL, Shared: unix.O_RDWR}[mode]
	if d.f, err = os.OpenFile(path, flags|unix.O_CLOEXEC, 0); err != nil {
		if errors.Is(err, unix.EBUSY) {
			return nil, busyBlock(name, path)
		}
		return nil, fmt.Errorf("opening %s: %w", name, err)
	}
	info, err := d.f.Stat()
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", name, err)
	}
	d.isBlock = info.Mode()&os.ModeDevice != 0 && info.Mode()&os.ModeCharDevice == 0
	if !d.isBlock && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("opening %s: is neither a block device nor a regular file", name)
	}
	total, err := sizeOf(d.f, info)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", name, err)
	}
	if base+size > total {
		return nil, fmt.Errorf("opening %s: bytes %d to %d reach past its end at %d", name, base, base+size, total)
	}
	if mode != ReadOnly {
		if !d.isBlock {
			if err := lockWindow(name, d.f, base, size); err != nil {
				return nil, err
			}
		}
		if d.sentinel, err = os.OpenFile(path, unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return nil, fmt.Errorf("opening %s: sentinel descriptor: %w", name, err)
		}
		d.paced = hasSyncRange(d.f)
	}
	// A file system without O_DIRECT answers EINVAL here; ReadBackAt then drops the cache instead.
	if d.direct, err = os.OpenFile(path, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0); err != nil {
		if !errors.Is(err, unix.EINVAL) {
			return nil, fmt.Errorf("opening %s: for direct reads: %w", name, err)
		}
		d.direct = nil
	}
	return d, nil
}

// String names the device as it was asked for, for errors.
func (d *Device) String() string { return d.name }

// Size is the size of the window in bytes.
func (d *Device) Size() int64 { return d.size }

// Close releases the device and its claim. It does not flush: data without a successful [Device.Sync]
// before is not durable.
func (d *Device) Close() error {
	var errs []error
	for _, f := range []*os.File{d.direct, d.f, d.sentinel} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// ReadAt reads through the page cache. It is of no use to verify what was written; see [Device.ReadBackAt].
func (d *Device) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > d.size {
		return 0, fmt.Errorf("reading %s: offset %d is outside its %d bytes", d.name, off, d.size)
	}
	n, err := d.f.ReadAt(p[:min(int64(len(p)), d.size-off)], d.base+off)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("reading %s at %d: %w", d.name, off, err)
	}
	return n, err
}

// WriteAt writes into the page cache; [Device.Sync] makes it durable. A write past the end is refused
// whole. An error poisons the device.
func (d *Device) WriteAt(p []byte, off int64) (int, error) {
	if err := d.check("writing", off, int64(len(p))); err != nil {
		return 0, err
	}
	n, err := d.f.WriteAt(p, d.base+off)
	if err != nil {
		return n, d.poison(fmt.Errorf("writing %s at %d: %w", d.name, off+int64(n), err))
	}
	return n, nil
}

// Sync is the barrier: it writes out every dirty page and flushes the drive's cache (fdatasync on the
// sentinel descriptor; block/fops.c, blkdev_fsync). Data written before is on stable storage when it
// returns nil. An error is final: the device is poisoned and the call is never repeated, because the
// kernel reports a lost page only once.
func (d *Device) Sync() error {
	if err := d.check("flushing", 0, 0); err != nil {
		return err
	}
	if err := ignoringEINTR(func() error { return unix.Fdatasync(int(d.sentinel.Fd())) }); err != nil {
		return d.poison(fmt.Errorf("flushing %s: %w", d.name, os.NewSyscallError("fdatasync", err)))
	}
	return nil
}

// syncRange is [SyncRange] on the window, with poisoning.
func (d *Device) syncRange(off, length int64, flags SyncFlags) error {
	if err := d.check("writing out", off, length); err != nil {
		return err
	}
	if err := SyncRange(d.f, d.base+off, length, flags); err != nil {
		return d.poison(fmt.Errorf("writing out %s at %d: %w", d.name, off, err))
	}
	return nil
}

// dropCache asks the kernel to forget clean pages of the range. It is advice: dirty and locked pages stay.
func (d *Device) dropCache(off, length int64) {
	_ = unix.Fadvise(int(d.f.Fd()), d.base+off, length, unix.FADV_DONTNEED)
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
