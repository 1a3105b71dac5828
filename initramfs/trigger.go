package initramfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Trigger is the key or button that selects the recovery while it is held at boot. The zero value is no trigger.
type Trigger struct {
	Key  uint16 // key code (include/uapi/linux/input-event-codes.h); 0 is no key
	GPIO GPIO
}

// GPIO is a line of a GPIO chip.
type GPIO struct {
	Chip string // name or label, as printed by gpiodetect; "" is no line
	Line uint32
	Low  bool   // active low
	Pull string // bias: up, down, or "" to leave it unchanged
}

// triggerPatience is how long to wait for keyboards and GPIO chips after loading modules.
const triggerPatience = 2 * time.Second

// held polls the trigger for triggerPatience and describes what is active; "" if nothing is.
func (r *runner) held(ctx context.Context) (string, error) {
	t := r.Trigger
	if t == (Trigger{}) {
		return "", nil
	}
	for deadline := time.Now().Add(triggerPatience); ; {
		if t.GPIO.Chip != "" {
			active, err := t.GPIO.active()
			if err != nil && time.Now().After(deadline) {
				return "", err
			}
			if active {
				return fmt.Sprintf("line %d of %s is active", t.GPIO.Line, t.GPIO.Chip), nil
			}
		}
		if t.Key != 0 && keyDown(t.Key) {
			return fmt.Sprintf("key %s is held", KeyName(t.Key)), nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return "", context.Cause(ctx)
		}
		if err := r.wait(look / 2); err != nil {
			return "", err
		}
	}
}

// keyDown reports whether any input device has the key down (EVIOCGKEY, include/uapi/linux/input.h).
func keyDown(code uint16) bool {
	nodes, _ := filepath.Glob("/dev/input/event*")
	for _, node := range nodes {
		f, err := os.OpenFile(node, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		var keys [0x300 / 8]byte
		errno := ioctl(int(f.Fd()), 2<<30|uintptr(len(keys))<<16|'E'<<8|0x18, unsafe.Pointer(&keys))
		f.Close()
		if errno == 0 && int(code) < 8*len(keys) && keys[code/8]&(1<<(code%8)) != 0 {
			return true
		}
	}
	return false
}

// Flags of a line (enum gpio_v2_line_flag, include/uapi/linux/gpio.h).
const (
	lineActiveLow = 1 << 1
	lineInput     = 1 << 2
	linePullUp    = 1 << 8
	linePullDown  = 1 << 9
)

// active reads the line.
func (g GPIO) active() (bool, error) {
	chip, err := g.open()
	if err != nil {
		return false, err
	}
	defer chip.Close()
	q := unix.GPIOV2LineRequest{Num_lines: 1, Config: unix.GPIOV2LineConfig{Flags: lineInput}}
	q.Offsets[0] = g.Line
	copy(q.Consumer[:], "updater")
	if g.Low {
		q.Config.Flags |= lineActiveLow
	}
	switch g.Pull {
	case "up":
		q.Config.Flags |= linePullUp
	case "down":
		q.Config.Flags |= linePullDown
	}
	fail := func(errno unix.Errno) (bool, error) {
		return false, fmt.Errorf("reading line %d of GPIO chip %s: %w", g.Line, g.Chip, errno)
	}
	if errno := ioctl(int(chip.Fd()), unix.GPIO_V2_GET_LINE_IOCTL, unsafe.Pointer(&q)); errno != 0 {
		return fail(errno)
	}
	defer func() { _ = unix.Close(int(q.Fd)) }() // input only, nothing to lose
	values := unix.GPIOV2LineValues{Mask: 1}
	if errno := ioctl(int(q.Fd), unix.GPIO_V2_LINE_GET_VALUES_IOCTL, unsafe.Pointer(&values)); errno != 0 {
		return fail(errno)
	}
	return values.Bits&1 != 0, nil
}

// open finds the chip by name or label.
func (g GPIO) open() (*os.File, error) {
	nodes, _ := filepath.Glob("/dev/gpiochip*")
	var there []string
	for _, node := range nodes {
		f, err := os.OpenFile(node, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		var info unix.GPIOChipInfo
		if errno := ioctl(int(f.Fd()), unix.GPIO_GET_CHIPINFO_IOCTL, unsafe.Pointer(&info)); errno == 0 {
			name, label := unix.ByteSliceToString(info.Name[:]), unix.ByteSliceToString(info.Label[:])
			if name == g.Chip || label == g.Chip {
				return f, nil
			}
			there = append(there, name+" ("+label+")")
		}
		f.Close()
	}
	if len(there) == 0 {
		return nil, errors.New("no GPIO chip found")
	}
	return nil, fmt.Errorf("GPIO chip %s not found, available: %s", g.Chip, strings.Join(there, ", "))
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
	runtime.KeepAlive(arg)
	return errno
}

// keyNames are common keys, named as in include/uapi/linux/input-event-codes.h.
var keyNames = map[string]uint16{
	"esc": 1, "enter": 28, "space": 57, "f1": 59, "f2": 60, "f3": 61, "f4": 62, "f5": 63, "f6": 64, "f7": 65, "f8": 66, "f9": 67,
	"f10": 68, "f11": 87, "f12": 88, "home": 102, "delete": 111, "volumedown": 114, "volumeup": 115, "power": 116, "restart": 408,
}

// KeyCode returns the code of a key by name or number; 0 if it is neither.
func KeyCode(name string) uint16 {
	if code, ok := keyNames[strings.ToLower(name)]; ok {
		return code
	}
	n, err := strconv.ParseUint(name, 10, 16)
	if err != nil || n >= 0x300 {
		return 0
	}
	return uint16(n)
}

// KeyName returns the name of a key, or its number if it has none here.
func KeyName(code uint16) string {
	for name, c := range keyNames {
		if c == code {
			return name
		}
	}
	return strconv.Itoa(int(code))
}
