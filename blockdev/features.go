package blockdev

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Features are system calls on a device that a kernel or a sandbox may lack.
type Features struct {
	SyncRange bool // sync_file_range(2): the paced engine
	Direct    bool // O_DIRECT: the direct engine and read-back past the page cache
	ZeroOut   bool // BLKZEROOUT; always true for a file, which is punched or written
}

// Features probes the device. It writes nothing.
func (d *Device) Features() Features {
	f := Features{SyncRange: d.paced, Direct: d.canWriteDirect() == nil, ZeroOut: true}
	if k, ok := d.f.(*kernelFile); ok && k.block && d.sentinel == nil {
		// On a read-only descriptor the ioctl fails with EBADF before it reads its argument (block/ioctl.c,
		// blk_ioctl_zeroout); a kernel without it returns ENOTTY.
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, k.Fd(), unix.BLKZEROOUT, 0)
		f.ZeroOut = errno == unix.EBADF
	}
	return f
}

// Busy returns a [BusyError] if the partition is mounted, held or locked. It claims the device for a moment, so hold the disk's
// lock: an install that opens the device at that moment would find it busy.
func (p Partition) Busy() error {
	if p.window && !p.disk.block {
		f, err := os.Open(p.Path)
		if err != nil {
			return err
		}
		defer f.Close()
		if loop := loopOf(f); loop != "" {
			return &BusyError{Device: p.String(), By: "the file is attached to " + loop}
		}
		return nil
	}
	f, err := os.OpenFile(p.Path, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) {
		return busyBlock(p.String(), p.Path)
	}
	if err != nil {
		return err
	}
	return f.Close()
}
