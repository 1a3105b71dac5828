package blockdev

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Features are the system calls on a device that the kernel, or what the program runs in, may lack.
type Features struct {
	SyncRange bool // sync_file_range(2): the paced engine
	Direct    bool // O_DIRECT: the direct engine, and a read-back past the page cache
	ZeroOut   bool // BLKZEROOUT of a block device; true of a file, which is punched or written
}

// Features probes the device and changes nothing.
func (d *Device) Features() Features {
	f := Features{SyncRange: hasSyncRange(d.f), Direct: d.canWriteDirect() == nil, ZeroOut: true}
	if k, ok := d.f.(*kernelFile); ok && k.block && d.sentinel == nil {
		// On a descriptor that cannot write the ioctl is refused with EBADF before it reads its argument
		// (block/ioctl.c, blk_ioctl_zeroout); a kernel without it says ENOTTY.
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, k.Fd(), unix.BLKZEROOUT, 0)
		f.ZeroOut = errno == unix.EBADF
	}
	return f
}

// Busy returns a [BusyError] while the partition is mounted, held or locked. It claims the device for a moment, for
// reading: call it under the disk's lock, so that no install is refused because of it.
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
