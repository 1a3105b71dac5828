package main

import (
	"context"
	"fmt"
	"os"

	"updater/blockdev"
	"updater/initramfs"
)

// workerName is what the supervisor of the initramfs calls the program that does the work.
const workerName = "uinit-worker"

// supervise is the program that u-root's init starts: it starts the worker and sees to it that the machine
// never stands still.
func supervise(env Env) int {
	_ = initramfs.Mounts() // the worker says what is wrong
	log := initramfs.OpenKernelLog(env.Stdout)
	cmdline, _ := os.ReadFile("/proc/cmdline")
	s := initramfs.Supervisor{
		Program: "/proc/self/exe", Args: []string{workerName}, OnDone: initramfs.ParseCmdline(string(cmdline)).OnDone,
		Log: func(format string, a ...any) { fmt.Fprintf(log, "updater: "+format+"\n", a...) },
	}
	if err := s.Run(); err != nil {
		s.Log("error: %v; switch the device off and on again", err)
	}
	select {} // init would have nothing left to run, and take the kernel down with it
}

// uinit does the work of the initramfs. The kernel command line is untrusted: it chooses the mode and the
// source, and nothing of what is trusted.
func uinit(ctx context.Context, env Env) int {
	go initramfs.Beat()
	console := initramfs.OpenConsole(env.Stdout)
	log := initramfs.OpenKernelLog(console)
	env.Stdout, env.Stderr = log, log
	config, err := LoadConfig(DefaultConfig)
	if err != nil {
		// There is no way to fix a configuration inside an initramfs: the restart gives the slots a chance.
		config = new(Config)
	}
	cmdline, bad := os.ReadFile("/proc/cmdline")
	if bad != nil {
		env.warn("reading the kernel command line: %v", bad)
	}
	say := func(format string, a ...any) { fmt.Fprintf(env.Stdout, "updater: "+format+"\n", a...) }
	env.hint = new(timeHint)
	network := newOnline(initramfs.ParseCmdline(string(cmdline)), config.Recovery, env.hint, say).Up
	o := initramfs.Options{
		Cmdline: string(cmdline), Mode: config.Recovery.Mode, URLs: config.Recovery.URLs, Trigger: config.Recovery.trigger(), NoDevice: err, Console: console, Log: say, Network: network,
	}
	return env.fail(initramfs.Run(ctx, o, &recoverable{config: config, env: env, network: network}))
}

// recoverable is the device as the initramfs sees it.
type recoverable struct {
	config  *Config
	env     Env
	network func(context.Context) error
}

// FindDisk implements initramfs.Device. A second disk with the same partitions is refused, not chosen from.
func (d *recoverable) FindDisk() (string, error) {
	return blockdev.FindDisk(d.config.Disk.Path, d.config.partitions())
}

// Install implements initramfs.Device.
func (d *recoverable) Install(ctx context.Context, u initramfs.Update) error {
	return d.install(ctx, trustOptions{config: DefaultConfig, bmap: u.Bmap, sig: u.Signature}, u.Image)
}

// InstallURL implements initramfs.Device. The URL may name {serial} and {mac}.
func (d *recoverable) InstallURL(ctx context.Context, url string) error {
	return d.install(ctx, trustOptions{config: DefaultConfig}, deviceURL(ctx, url))
}

func (d *recoverable) install(ctx context.Context, trust trustOptions, image string) error {
	if _, err := d.FindDisk(); err != nil { // a copy of it may have been plugged in since
		return err
	}
	err := runInstall(ctx, installOptions{trustOptions: trust, inside: true}, image, d.env)
	if _, hint := classify(err); err != nil && hint != "" {
		err = fmt.Errorf("%w (hint: %s)", err, hint)
	}
	return err
}

// Provision implements initramfs.Provisioner. The plan is signed, wherever it comes from. Records that cannot be sent
// are sent again until they are: the spool does not outlive the initramfs.
func (d *recoverable) Provision(ctx context.Context, plan string) error {
	return runProvision(ctx, provisionOptions{plan: plan, config: DefaultConfig, plain: true, inside: true, network: d.network}, d.env)
}

// Status implements initramfs.Device.
func (d *recoverable) Status(ctx context.Context) (bool, error) {
	s, err := status(ctx, DefaultConfig, "")
	if err != nil {
		return false, err
	}
	return s.Primary != "", printStatus(d.env, s)
}

// Slots implements initramfs.Device.
func (d *recoverable) Slots() []string { return d.config.slotNames() }

// BootOnce implements initramfs.Device. A slot whose tries are spent may be tried once more; one that was
// marked bad may hold half of an image, and is not made bootable by a person's wish unless it is whole.
func (d *recoverable) BootOnce(ctx context.Context, slot string) error {
	dev, err := openWaiting(d.config, "")
	if err != nil {
		return err
	}
	defer dev.Close()
	st, err := dev.backend.State(ctx)
	if err != nil {
		return bootError("", "reading it", err)
	}
	for _, s := range st.Slots {
		if s.Name == slot && !s.Bootable && s.Priority == 0 {
			trust, err := d.config.policy(nil, dev.state().Time)
			if err == nil {
				err = dev.intact(ctx, slot, trust)
			}
			if err != nil {
				return bootError(slot, "booting it once", fmt.Errorf("it is marked bad, and not known to be whole, so install an update: %w", err))
			}
		}
	}
	said, err := dev.switchTo(ctx, slot, 1)
	if err == nil {
		fmt.Fprintln(d.env.Stdout, "updater:", said)
	}
	return err
}
