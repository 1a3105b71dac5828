package initramfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Options are what a run needs.
type Options struct {
	Cmdline string                        // kernel command line
	Disk    string                        // node of the device's own disk; "" is an error here
	Log     func(format string, a ...any) // one line for people, without newline
}

// The times that a run allows. A slow USB stick takes some seconds to show up.
const (
	diskTimeout   = 30 * time.Second
	updateTimeout = 30 * time.Second
	failedPause   = 10 * time.Second
)

// Run does the work of the initramfs: mounts, modules, the device's disk, an update on removable media,
// install, and then the reboot that hands over to the boot loader's choice. After a failure it reboots too,
// a little later, so that a person can read why: the boot loader still has its old choice. It returns only
// when even rebooting fails.
func Run(ctx context.Context, o Options, install func(ctx context.Context, u Update) error) error {
	p := ParseCmdline(o.Cmdline)
	o.Log("initramfs is up after %s", uptime())
	for _, u := range p.Unknown {
		o.Log("kernel command line: %s is not understood and has no effect", u)
	}
	err := run(ctx, o, install)
	if err != nil {
		o.Log("error: %v", err)
		o.Log("nothing was switched; the boot loader keeps its choice, restarting in %d s", int(failedPause.Seconds()))
		time.Sleep(failedPause)
	} else {
		o.Log("done after %s", uptime())
	}
	return end(p.OnDone)
}

func run(ctx context.Context, o Options, install func(ctx context.Context, u Update) error) (err error) {
	if o.Disk == "" {
		return errors.New("the configuration names no disk; set path under [disk]")
	}
	if err := Mounts(); err != nil {
		return err
	}
	go seedRandom()
	loader, err := NewLoader("/", o.Log)
	if err != nil {
		return err
	}
	events, err := ListenUevents() // before the walk, so that nothing that comes up meanwhile is missed
	if err != nil {
		return err
	}
	defer events.Close()
	loader.Coldplug()
	if err := WaitDisk(ctx, loader, events, o.Disk, diskTimeout); err != nil {
		return err
	}
	o.Log("disk %s is there after %s", o.Disk, uptime())
	u, err := FindUpdate(ctx, loader, events, o.Disk, updateTimeout)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.Close()) }()
	o.Log("update on %s: %s", u.Device, u.Image)
	return install(ctx, *u)
}

// end leaves the initramfs for good.
func end(how string) error {
	if how == "poweroff" {
		return restart(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
	if how == "halt" {
		return restart(unix.LINUX_REBOOT_CMD_HALT)
	}
	return Reboot()
}

// Reboot writes out what is dirty and restarts the machine. It returns only an error. On a running system
// it does not stop services; use it where none runs, or where the system may be cut off.
func Reboot() error { return restart(unix.LINUX_REBOOT_CMD_RESTART) }

func restart(cmd uint32) error {
	unix.Sync()
	if err := unix.Reboot(int(cmd)); err != nil { // an int of 32 bits wraps, as the kernel wants it
		return fmt.Errorf("restarting: %w", os.NewSyscallError("reboot", err))
	}
	select {} // the kernel is on its way down
}

// Mounts mounts what u-root's init may not have: proc, sys, dev and run. What is mounted already stays.
func Mounts() error {
	for _, m := range []struct{ fs, dir string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/run"}} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		err := unix.Mount(m.fs, m.dir, m.fs, unix.MS_NOSUID, "")
		if err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mounting %s on %s: %w", m.fs, m.dir, err)
		}
	}
	return nil
}

// seedRandom asks once for random bytes in a way that starts the kernel's own seeding; libraries that only
// poll would wait for ever on a board without a hardware source. Nothing waits for it.
func seedRandom() {
	var b [16]byte
	_, _ = unix.Getrandom(b[:], 0)
}

func uptime() string {
	b, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return "an unknown time"
	}
	seconds, _, _ := strings.Cut(string(b), " ")
	return seconds + " s"
}
