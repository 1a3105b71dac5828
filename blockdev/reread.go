package blockdev

import (
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rereadInterval is the time between two attempts, while udev looks at the partitions.
const rereadInterval = 10 * time.Millisecond

// RereadTable makes the kernel read the partition table of a whole disk again (BLKRRPART; block/ioctl.c, blkdev_reread_part). It
// waits up to patience for other users of the partitions, such as udev; then a partition in use is a [BusyError]. nodes is
// false if the disk has no partition nodes: a file, or a loop device without a partition scan. The disk must not be open
// exclusively.
func RereadTable(path string, patience time.Duration) (nodes bool, err error) {
	f, err := os.OpenFile(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("rereading the partition table: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Mode().IsRegular() {
		return false, err
	}
	deadline := time.Now().Add(patience)
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKRRPART, 0)
		switch {
		case errno == 0:
			return true, nil
		case errno == unix.EINVAL:
			return false, nil
		case errno == unix.EBUSY && time.Now().After(deadline):
			return true, busyBlock(path, path)
		case errno != unix.EBUSY && !errors.Is(errno, unix.EINTR):
			return true, fmt.Errorf("rereading the partition table of %s: %w", path, os.NewSyscallError("ioctl BLKRRPART", errno))
		}
		time.Sleep(rereadInterval)
	}
}

// AddPartition registers one partition of a disk with the kernel (BLKPG_ADD_PARTITION; block/ioctl.c), for a kernel that was built
// without a parser for the table. off and length are bytes, multiples of 512. The node exists when it returns.
func AddPartition(path string, number int, off, length int64) error {
	f, err := os.OpenFile(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("adding partition %d: %w", number, err)
	}
	defer f.Close()
	// struct blkpg_partition (include/uapi/linux/blkpg.h)
	part := struct {
		start, length int64
		pno           int32
		names         [128]byte
	}{start: off, length: length, pno: int32(number)}
	arg := unix.BlkpgIoctlArg{Op: unix.BLKPG_ADD_PARTITION, Datalen: int32(unsafe.Sizeof(part)), Data: (*byte)(unsafe.Pointer(&part))}
	const blkpg = 0x1269 // BLKPG, _IO(0x12, 105)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), blkpg, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		return fmt.Errorf("adding partition %d of %s: %w", number, path, os.NewSyscallError("ioctl BLKPG", errno))
	}
	return nil
}
