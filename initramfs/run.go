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

// Options configure [Run].
type Options struct {
	Cmdline  string                          // kernel command line
	Mode     string                          // mode unless the command line sets one; "" is [ModeInstall]
	URLs     []string                        // sources of a recovery, in order of precedence
	Trigger  Trigger                         // key or GPIO line that selects [ModeRecover] while active
	NoDevice error                           // why the Device cannot be used, such as an invalid configuration; nil if it can
	Network  func(ctx context.Context) error // brings the network up unless it is up
	Console  *Console                        // shows the recovery
	About    string                          // product, serial and version, for its header
	Log      func(format string, a ...any)   // prints one line; the format has no newline
	Hint     func(err error) string          // next step after an error, "" means none; may be nil
	Work     *Work                           // receives progress
	// OpenRemote opens the place of remote choices of a recovery; nil means none. It is called until it succeeds, then the machine restarts.
	OpenRemote func(ctx context.Context) (*Remote, error)
}

// Device is the program that installs updates. Its arguments are unverified. Run calls one method at a time.
type Device interface {
	// FindDisk returns the node of the device's own disk, and an error if several disks match.
	FindDisk() (node string, err error)
	// Install installs an update from a medium. It returns nil once the new slot boots next.
	Install(ctx context.Context, u Update) error
	// InstallURL installs the update at an http or https URL.
	InstallURL(ctx context.Context, url string) error
	// Status prints the slots and returns them.
	Status(ctx context.Context) (Status, error)
	// Slots returns the names of the slots.
	Slots() []string
	// BootOnce selects a slot for the next boot only. It returns an error if that is not safe.
	BootOnce(ctx context.Context, slot string) error
	// Reactivate makes slots bootable again whose contents match their signed maps, if no slot is bootable. It returns the
	// slot that boots next, or "" and an error with the mismatch of each slot.
	Reactivate(ctx context.Context) (slot string, err error)
	// Kexec loads the kernel of the slot that boots next and spends one of its tries. It returns false unless configured.
	Kexec(ctx context.Context) (ready bool, err error)
}

// Status is the state of the slots for a person.
type Status struct {
	Bootable bool     // the boot loader has a slot to boot
	Slots    []string // a line for each
}

// Requester is a [Device] whose running system can ask the recovery to install something: it has one slot.
type Requester interface {
	// Requested returns the address of the release still to be installed, "" for none.
	Requested() (url string)
}

// Timeouts. A slow USB stick appears after some seconds.
const (
	diskTimeout   = 30 * time.Second
	updateTimeout = 30 * time.Second
	failedPause   = 10 * time.Second
)

// runner is the state of one run.
type runner struct {
	Options
	Params
	device Device

	installed bool    // an update was installed
	medium    *Block  // that it came from; nil means none
	looked    bool    // reactivate was tried
	remote    *Remote // nil until it was opened
	loader    *Loader
	events    *Uevents
}

// log prints one line, which is progress.
func (r *runner) log(format string, a ...any) {
	r.Work.Progress()
	r.Log(format, a...)
}

// wait waits up to d for the events of devices and handles them; that is progress.
func (r *runner) wait(d time.Duration) error {
	r.Work.Progress()
	return r.events.Wait(r.loader, d)
}

// failed logs an error, and below it what to do next.
func (r *runner) failed(err error) {
	r.log("error: %v", err)
	words := []string{err.Error()}
	if r.Hint != nil {
		if hint := r.Hint(err); hint != "" {
			r.log("hint: %s", hint)
			words = append(words, "-> "+hint)
		}
	}
	r.Console.change(func(s *screen) { s.failed(words...) })
}

