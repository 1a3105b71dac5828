package blockdev

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// TableBytes is how much of the beginning of a disk image [ReadTable] looks at.
const TableBytes = 64 << 10

// ReadTable finds a partition by the primary partition table in head, the first bytes of a disk image of size
// bytes, which need not be a file. spec is "PARTLABEL=rootfs" or "PARTUUID=1b2c...". The partition lies inside the
// image; it cannot be opened. name stands for the image in errors.
func ReadTable(name string, head []byte, size int64, spec string) (p Partition, err error) {
	fd, err := unix.MemfdCreate("disk image", unix.MFD_CLOEXEC)
	if err != nil {
		return p, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return p, fmt.Errorf("a disk image of %d bytes: %w", size, err)
	}
	if _, err := f.WriteAt(head, 0); err != nil {
		return p, err
	}
	d := &Disk{path: name, f: f, size: size}
	if err := d.readTable(); err != nil {
		return p, fmt.Errorf("reading the partition table of %s: %w", name, err)
	}
	return d.Find(spec)
}
