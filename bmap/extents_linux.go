package bmap

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mappedExtents queries the file system for the data of f: by FIEMAP, else by SEEK_DATA and SEEK_HOLE. The spans may overlap,
// touch, and reach past size. The error is errNoExtents if neither is supported, or the second is a stub.
func mappedExtents(ctx context.Context, f *os.File, size int64, unwrittenAsHole bool) ([]Span, error) {
	var spans []Span
	err := control(f, func(fd int) (err error) {
		spans, err = fiemap(ctx, func(r *fiemapRequest) error { return fiemapCall(fd, r) }, size, unwrittenAsHole)
		return err
	})
	if !errors.Is(err, errNoExtents) {
		return spans, err
	}
	err = keepOffset(f, func(fd int) (err error) {
		spans, err = seekExtents(ctx, fd, size)
		return err
	})
	if err == nil && len(spans) == 1 && spans[0] == (Span{0, size}) {
		return spans, control(f, func(fd int) error { return checkStub(fd, size) })
	}
	return spans, err
}

// checkStub distinguishes a file without holes from a file system whose SEEK_HOLE always returns the end of the file (ZFS with
// its default settings, fuse-overlayfs): there the file occupies less than its size.
func checkStub(fd int, size int64) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if st.Blocks < size/512 {
		return errNoExtents
	}
	return nil
}

// errNoExtents reports that the file system does not support a query.
var errNoExtents = errors.New("no extent information")

// seekExtents walks the file with SEEK_DATA and SEEK_HOLE (lseek(2)). It sees dirty pages, and unwritten extents as holes.
func seekExtents(ctx context.Context, fd int, size int64) ([]Span, error) {
	var spans []Span
	for offset := int64(0); offset < size; {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		from, err := unix.Seek(fd, offset, unix.SEEK_DATA)
		if err == unix.ENXIO { // a hole up to the end
			break
		}
		if err == unix.EINVAL || err == unix.EOPNOTSUPP {
			return nil, errNoExtents
		}
		if err != nil {
			return nil, fmt.Errorf("looking for data from byte %d: %w", offset, os.NewSyscallError("lseek", err))
		}
		to, err := unix.Seek(fd, from, unix.SEEK_HOLE)
		if err == unix.EINVAL || err == unix.EOPNOTSUPP {
			return nil, errNoExtents
		}
		if err != nil {
			return nil, fmt.Errorf("looking for a hole from byte %d: %w", from, os.NewSyscallError("lseek", err))
		}
		if from < offset || to <= from {
			return nil, fmt.Errorf("file system reports data from byte %d to %d, searched from %d", from, to, offset)
		}
		spans = append(spans, Span{from, to - from})
		offset = to
	}
	return spans, nil
}
