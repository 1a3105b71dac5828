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
	Cmdline  string                          // kernel command line
	Mode     string                          // when the command line has none; "" is [ModeInstall]
	URLs     []string                        // of a recovery, in their order
	Trigger  Trigger                         // what a person holds down to get a recovery, whatever the mode is
	NoDevice error                           // why there is no usable Device, such as a wrong configuration; nil when there is one
	Network  func(ctx context.Context) error // brings it up, or checks that it is
	Console  *Console                        // where a recovery shows its menu
	Log      func(format string, a ...any)   // one line for people, without newline
	Hint     func(err error) string          // what to do next about an error, "" is nothing; may be nil
}

// Device is what a run asks of the program around it. None of what is handed to it was verified.
type Device interface {
	// FindDisk finds the device's own disk and returns its node. It refuses to choose between several.
	FindDisk() (node string, err error)
	// Install installs an update from a medium. It returns nil when the new slot boots next.
	Install(ctx context.Context, u Update) error
	// InstallURL does so from an http or https URL.
	InstallURL(ctx context.Context, url string) error
	// Status prints the slots, and reports whether the boot loader has one that it would boot.
	Status(ctx context.Context) (bootable bool, err error)
	// Slots are the names of the slots.
	Slots() []string
	// BootOnce makes a slot the next choice for one boot, when that is safe.
	BootOnce(ctx context.Context, slot string) error
	// Reactivate makes slots bootable again that hold exactly what was signed for them, when no slot is bootable, and
	// returns the one that boots next; "" is none, and then the error says why.
	Reactivate(ctx context.Context) (slot string, err error)
	// Kexec loads the kernel of the slot that boots next, when it is configured to, and spends its try.
	Kexec(ctx context.Context) (ready bool, err error)
}

// The times that a run allows. A slow USB stick takes some seconds to show up.
const (
	diskTimeout   = 30 * time.Second
	updateTimeout = 30 * time.Second
	failedPause   = 10 * time.Second
)

// runner is one run.
type runner struct {
	Options
	Params
	device Device

	installed bool // a slot is new
	looked    bool // whether the slots are whole was looked at
	loader    *Loader
	events    *Uevents
}

func (r *runner) log(format string, a ...any) { r.Log(format, a...) }

// failed logs an error, and below it what to do next.
func (r *runner) failed(err error) {
	r.log("error: %v", err)
	if r.Hint == nil {
		return
	}
	if hint := r.Hint(err); hint != "" {
		r.log("hint: %s", hint)
	}
}

// Run does the work of the initramfs: mounts, modules, the device's disk, and what the mode says; then the
// reboot that hands over to the boot loader's choice. After a failure it reboots too, a little later, so that
// a person can read why: the boot loader still has its old choice. A recovery never fails, it goes on. Run
// returns only when even rebooting fails.
func Run(ctx context.Context, o Options, d Device) error {
	r := &runner{Options: o, Params: ParseCmdline(o.Cmdline), device: d}
	o.Log("initramfs is up after %s%s", uptime(), sinceHandOver())
	for _, u := range r.Unknown {
		o.Log("kernel command line: %s is not understood and has no effect", u)
	}
	err := r.run(ctx)
	if err != nil {
		r.failed(err)
		o.Log("nothing was switched; the boot loader keeps its choice, %s in %d s", ending(r.OnDone), int(failedPause.Seconds()))
		time.Sleep(failedPause)
	} else {
		o.Log("done after %s, with at most %s of memory", uptime(), peakMemory())
	}
	if err == nil && r.installed && r.OnDone == "reboot" {
		ready, bad := d.Kexec(ctx)
		if ready {
			bad = StartKexec()
		}
		if bad != nil {
			o.Log("the next slot cannot be started directly, so the machine restarts: %v", bad)
		}
	}
	return end(r.OnDone)
}

