package tryboot

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Mailbox accesses the flag in the firmware through its property interface (Raspberry Pi kernel,
// drivers/char/broadcom/vcio.c; the tags are in include/soc/bcm2835/raspberrypi-firmware.h).
type Mailbox struct{ Path string }

// DefaultMailbox is the device of the property interface.
const DefaultMailbox = "/dev/vcio"

const (
	tagGetRebootFlags = 0x00030064
	tagSetRebootFlags = 0x00038064
	rebootFlagTryboot = 1
	ioctlProperty     = 0xc0046400 | (unsafe.Sizeof(uintptr(0))-4)<<16 // _IOWR(100, 0, char *)
	requestOK         = 0x80000000
)

// Get implements [Flag].
func (m Mailbox) Get() (bool, error) {
	v, err := m.property(tagGetRebootFlags, 0)
	return v&rebootFlagTryboot != 0, err
}

// Set implements [Flag].
func (m Mailbox) Set(on bool) error {
	v := uint32(0)
	if on {
		v = rebootFlagTryboot
	}
	_, err := m.property(tagSetRebootFlags, v)
	return err
}

// property sends one tag with one value and returns the value in the response.
func (m Mailbox) property(tag, value uint32) (uint32, error) {
	f, err := os.OpenFile(m.Path, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	message := [7]uint32{7 * 4, 0, tag, 4, 0, value, 0}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), ioctlProperty, uintptr(unsafe.Pointer(&message)))
	if errno != 0 {
		return 0, &os.PathError{Op: "ioctl", Path: m.Path, Err: errno}
	}
	if message[1] != requestOK {
		return 0, &os.PathError{Op: "property request", Path: m.Path, Err: errors.New("not supported by the firmware")}
	}
	return message[5], nil
}

// Running returns the slot whose partition the firmware booted, according to chosen/bootloader/partition in the device
// tree at root (/proc/device-tree); "" if it is missing or not a slot's.
func Running(root string, slots []string, partition map[string]int) (string, error) {
	data, err := os.ReadFile(filepath.Join(root, "chosen/bootloader/partition"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil || len(data) != 4 {
		return "", err
	}
	for _, s := range slots {
		if uint32(partition[s]) == binary.BigEndian.Uint32(data) {
			return s, nil
		}
	}
	return "", nil
}
