package blockdev

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Disk is a whole disk with a partition table, GPT or MBR: a block device, or a regular file that holds a disk image. It is
// held open read-only. Safe for concurrent use.
type Disk struct {
	path  string
	f     *os.File
	size  int64
	block bool
	table table

	mu    sync.Mutex
	claim *os.File // exclusive claim on a block device without partition nodes, shared by its windows
}

// OpenDisk opens a disk and reads its partition table past the page cache: a GPT for sectors of 512 or 4096 bytes, from the
// backup where the primary is damaged (see [Disk.Degraded]), or an MBR with its logical partitions. Memory is bounded, whatever
// the disk holds.
func OpenDisk(path string) (_ *Disk, err error) {
	f, err := os.OpenFile(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening disk: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	d := &Disk{path: path, f: f}
	if d.size, d.block, err = sizeOf(f); err != nil {
		return nil, fmt.Errorf("opening disk %s: %w", path, err)
	}
	if err := d.readTable(); err != nil {
		return nil, fmt.Errorf("reading the partition table of %s: %w", path, err)
	}
	return d, nil
}

// Close closes the disk and releases its lock. Devices opened from it stay open, but windows of a block device without partition
// nodes are no longer exclusive.
func (d *Disk) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.claim != nil {
		return errors.Join(d.claim.Close(), d.f.Close())
	}
	return d.f.Close()
}

// Path returns the path that the disk was opened by.
func (d *Disk) Path() string { return d.path }

// IsFile reports whether the disk is a disk image file.
func (d *Disk) IsFile() bool { return !d.block }

// Size returns the size of the disk in bytes.
func (d *Disk) Size() int64 { return d.size }

// SectorSize returns the sector size of the partition table in bytes.
func (d *Disk) SectorSize() int64 { return d.table.sector }

// Partitions returns the partitions in the order of the table.
func (d *Disk) Partitions() []Partition { return slices.Clone(d.table.parts) }

// claimWhole opens the disk's node exclusively until Close.
func (d *Disk) claimWhole() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.claim != nil {
		return nil
	}
	f, err := os.OpenFile(d.path, unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) {
		return busyBlock(d.path, d.path)
	}
	if err != nil {
		return fmt.Errorf("opening %s: %w", d.path, err)
	}
	d.claim = f
	return nil
}

// OpenPath opens size bytes at off of a regular file or block device. Size 0 reaches to its end; a negative off counts from its
// end.
func OpenPath(path string, off, size int64, mode Mode) (*Device, error) {
	total, err := pathSize(path)
	if err != nil {
		return nil, err
	}
	if off < 0 {
		off += total
	}
	if size == 0 {
		size = total - off
	}
	name := path
	if off != 0 {
		name = fmt.Sprintf("%s at %#x", path, off)
	}
	return openDevice(name, path, off, size, mode)
}

func pathSize(path string) (int64, error) {
	f, err := os.OpenFile(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, fmt.Errorf("opening: %w", err)
	}
	defer f.Close()
	size, _, err := sizeOf(f)
	return size, err
}

// sizeOf returns the size of a regular file or block device in bytes, and which of the two it is.
func sizeOf(f *os.File) (size int64, block bool, err error) {
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() {
		return info.Size(), false, nil
	}
	var bytes uint64
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&bytes)))
	if errno != 0 {
		err = &os.PathError{Op: "ioctl BLKGETSIZE64", Path: f.Name(), Err: errno}
		return 0, false, fmt.Errorf("expected a block device or a regular file: %w", err)
	}
	if bytes > 1<<62 {
		return 0, false, errors.New("size exceeds 2^62 bytes")
	}
	return int64(bytes), true, nil
}
