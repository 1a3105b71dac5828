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

// watchdogNode is the first hardware watchdog.
const watchdogNode = "/dev/watchdog"

// Requested timeout and feeding interval.
const (
	watchdogTimeout = 60 * time.Second
	watchdogFeed    = 5 * time.Second
)

// Watchdog is an armed hardware watchdog (kernel, Documentation/watchdog/watchdog-api.rst). It cannot be disarmed: it expires
// unless it is fed, and the kernel stops it during an orderly restart.
type Watchdog struct {
	f       *os.File
	Timeout time.Duration // as set by the driver
	Name    string        // identity of the driver; "" if unknown
}

// OpenWatchdog arms the watchdog. fs.ErrNotExist, ENODEV and ENXIO mean that no driver has registered yet.
func OpenWatchdog() (*Watchdog, error) {
	f, err := os.OpenFile(watchdogNode, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	w := &Watchdog{f: f}
	// A driver may round the timeout or refuse it.
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

// KeepWatchdog waits for a watchdog driver, arms the watchdog and feeds it while alive returns true. It returns only if arming
// fails, which it logs.
func KeepWatchdog(alive func() bool, log func(format string, a ...any)) {
	var w *Watchdog
	for ; ; time.Sleep(time.Second) {
		var err error
		if w, err = OpenWatchdog(); err == nil {
			break
		}
		if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENXIO) {
			log("arming the hardware watchdog: %v", err)
			return
		}
	}
	log("hardware watchdog %s armed after %s, timeout %d s", w.Name, uptime(), int(w.Timeout.Seconds()))
	for every := min(watchdogFeed, w.Timeout/3); ; time.Sleep(every) {
		if !alive() {
			continue // let it expire
		}
		if err := w.Feed(); err != nil {
			log("%v", err)
		}
	}
}
