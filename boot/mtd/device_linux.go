package mtd

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests of the MTD character device (kernel, include/uapi/mtd/mtd-abi.h).
const (
	memGetInfo     = 0x80204d01
	memErase       = 0x40084d02
	memUnlock      = 0x40084d06
	memGetBadBlock = 0x40084d0b
)

// info is struct mtd_info_user.
type info struct {
	Type                                 uint8
	_                                    [3]byte
	Flags, Size, Erase, WriteSize, Spare uint32
	_                                    uint64
}

// region is struct erase_info_user.
type region struct{ Start, Length uint32 }

// Device is an MTD character device, /dev/mtdN.
type Device struct {
	f    *os.File
	info info
}

var _ Flash = (*Device)(nil)

// Open opens an MTD character device.
func Open(path string, write bool) (*Device, error) {
	flags := os.O_RDONLY
	if write {
		flags = os.O_RDWR
	}
	f, err := os.OpenFile(path, flags|unix.O_SYNC, 0)
	if err != nil {
		return nil, err
	}
	d := &Device{f: f}
	if err := d.ioctl("MEMGETINFO", memGetInfo, unsafe.Pointer(&d.info)); err != nil {
		f.Close()
		return nil, err
	}
	if d.info.Erase == 0 {
		f.Close()
		return nil, fmt.Errorf("%s has no erase blocks", path)
	}
	return d, nil
}

// Close closes the device.
func (d *Device) Close() error { return d.f.Close() }

func (d *Device) String() string { return d.f.Name() }

// Size implements [Flash].
func (d *Device) Size() int64 { return int64(d.info.Size) }

// EraseSize implements [Flash].
func (d *Device) EraseSize() int64 { return int64(d.info.Erase) }

// ReadAt implements [Flash].
func (d *Device) ReadAt(p []byte, off int64) (int, error) { return d.f.ReadAt(p, off) }

// WriteAt implements [Flash].
func (d *Device) WriteAt(p []byte, off int64) (int, error) { return d.f.WriteAt(p, off) }

// Erase implements [Flash]. Errors of the unlock request are ignored: many devices have no locks.
func (d *Device) Erase(off int64) error {
	r := region{Start: uint32(off), Length: d.info.Erase}
	_ = d.ioctl("MEMUNLOCK", memUnlock, unsafe.Pointer(&r))
	return d.ioctl("MEMERASE", memErase, unsafe.Pointer(&r))
}

// Bad implements [Flash]. NOR flash has no bad blocks and does not support the request.
func (d *Device) Bad(off int64) (bool, error) {
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, d.f.Fd(), memGetBadBlock, uintptr(unsafe.Pointer(&off)))
	if errno == unix.EOPNOTSUPP || errno == unix.ENOTTY {
		return false, nil
	}
	if errno != 0 {
		return false, &os.PathError{Op: "ioctl MEMGETBADBLOCK", Path: d.f.Name(), Err: errno}
	}
	return r > 0, nil
}

func (d *Device) ioctl(name string, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.f.Fd(), request, uintptr(arg)); errno != 0 {
		return &os.PathError{Op: "ioctl " + name, Path: d.f.Name(), Err: errno}
	}
	return nil
}
