package initramfs

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// watchdogNode is the first hardware watchdog; the kernel makes it when a driver registers.
const watchdogNode = "/dev/watchdog"

// The times of the watchdog: what the hardware is asked for, and how often it is fed.
const (
	watchdogTimeout = 60 * time.Second
	watchdogFeed    = 5 * time.Second
)

// Watchdog is an armed hardware watchdog (Documentation/watchdog/watchdog-api.rst). There is no way to disarm
// it here: a program that dies lets it run out, and a kernel that restarts in good order stops it by itself.
type Watchdog struct {
	f       *os.File
	Timeout time.Duration // that the hardware took
	Name    string        // of the driver; "" when it does not tell
}

// OpenWatchdog arms the watchdog. fs.ErrNotExist and ENODEV mean that there is none (yet).
func OpenWatchdog() (*Watchdog, error) {
	f, err := os.OpenFile(watchdogNode, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	w := &Watchdog{f: f}
	// The kernel reads and writes an int of seconds; a driver may take the nearest it can, or refuse.
	seconds := int32(watchdogTimeout.Seconds())
	if err := w.ioctl(unix.WDIOC_SETTIMEOUT, unsafe.Pointer(&seconds)); err != nil {
		err = w.ioctl(unix.WDIOC_GETTIMEOUT, unsafe.Pointer(&seconds))
		if err != nil || seconds <= 0 {
			seconds = int32(watchdogTimeout.Seconds())
		}
	}
	w.Timeout = time.Duration(seconds) * time.Second
	if name, err := os.ReadFile("/sys/class/watchdog/watchdog0/identity"); err == nil {
		w.Name = strings.TrimSpace(string(name))
	}
	return w, w.Feed()
}

// Feed restarts the countdown.
func (w *Watchdog) Feed() error {
	if err := w.ioctl(unix.WDIOC_KEEPALIVE, nil); err != nil {
		return fmt.Errorf("feeding the watchdog: %w", err)
	}
	return nil
}

func (w *Watchdog) ioctl(request uint, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, w.f.Fd(), uintptr(request), uintptr(arg))
	if errno != 0 {
		return os.NewSyscallError("ioctl", errno)
	}
	return nil
}

// KeepWatchdog arms the hardware as soon as it has a driver, and feeds it as long as alive says so. It returns only when the
// hardware cannot be armed, which it says on log.
func KeepWatchdog(alive func() bool, log func(format string, a ...any)) {
	var w *Watchdog
	for ; ; time.Sleep(time.Second) {
		var err error
		if w, err = OpenWatchdog(); err == nil {
			break
		}
		if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENXIO) {
			log("the hardware watchdog cannot be armed: %v", err)
			return
		}
	}
	log("hardware watchdog %s is armed after %s: %d s", w.Name, uptime(), int(w.Timeout.Seconds()))
	for every := min(watchdogFeed, w.Timeout/3); ; time.Sleep(every) {
		if !alive() {
			continue // the hardware does the rest
		}
		if err := w.Feed(); err != nil {
			log("%v", err)
		}
	}
}
