package blockdev

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// IsWholeDisk reports whether path is a block device other than a partition: a disk, a loop device, a mapping.
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

// SectorSize returns the logical sector size of a block device in bytes (BLKSSZGET), the unit of its partition table.
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

// BootDisk returns the node of the whole disk that holds the running root file system. It is an error if the root is not a plain
// partition; the error wraps [ErrNoBootDisk] if the root is on no disk, as in an initramfs.
func BootDisk() (string, error) {
	sys, err := rootPartition()
	if err != nil {
		return "", fmt.Errorf("finding the disk that booted: %w; set path under [disk]", err)
	}
	return nodeOf(filepath.Dir(sys)), nil
}

// RootPartition returns the node of the partition that holds the running root file system. Errors are those of [BootDisk].
func RootPartition() (string, error) {
	sys, err := rootPartition()
	if err != nil {
		return "", fmt.Errorf("finding the root partition: %w", err)
	}
	return nodeOf(sys), nil
}

// rootPartition returns the directory of the root's partition in sysfs.
func rootPartition() (string, error) {
	var st unix.Stat_t
	if err := unix.Stat("/", &st); err != nil {
		return "", err
	}
	sys, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev))))
	if err != nil {
		return "", ErrNoBootDisk
	}
	if _, err := os.Stat(sys + "/partition"); err != nil {
		return "", fmt.Errorf("%s is not a partition", filepath.Base(sys))
	}
	return sys, nil
}

func nodeOf(sys string) string { return "/dev/" + strings.ReplaceAll(filepath.Base(sys), "!", "/") }