func (r *runner) run(ctx context.Context) error {
	if err := r.bringUp(); err != nil {
		return err
	}
	defer r.events.Close()
	if r.NoDevice != nil {
		return r.NoDevice
	}
	mode := r.Params.Mode
	if mode == "" {
		mode = r.Options.Mode
	}
	switch held, err := r.held(ctx); {
	case err != nil:
		r.log("no key or line could be asked for: %v", err)
	case held != "":
		r.log("%s: recovery", held)
		mode = ModeRecover
	}
	switch mode {
	case ModeRecover:
		return r.recover(ctx)
	case ModeStatus:
		if _, err := r.waitDisk(ctx, diskTimeout); err != nil {
			return err
		}
		_, err := r.device.Status(ctx)
		return err
	case ModeProvision:
		return r.provision(ctx)
	}
	err := r.install(ctx)
	if err == nil || ctx.Err() != nil {
		return err
	}
	// Restarting would not help a device that has nothing to boot. Without its disk nothing would.
	if _, missing := r.device.FindDisk(); missing == nil {
		if bootable, bad := r.device.Status(ctx); bad != nil || !bootable {
			r.failed(err)
			return r.recover(ctx)
		}
	}
	return err
}

// bringUp makes the initramfs usable: mounts, modules of what is there, and the stream of what comes.
func (r *runner) bringUp() (err error) {
	if err := Mounts(); err != nil {
		return err
	}
	go seedRandom()
	if r.loader, err = NewLoader("/", r.Log); err != nil {
		return err
	}
	// Before the walk, so that nothing that comes up meanwhile is missed.
	if r.events, err = ListenUevents(); err != nil {
		return err
	}
	r.loader.Coldplug()
	return nil
}

// install installs the one update that the command line names, or that is on removable media.
func (r *runner) install(ctx context.Context) error {
	disk, err := r.waitDisk(ctx, diskTimeout)
	if err != nil {
		return err
	}
	r.log("disk %s is there after %s", disk, uptime())
	if r.URL != "" {
		return r.fromURL(ctx, r.URL)
	}
	for deadline := time.Now().Add(updateTimeout); ; {
		found, err := r.tryMedia(ctx, disk)
		if found || err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no medium with a folder updater/ or the label %s within %s; there are %s", UpdateLabel, updateTimeout, names())
		}
		if err := r.events.Wait(r.loader, look); err != nil {
			return err
		}
	}
}

// tryMedia installs from the first medium that has an update. found is false when none has; a medium that
// was refused is an error, and the next one is tried before.
func (r *runner) tryMedia(ctx context.Context, disk string) (found bool, err error) {
	var errs []error
	bad := r.media(disk, func(m medium) bool {
		if m.err == nil {
			r.log("update on %s: %s", m.Node, m.update.Image)
			m.err = r.device.Install(ctx, *m.update)
		}
		if m.err != nil {
			errs = append(errs, fmt.Errorf("the update on %s was refused: %w", m.Node, m.err))
		}
		found = m.err == nil
		r.installed = r.installed || found
		return found || ctx.Err() != nil
	})
	if found {
		return true, nil
	}
	return false, errors.Join(append(errs, bad)...)
}

// fromURL brings the network up and installs from a URL.
func (r *runner) fromURL(ctx context.Context, url string) error {
	err := r.during(func() error { return r.Network(ctx) })
	if err == nil {
		err = r.device.InstallURL(ctx, url)
		r.installed = r.installed || err == nil
	}
	return err
}

// during loads the drivers of what comes up while do is under way.
func (r *runner) during(do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	for {
		select {
		case err := <-done:
			return err
		default:
			if err := r.events.Wait(r.loader, look); err != nil {
				return err
			}
		}
	}
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

// peakMemory is the most that this process had in memory (proc_pid_status(5), VmHWM).
func peakMemory() string {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "an unknown amount"
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

func uptime() string {
	b, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return "an unknown time"
	}
	seconds, _, _ := strings.Cut(string(b), " ")
	return seconds + " s"
}