// Run mounts the kernel file systems, loads modules, carries out the mode and restarts the machine. After a failure it waits
// ten seconds before the restart, so that the error can be read on the console; the boot state is unchanged then. A recovery
// does not fail but tries again. Run returns only if restarting fails.
func Run(ctx context.Context, o Options, d Device) error {
	r := &runner{Options: o, Params: ParseCmdline(o.Cmdline), device: d}
	o.Log("initramfs is up after %s%s", uptime(), sinceHandOver())
	for _, u := range r.Unknown {
		o.Log("kernel command line: ignoring unknown parameter %s", u)
	}
	err := r.run(ctx)
	r.Work.Begin("restarting", StepBound)
	if err != nil {
		r.failed(err)
		o.Log("the boot state is unchanged; %s in %d s", ending(r.OnDone), int(failedPause.Seconds()))
		time.Sleep(failedPause)
	} else {
		o.Log("done after %s, peak memory %s", uptime(), peakMemory())
	}
	if err == nil && r.installed && r.OnDone == "reboot" {
		ready, bad := d.Kexec(ctx)
		if ready {
			bad = StartKexec()
		}
		if bad != nil {
			o.Log("starting the next slot by kexec: %v; restarting instead", bad)
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
		r.log("reading the recovery trigger: %v", err)
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
	// A restart does not help a device without a bootable slot; a recovery does not help a device without its disk.
	if _, missing := r.device.FindDisk(); missing == nil {
		if status, bad := r.device.Status(ctx); bad != nil || !status.Bootable {
			r.failed(err)
			return r.recover(ctx)
		}
	}
	return err
}

// bringUp mounts the kernel file systems, loads the modules of present devices and listens for new ones.
func (r *runner) bringUp() (err error) {
	if err := Mounts(); err != nil {
		return err
	}
	go seedRandom()
	if r.loader, err = NewLoader("/", r.Log); err != nil {
		return err
	}
	// Listen before Coldplug, so that no device is missed.
	if r.events, err = ListenUevents(); err != nil {
		return err
	}
	r.loader.Coldplug()
	return nil
}

// install installs the update at the URL of the command line, or the first one on removable media.
func (r *runner) install(ctx context.Context) error {
	disk, err := r.waitDisk(ctx, diskTimeout)
	if err != nil {
		return err
	}
	r.log("disk %s found after %s", disk, uptime())
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
			return fmt.Errorf("no medium with a directory updater/ or the label %s found within %s; other block devices: %s", UpdateLabel, updateTimeout, names(disk))
		}
		if err := r.wait(look); err != nil {
			return err
		}
	}
}

// tryMedia tries the media in order until an update is installed. If none is installed, it returns the errors of the media
// that hold an update, nil if there are none.
func (r *runner) tryMedia(ctx context.Context, disk string) (found bool, err error) {
	var errs []error
	bad := r.media(disk, func(m medium) bool {
		err := r.installFrom(ctx, m)
		if found = err == nil; !found {
			errs = append(errs, err)
		}
		return found || ctx.Err() != nil
	})
	if found {
		return true, nil
	}
	return false, errors.Join(append(errs, bad)...)
}

// installFrom installs the update on a medium.
func (r *runner) installFrom(ctx context.Context, m medium) error {
	if m.err != nil {
		return m.err
	}
	r.log("update on %s: %s", m.Node, m.update.Image)
	if err := r.device.Install(ctx, *m.update); err != nil {
		return fmt.Errorf("installing the update on %s: %w", m.Node, err)
	}
	r.installed, r.medium = true, &m.Block
	return nil
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

// during loads the modules of new devices while do runs, whose progress alone counts.
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

// end ends the run of the machine as OnDone asks. It returns only on error.
func end(how string) error {
	if how == "poweroff" {
		return restart(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
	if how == "halt" {
		return restart(unix.LINUX_REBOOT_CMD_HALT)
	}
	return Reboot()
}

// Reboot flushes the file systems and restarts the machine at once, without stopping services. It returns only on error.
func Reboot() error { return restart(unix.LINUX_REBOOT_CMD_RESTART) }

// Bounds of the steps of a restart. A device that does not answer stops sync(2) forever, and the kernel while it shuts devices down.
const (
	syncPatience    = 60 * time.Second
	restartPatience = 60 * time.Second
)

// restart flushes the file systems and restarts. A kernel that does not get there is restarted at once, by its SysRq
// (Documentation/admin-guide/sysrq.rst): the data that this program promised was flushed and read back before.
func restart(cmd uint32) error {
	within(syncPatience, unix.Sync)
	failed := make(chan error, 1)
	go func() { failed <- unix.Reboot(int(cmd)) }() // wraps on 32-bit machines, which the kernel expects
	select {
	case err := <-failed:
		if err != nil {
			return fmt.Errorf("restarting: %w", os.NewSyscallError("reboot", err))
		}
	case <-time.After(restartPatience):
		key := "b"
		if cmd == unix.LINUX_REBOOT_CMD_POWER_OFF {
			key = "o"
		}
		if err := os.WriteFile("/proc/sysrq-trigger", []byte(key), 0); err != nil {
			return fmt.Errorf("restarting: no answer from the kernel for %s: %w", restartPatience, err)
		}
	}
	select {} // the kernel is restarting
}

// Mounts mounts /proc, /sys, /dev and /run unless they are mounted.
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

// seedRandom makes one blocking getrandom(2) call, which starts the seeding by the kernel itself (jitter entropy). Libraries
// that only poll would wait forever on boards without a hardware random number generator.
func seedRandom() {
	var b [16]byte
	_, _ = unix.Getrandom(b[:], 0)
}

// peakMemory returns the peak resident memory of this process (VmHWM in proc_pid_status(5)).
func peakMemory() string {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "unknown"
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
