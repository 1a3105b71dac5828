package bmap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Defaults of CreateOptions.
const (
	DefaultMaxRange  = 512 << 10 // bytes; the measurement is in docs/design.md
	DefaultBlockSize = 4096      // bytes
)

// ErrChanged is wrapped by the error of Create if the image changed while it was read.
var ErrChanged = errors.New("image changed while it was read")

// CreateOptions are the options of Create. The zero value is a good default.
type CreateOptions struct {
	// MaxRange is the largest range in bytes, a multiple of BlockSize. Ranges are split at multiples of it from the start of
	// the image. 0 means DefaultMaxRange; a negative value does not split.
	MaxRange int64
	// BlockSize is the block of the map in bytes, a power of two; 0 means DefaultBlockSize. It does not follow the file
	// system of the image, so that an image has the same map everywhere.
	BlockSize int64
	// ChecksumType names the hash; "" means sha256.
	ChecksumType string
	// Update, unless nil, becomes the update element. ImageChecksum is taken as given, and not compared with the image.
	Update *Update
	// UnwrittenAsHole leaves preallocated but never written extents out of the map. They read as zero and are mapped by
	// default, because the program that allocated them may rely on the zeros. It has no effect where only SEEK_HOLE works,
	// which always reports them as holes.
	UnwrittenAsHole bool
	// ScanZeros ignores the file system and maps the blocks with a nonzero byte. It reads the mapped blocks a second time.
	// Block devices, and file systems that do not report holes, are always scanned.
	ScanZeros bool
	// Progress, unless nil, is called from several goroutines, one at a time, with bytes.
	Progress func(done, total int64)
}

// Create makes the map of an image, a regular file or a block device. It syncs the file, queries the file system for data (or
// scans, see ScanZeros), hashes the data on every CPU, and reads the rest to check that it is zero: a nonzero byte
// is a [NotZeroError] with its offset. It only reads. f must not be used meanwhile: Create moves the file offset and restores
// it.
//
// The image must not change meanwhile. If its size, mtime, ctime or inode changed, the error wraps ErrChanged; changes of a
// block device are not detected. The same image and options give the same map if the file system reports the same holes.
func Create(ctx context.Context, f *os.File, o CreateOptions) (*Map, error) {
	m, err := create(ctx, f, o)
	if err != nil {
		return nil, fmt.Errorf("making the bmap of %s: %w", f.Name(), err)
	}
	return m, nil
}

