package blockdev

import (
	"errors"
	"fmt"

	"updater/blockdev/fat"
)

// maxFATFile is the largest file that [Partition.OpenFATFile] accepts: boot state is a few KiB.
const maxFATFile = 1 << 20

// OpenFATFile opens the blocks of a file inside the partition's FAT file system as a fixed-size device, without mounting it:
// writes go to the file's own sectors, the file system's tables are never touched. The file must lie in one piece and have at
// most 1 MiB. Do not use it on a mounted file system, whose cache would not see the change; Exclusive refuses one. A missing
// file is fs.ErrNotExist.
func (p Partition) OpenFATFile(path string, mode Mode) (*Device, error) {
	part, err := p.Open(mode)
	if err != nil {
		return nil, err
	}
	off, size, err := locateFAT(part, path)
	if err := errors.Join(err, part.Close()); err != nil {
		return nil, fmt.Errorf("locating %s in the FAT file system of %s: %w", path, p, err)
	}
	return p.open(fmt.Sprintf("%s:%s", p, path), off, size, mode)
}

func locateFAT(part *Device, path string) (off, size int64, err error) {
	f, err := fat.Open(part, part.Size())
	if err != nil {
		return 0, 0, err
	}
	return f.Extent(path, maxFATFile)
}
