package blockdev

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// File is one open descriptor of a device or a regular file. Every method is one system call: a write may be short, and an error
// appears on the descriptor that the kernel chooses. Offsets are those of the whole file. A [Device] has three; tests pass
// descriptors of a disk model.
type File interface {
	Pread(p []byte, off int64) (int, error)             // pread(2)
	Pwrite(p []byte, off int64) (int, error)            // pwrite(2)
	SyncRange(off, length int64, flags SyncFlags) error // sync_file_range(2)
	Datasync() error                                    // fdatasync(2)
	DropCache(off, length int64)                        // posix_fadvise(2), POSIX_FADV_DONTNEED
	ZeroOut(off, length int64) error                    // BLKZEROOUT, or a punched hole; wraps errors.ErrUnsupported
	Discard(off, length int64) error                    // BLKDISCARD, or a punched hole; wraps errors.ErrUnsupported
	Close() error
}

// kernelFile is a File on a real descriptor.
type kernelFile struct {
	*os.File
	block bool // a block device; else a regular file
}

// KernelFile returns the File of an open regular file, or of a block device.
func KernelFile(f *os.File, block bool) File { return &kernelFile{File: f, block: block} }

func (f *kernelFile) Pread(p []byte, off int64) (n int, err error) {
	err = ignoringEINTR(func() error { n, err = unix.Pread(int(f.Fd()), p, off); return err })
	return max(n, 0), os.NewSyscallError("pread", err)
}

func (f *kernelFile) Pwrite(p []byte, off int64) (n int, err error) {
	err = ignoringEINTR(func() error { n, err = unix.Pwrite(int(f.Fd()), p, off); return err })
	return max(n, 0), os.NewSyscallError("pwrite", err)
}

func (f *kernelFile) SyncRange(off, length int64, flags SyncFlags) error {
	return SyncRange(f.File, off, length, flags)
}

func (f *kernelFile) Datasync() error {
	return os.NewSyscallError("fdatasync", ignoringEINTR(func() error { return unix.Fdatasync(int(f.Fd())) }))
}

func (f *kernelFile) DropCache(off, length int64) {
	_ = unix.Fadvise(int(f.Fd()), off, length, unix.FADV_DONTNEED)
}

func (f *kernelFile) ZeroOut(off, length int64) error {
	if !f.block {
		return f.punch(off, length)
	}
	return f.rangeIoctl(unix.BLKZEROOUT, "BLKZEROOUT", off, length)
}

func (f *kernelFile) Discard(off, length int64) error {
	if !f.block {
		return f.punch(off, length)
	}
	return f.rangeIoctl(unix.BLKDISCARD, "BLKDISCARD", off, length)
}

func (f *kernelFile) punch(off, length int64) error {
	err := ignoringEINTR(func() error {
		return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, length)
	})
	return unsupported(os.NewSyscallError("fallocate", err))
}

// rangeIoctl calls an ioctl whose argument is the offset and length of a range (block/ioctl.c).
func (f *kernelFile) rangeIoctl(request uintptr, name string, off, length int64) error {
	span := [2]uint64{uint64(off), uint64(length)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(&span)))
	if errno == 0 {
		return nil
	}
	return unsupported(fmt.Errorf("ioctl %s of %d bytes at %d: %w", name, length, off, errno))
}

// unsupported adds errors.ErrUnsupported to the errors that kernels return for a request that they or the drive lack.
func unsupported(err error) error {
	for _, e := range []error{unix.EOPNOTSUPP, unix.ENOSYS, unix.ENOTTY, unix.EINVAL} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
		}
	}
	return err
}