func create(ctx context.Context, f *os.File, o CreateOptions) (*Map, error) {
	m, err := o.newMap()
	if err != nil {
		return nil, err
	}
	// FIEMAP_FLAG_SYNC writes data back too, but metadata and the device cache only follow here.
	if err := f.Sync(); err != nil && !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EINVAL) {
		return nil, err
	}
	before, err := identify(f)
	if err != nil {
		return nil, err
	}
	m.imageSize = before.size
	if m.imageSize < 1 || m.imageSize > MaxImageSize {
		return nil, fmt.Errorf("image has %d bytes, expected 1 to %d", m.imageSize, int64(MaxImageSize))
	}
	err = m.mapImage(ctx, f, o)
	// A changed image explains other errors.
	if after, statErr := identify(f); statErr != nil {
		return nil, errors.Join(err, statErr)
	} else if after != before {
		return nil, fmt.Errorf("%w: %s, then %s", ErrChanged, before, after)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// mapImage finds the mapped blocks, splits them into ranges and reads the image.
func (m *Map) mapImage(ctx context.Context, f *os.File, o CreateOptions) error {
	progress := &meter{total: m.imageSize, report: o.Progress}
	extents, err := []Span(nil), errNoExtents
	if !o.ScanZeros {
		extents, err = mappedExtents(ctx, f, m.imageSize, o.UnwrittenAsHole)
	}
	scan := errors.Is(err, errNoExtents)
	if scan {
		progress.total *= 2
		extents, err = scanZeros(ctx, f, m.imageSize, m.blockSize, progress)
	}
	if err != nil {
		return err
	}
	if err := m.cut(toBlocks(extents, m.imageSize, m.blockSize), o.maxRange()); err != nil {
		return err
	}
	if scan { // the gaps were read as zero just now
		progress.add(m.imageSize - m.MappedBytes())
		return m.readImage(ctx, f, nil, progress)
	}
	return m.readImage(ctx, f, slices.Collect(m.Gaps()), progress)
}

func (o CreateOptions) maxRange() int64 {
	if o.MaxRange == 0 {
		return max(DefaultMaxRange, o.BlockSize)
	}
	return o.MaxRange
}

// Check returns the error that Create would return for the options, before an image is opened.
func (o CreateOptions) Check() error {
	_, err := o.newMap()
	return err
}

// newMap checks the options and returns a map without an image.
func (o CreateOptions) newMap() (*Map, error) {
	m := &Map{version: "2.0", blockSize: o.BlockSize}
	if m.blockSize == 0 {
		m.blockSize = DefaultBlockSize
	}
	if m.blockSize < 1 || m.blockSize > MaxBlockSize || m.blockSize&(m.blockSize-1) != 0 {
		return nil, fmt.Errorf("block size is %d, expected a power of two up to %d", m.blockSize, MaxBlockSize)
	}
	if limit := o.maxRange(); limit > 0 && limit%m.blockSize != 0 {
		return nil, fmt.Errorf("largest range is %d bytes, expected a multiple of the block size %d", limit, m.blockSize)
	}
	name := o.ChecksumType
	if name == "" {
		name = "sha256"
	}
	var ok bool
	if m.algorithm, ok = algorithmByName(name); !ok {
		return nil, fmt.Errorf("checksum type is %q, expected %s", name, hashNames)
	}
	if o.Update != nil {
		var err error
		if m.update, err = cleanUpdate(*o.Update, m.algorithm); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// cut splits runs of blocks into ranges of at most limit bytes that do not cross a multiple of it.
func (m *Map) cut(runs []blockRange, limit int64) error {
	maxRanges := min(MaxRanges, (MaxFileSize-8192)/m.algorithm.encodedRangeSize(m.BlocksCount()))
	for _, r := range runs {
		m.mappedBlocks += r.last - r.first + 1
		for first := r.first; first <= r.last; {
			last := r.last
			if limit > 0 {
				step := limit / m.blockSize
				last = min(last, first-first%step+step-1)
			}
			if len(m.blocks) == maxRanges {
				return fmt.Errorf("map would need more than %d ranges: choose a larger maximum than %d bytes for one range", maxRanges, limit)
			}
			m.blocks = append(m.blocks, blockRange{first, last})
			first = last + 1
		}
	}
	return nil
}

// identity holds the attributes that must not change while an image is read.
type identity struct {
	device, inode uint64
	size          int64
	mtime, ctime  unix.Timespec
}

func (i identity) String() string {
	return fmt.Sprintf("inode %d:%d, %d bytes, mtime %d.%09d, ctime %d.%09d",
		i.device, i.inode, i.size, i.mtime.Sec, i.mtime.Nsec, i.ctime.Sec, i.ctime.Nsec)
}

func identify(f *os.File) (identity, error) {
	var st unix.Stat_t
	if err := control(f, func(fd int) error { return os.NewSyscallError("fstat", unix.Fstat(fd, &st)) }); err != nil {
		return identity{}, err
	}
	id := identity{uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return id, nil
	case unix.S_IFBLK:
		var err error
		id.size, err = deviceSize(f)
		return id, err
	}
	return identity{}, errors.New("neither a regular file nor a block device")
}

func deviceSize(f *os.File) (size int64, err error) {
	err = keepOffset(f, func(fd int) error {
		size, err = unix.Seek(fd, 0, io.SeekEnd)
		return os.NewSyscallError("lseek", err)
	})
	return size, err
}

// keepOffset runs a function that moves the file offset of f, and restores the offset.
func keepOffset(f *os.File, do func(fd int) error) error {
	return control(f, func(fd int) error {
		offset, err := unix.Seek(fd, 0, io.SeekCurrent)
		if err != nil {
			return os.NewSyscallError("lseek", err)
		}
		err = do(fd)
		_, back := unix.Seek(fd, offset, io.SeekStart)
		return errors.Join(err, os.NewSyscallError("lseek", back))
	})
}

// control runs do on the descriptor of f.
func control(f *os.File, do func(fd int) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var doErr error
	if err := c.Control(func(fd uintptr) { doErr = do(int(fd)) }); err != nil {
		return err
	}
	return doErr
}
