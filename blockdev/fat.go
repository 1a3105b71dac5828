package blockdev

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/filesystem"
	"github.com/diskfs/go-diskfs/filesystem/fat12"
	"github.com/diskfs/go-diskfs/filesystem/fat16"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
)

// maxFATFile bounds what [Partition.OpenFATFile] takes: boot state is a few KiB.
const maxFATFile = 1 << 20

// OpenFATFile opens the blocks of a file inside the partition's FAT file system as a fixed-size device,
// without mounting it: what is written lands in the file's own sectors, the file system's tables are
// never touched. The file must lie in one piece. Do not use it on a mounted file system, whose cache
// would not see the change; Exclusive refuses one.
func (p Partition) OpenFATFile(path string, mode Mode) (*Device, error) {
	part, err := p.Open(mode)
	if err != nil {
		return nil, err
	}
	off, size, err := locateFAT(part, path)
	if cerr := part.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("locating %s in the FAT file system of %s: %w", path, p, err)
	}
	return p.open(fmt.Sprintf("%s:%s", p, path), off, size, mode)
}

// locateFAT returns where the file lies in the partition. The library's parser is guarded against what a
// damaged file system may hold.
func locateFAT(part *Device, path string) (off, size int64, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("malformed file system: %v", r)
		}
	}()
	opened, err := openFAT(part)
	if err != nil {
		return 0, 0, err
	}
	file, err := opened.OpenFile(path, os.O_RDONLY)
	if err != nil {
		return 0, 0, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return 0, 0, err
	}
	size = info.Size()
	if size <= 0 || size > maxFATFile {
		return 0, 0, fmt.Errorf("is %d bytes, expected 1 to %d", size, maxFATFile)
	}
	located, ok := file.(interface {
		GetDiskRanges() ([]fat12.DiskRange, error)
	})
	if !ok {
		return 0, 0, fmt.Errorf("internal error: %T has no disk ranges", file)
	}
	ranges, err := located.GetDiskRanges()
	if err != nil {
		return 0, 0, err
	}
	if len(ranges) == 0 {
		return 0, 0, errors.New("occupies no clusters")
	}
	off, end := int64(ranges[0].Offset), int64(ranges[0].Offset+ranges[0].Length)
	for _, r := range ranges[1:] {
		if int64(r.Offset) != end && end-off < size {
			return 0, 0, errors.New("is fragmented; copy it to a new file so that it lies in one piece")
		}
		end = int64(r.Offset + r.Length)
	}
	if off < 0 || off > part.Size()-size {
		return 0, 0, fmt.Errorf("its clusters lie outside the partition")
	}
	return off, size, nil
}

func openFAT(part *Device) (filesystem.FileSystem, error) {
	b := fatBackend{section: io.NewSectionReader(part, 0, part.Size())}
	var errs []error
	fs32, err := fat32.Read(b, part.Size(), 0, 512)
	if err == nil {
		return fs32, nil
	}
	errs = append(errs, err)
	fs16, err := fat16.Read(b, part.Size(), 0, 512)
	if err == nil {
		return fs16, nil
	}
	errs = append(errs, err)
	fs12, err := fat12.Read(b, part.Size(), 0, 512)
	if err == nil {
		return fs12, nil
	}
	return nil, fmt.Errorf("no FAT file system: %w", errors.Join(append(errs, err)...))
}

// fatBackend lets the FAT library read a device and nothing more.
type fatBackend struct{ section *io.SectionReader }

func (b fatBackend) Stat() (fs.FileInfo, error)                { return nil, backend.ErrNotSuitable }
func (b fatBackend) Read(p []byte) (int, error)                { return b.section.Read(p) }
func (b fatBackend) ReadAt(p []byte, off int64) (int, error)   { return b.section.ReadAt(p, off) }
func (b fatBackend) Seek(off int64, whence int) (int64, error) { return b.section.Seek(off, whence) }
func (b fatBackend) Close() error                              { return nil }
func (b fatBackend) Sys() (*os.File, error)                    { return nil, backend.ErrNotSuitable }
func (b fatBackend) Writable() (backend.WritableFile, error) {
	return nil, backend.ErrIncorrectOpenMode
}
func (b fatBackend) Path() string { return "" }
