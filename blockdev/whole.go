package blockdev

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// IsWholeDisk reports whether path is a block device that is no partition: a disk, a loop device, a mapping.
func IsWholeDisk(path string) (bool, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return false, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return false, nil
	}
	_, err := os.Stat(fmt.Sprintf("/sys/dev/block/%d:%d/partition", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))))
	return os.IsNotExist(err), nil
}

// SectorSize is the logical sector of a block device in bytes (BLKSSZGET), which its partition table counts in.
func SectorSize(path string) (int64, error) {
	f, err := os.OpenFile(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, fmt.Errorf("opening: %w", err)
	}
	defer f.Close()
	n, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET)
	if err != nil {
		return 0, &os.PathError{Op: "ioctl BLKSSZGET", Path: path, Err: err}
	}
	return int64(n), nil
}
