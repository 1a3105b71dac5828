package device

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"updater/blockdev"
)

// slotKinds are the file systems that a slot may hold, as mount(2) names them, with options under which nothing is written: a journal is not
// replayed.
var slotKinds = [][2]string{
	{"ext4", "noload"}, {"squashfs", ""}, {"erofs", ""}, {"vfat", ""}, {"f2fs", "norecovery"}, {"xfs", "norecovery"}, {"btrfs", "norecovery"},
}

// MountSlot mounts the partitions of a slot read-only, each at the folder of its role below dir, until unmount is called. A partition without a
// file system has no folder; file roles have none either. The slot may be held for writing: the mounts go through read-only loop devices, so
// that nothing is written, whatever the file systems ask for. It needs root and loop devices.
func (d *Device) MountSlot(slot string, roles []string) (dir string, unmount func() error, err error) {
	dir = filepath.Join(bootMounts, "slot-"+slot)
	var mounted []string
	unmount = func() error {
		var errs []error
		for _, at := range mounted {
			errs = append(errs, unix.Unmount(at, 0), os.Remove(at))
		}
		return errors.Join(append(errs, os.Remove(dir))...)
	}
	for _, role := range roles {
		if _, isFile := d.Config.FileRole(slot, role); isFile {
			continue
		}
		p, err := d.Partition(slot, role)
		at := filepath.Join(dir, role)
		if err == nil {
			err = os.MkdirAll(at, 0o700)
		}
		found := false
		if err == nil {
			found, err = d.mountLoop(p, at)
		}
		if err != nil {
			return "", nil, errors.Join(err, unmount())
		}
		if found {
			mounted = append(mounted, at)
		} else if err := os.Remove(at); err != nil {
			return "", nil, errors.Join(err, unmount())
		}
	}
	return dir, unmount, nil
}

// mountLoop mounts a partition read-only through a loop device, which ends with the mount. found is false without a known file system.
func (d *Device) mountLoop(p blockdev.Partition, at string) (found bool, err error) {
	backing, err := os.Open(p.Path)
	if err != nil {
		return false, err
	}
	defer backing.Close()
	info := unix.LoopInfo64{Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR}
	if p.Path == d.disk.Path() { // it has no node of its own
		info.Offset, info.Sizelimit = uint64(p.Offset), uint64(p.Size)
	}
	loop, err := freeLoop(backing, info)
	if err != nil {
		return false, fmt.Errorf("mounting %s through a loop device: %w", p, err)
	}
	defer loop.Close()
	const flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, kind := range slotKinds {
		if unix.Mount(loop.Name(), at, kind[0], flags, kind[1]) == nil {
			return true, nil
		}
	}
	return false, nil
}

// freeLoop attaches a file or block device to a free loop device (loop(4)).
func freeLoop(backing *os.File, info unix.LoopInfo64) (*os.File, error) {
	control, err := os.Open("/dev/loop-control")
	if err != nil {
		return nil, err
	}
	defer control.Close()
	config := unix.LoopConfig{Fd: uint32(backing.Fd()), Info: info}
	for range 16 { // another program may take the free one first
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, os.NewSyscallError("ioctl(LOOP_CTL_GET_FREE)", err)
		}
		loop, err := os.Open(fmt.Sprintf("/dev/loop%d", n))
		if err != nil {
			return nil, err
		}
		if err = unix.IoctlLoopConfigure(int(loop.Fd()), &config); err == nil {
			return loop, nil
		}
		loop.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, os.NewSyscallError("ioctl(LOOP_CONFIGURE)", err)
		}
	}
	return nil, errors.New("every loop device is busy")
}
