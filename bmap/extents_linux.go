package bmap

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mappedExtents asks the file system which bytes of f hold data: by FIEMAP, else by SEEK_DATA and SEEK_HOLE, else it
// takes all. The spans may overlap, touch, and reach past size.
func mappedExtents(ctx context.Context, f *os.File, size int64, unwrittenAsHole bool) ([]Span, error) {
	var spans []Span
	err := control(f, func(fd int) (err error) {
		spans, err = fiemap(ctx, fd, size, unwrittenAsHole)
		return err
	})
	if !errors.Is(err, errNoExtents) {
		return spans, err
	}
	err = keepOffset(f, func(fd int) (err error) {
		spans, err = seekExtents(ctx, fd, size)
		return err
	})
	if !errors.Is(err, errNoExtents) {
		return spans, err
	}
	return []Span{{0, size}}, nil
}

// errNoExtents says that the file system does not offer this way of asking.
var errNoExtents = errors.New("no extent information")

// seekExtents walks the file with SEEK_DATA and SEEK_HOLE (lseek(2)). It sees dirty pages. A file system with a stub
// answers with one extent over the whole file.
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
