package device

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"updater/blockdev"
	"updater/device/config"
)

// bootMounts is the folder for mounts of file systems with boot state that are not mounted yet.
const bootMounts = "/run/updater"

// mountFor mounts a partition below [bootMounts] until the session ends.
func (d *Device) mountFor(p blockdev.Partition, kind, name string, mode blockdev.Mode) (string, error) {
	dir, unmount, err := mountAt(p, kind, name, mode)
	if err == nil {
		d.closers = append(d.closers, unmount)
	}
	return dir, err
}

// mountAt mounts a partition at a name below [bootMounts]. For reading, the journal of ext4 is not replayed: that would write, and boot
// loaders do not replay it either, so the files are as they see them.
func mountAt(p blockdev.Partition, kind, name string, mode blockdev.Mode) (dir string, unmount func() error, err error) {
	dir = filepath.Join(bootMounts, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, err
	}
	flags, data := uintptr(unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC), ""
	if kind == "ext4" {
		data = "errors=remount-ro" // overrides the superblock, which may ask for a panic
	}
	if mode == blockdev.ReadOnly {
		flags |= unix.MS_RDONLY
		if kind == "ext4" {
			data += ",noload"
		}
	}
	if err := unix.Mount(p.Path, dir, kind, flags, data); err != nil {
		return "", nil, fmt.Errorf("mounting %s as %s: %w", p, kind, os.NewSyscallError("mount", err))
	}
	return dir, func() error { return unix.Unmount(dir, 0) }, nil
}

// isExt reports whether a partition holds ext2, 3 or 4, all of which the kernel's ext4 mounts, by the magic of the superblock (kernel,
// fs/ext4/ext4.h).
func isExt(p blockdev.Partition) (bool, error) {
	part, err := p.Open(blockdev.ReadOnly)
	if err != nil {
		return false, err
	}
	defer part.Close()
	var magic [2]byte
	if part.Size() < 2048 {
		return false, nil
	}
	_, err = part.ReadAt(magic[:], 1024+56)
	return binary.LittleEndian.Uint16(magic[:]) == 0xef53, err
}

// unmounted opens a file of a partition that is not mounted: on FAT in its own sectors, on ext4 through a mount, since only the kernel
// knows where a file lies while the journal is not replayed. path is its name in the mount.
func (d *Device) unmounted(p blockdev.Partition, file string, mode blockdev.Mode) (_ *blockdev.Device, path string, err error) {
	area, err := d.keep(p.OpenFATFile("/"+file, mode))
	if err == nil {
		return area, "", nil
	}
	ext, xerr := isExt(p)
	switch {
	case xerr != nil || !ext:
		return nil, "", errors.Join(err, xerr)
	case p.Path == d.disk.Path(): // it has no node to mount
		return nil, "", config.Requestf("boot.env: /%s is on ext4 in %s, a part of a disk image file, where only files on FAT can be changed; "+
			"put it on FAT, or attach the image with losetup -P and name that disk", file, p)
	}
	dir, err := d.mountFor(p, "ext4", "env", mode)
	if err != nil {
		return nil, "", err
	}
	if dir, err = filepath.EvalSymlinks(dir); err == nil {
		path, err = filepath.EvalSymlinks(filepath.Join(dir, file))
	}
	if err != nil {
		return nil, "", fmt.Errorf("/%s in %s: %w", file, p, err)
	}
	if !strings.HasPrefix(path, dir+"/") {
		return nil, "", fmt.Errorf("/%s in %s is a symbolic link that leads out of it", file, p)
	}
	return d.mounted(path, mode)
}

// mounted opens a file of a mounted file system.
func (d *Device) mounted(path string, mode blockdev.Mode) (*blockdev.Device, string, error) {
	d.folders = append(d.folders, filepath.Dir(path))
	area, err := d.keep(blockdev.OpenPath(path, 0, 0, mode))
	return area, path, err
}
