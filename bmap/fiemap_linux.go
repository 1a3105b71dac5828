package bmap

import (
	"context"
	"fmt"
	"math"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of include/uapi/linux/fiemap.h; the ioctl number is that of every architecture with the generic encoding.
const (
	fiemapIoctl     = 0xC020660B
	fiemapSync      = 1
	fiemapUnwritten = 0x800
)

// fiemapExtents is how many extents one call may return.
const fiemapExtents = 1024

// fiemapRequest is struct fiemap with its array.
type fiemapRequest struct {
	start, length        uint64
	flags, mapped, count uint32
	_                    uint32
	extents              [fiemapExtents]fiemapExtent
}

type fiemapExtent struct {
	logical, physical, length uint64
	_                         [2]uint64
	flags                     uint32
	_                         [3]uint32
}

// fiemap lists the extents of the file (Documentation/filesystems/fiemap.rst in the kernel). Each query
// has FIEMAP_FLAG_SYNC: without it, dirty pages over a preallocated extent are reported as unwritten. The flag for the last
// extent is not trusted, since some file systems set it on the last one of the window: queries go on until one is empty. All
// flags but UNWRITTEN mean data somewhere inside the extent.
func fiemap(ctx context.Context, call func(*fiemapRequest) error, size int64, unwrittenAsHole bool) ([]Span, error) {
	var spans []Span
	req := new(fiemapRequest)
	for start := int64(0); start < size; {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		req.start, req.length = uint64(start), uint64(size-start)
		req.flags, req.mapped, req.count = fiemapSync, 0, fiemapExtents
		if err := call(req); err != nil {
			return nil, fmt.Errorf("asking for extents from byte %d: %w", start, err)
		}
		if req.mapped == 0 {
			break
		}
		asked := start
		for _, e := range req.extents[:min(req.mapped, fiemapExtents)] {
			if e.length == 0 || e.length > math.MaxInt64 || e.logical > math.MaxInt64-e.length {
				return nil, fmt.Errorf("file system reports an extent of %d bytes at byte %d", e.length, e.logical)
			}
			start = max(start, int64(e.logical+e.length))
			if e.flags&fiemapUnwritten == 0 || !unwrittenAsHole {
				spans = append(spans, Span{int64(e.logical), int64(e.length)})
			}
		}
		if start == asked {
			return nil, fmt.Errorf("file system reports no extent past byte %d, but some before", asked)
		}
	}
	return spans, nil
}

func fiemapCall(fd int, req *fiemapRequest) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), fiemapIoctl, uintptr(unsafe.Pointer(req)))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		case unix.EOPNOTSUPP, unix.ENOTTY, unix.EBADR, unix.ENOSYS:
			return errNoExtents
		default:
			return os.NewSyscallError("ioctl FIEMAP", errno)
		}
	}
}
