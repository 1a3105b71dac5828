package main

import (
	"context"
	"os"

	"updater/device"
	"updater/device/config"
	"updater/initramfs"
	"updater/internal/broadcast"
	"updater/internal/printable"
	"updater/provision/station"
	"updater/recovery"
	"updater/recovery/web"
)

// workerName is the name of the worker, which the supervisor of the initramfs starts.
const workerName = "uinit-worker"

// supervise is the program that u-root's init starts: it starts the worker, and restarts the machine when the worker ends or hangs.
func supervise(env Env) int {
	_ = initramfs.Mounts() // the worker reports what is wrong
	log := initramfs.OpenKernelLog(env.Stdout)
	cmdline, _ := os.ReadFile("/proc/cmdline")
	s := initramfs.Supervisor{
		Program: "/proc/self/exe", Args: []string{workerName}, OnDone: initramfs.ParseCmdline(string(cmdline)).OnDone,
		Log: func(format string, a ...any) { printable.Fprintf(log, "updater: "+format+"\n", a...) },
	}
	if err := s.Run(); err != nil {
		s.Log("error: %v; switch the device off and on again", err)
	}
	select {} // init would have nothing left to run, and take the kernel down with it
}

// uinit does the work of the initramfs. The configuration is read once, here.
func uinit(ctx context.Context, env Env) int {
	console := initramfs.OpenConsole(env.Stdout)
	log := initramfs.OpenKernelLog(console)
	say := func(format string, a ...any) { printable.Fprintf(log, "updater: "+format+"\n", a...) }
	work := new(initramfs.Work)
	work.Begin("starting", initramfs.StepBound)
	go work.Beat(say)
	env.Stdout, env.Stderr = log, log
	c, err := env.config(config.DefaultPath)
	if err != nil {
		// A configuration cannot be fixed inside an initramfs: the restart gives the slots a chance.
		c = new(config.Config)
	}
	cmdline, bad := os.ReadFile("/proc/cmdline")
	if bad != nil {
		env.warn("reading the kernel command line: %v", bad)
	}
	hint := new(recovery.TimeHint)
	env.clock = hint.Later
	network := recovery.NewNetwork(initramfs.ParseCmdline(string(cmdline)), c.Recovery, hint, say).Up
	events := new(broadcast.Events)
	env.events = events
	dev := &recovery.Device{
		Config: c, Inputs: env.inputs(env.warn), Say: say, Work: work,
		Events:     func() recovery.Events { return newReport(env, false) },
		ShowStatus: func(s *device.Status) error { return printStatus(env, s) },
		Line: func(ctx context.Context, plan string) error {
			o := station.Options{Plan: plan, Config: c, Inside: true, Network: network}
			return runProvision(ctx, provisionOptions{Options: o, plain: true}, env)
		},
	}
	o := initramfs.Options{
		Cmdline: string(cmdline), Mode: c.Recovery.Mode, URLs: c.Recovery.URLs, Trigger: recovery.Trigger(c.Recovery), NoDevice: err,
		Console: console, About: about(c), Log: say, Network: network, Hint: func(err error) string { _, hint := classify(err); return hint },
		Work: work,
	}
	if c.Recovery.Web {
		o.OpenRemote = func(ctx context.Context) (*initramfs.Remote, error) {
			return web.Open(ctx, web.Options{Events: events, Hint: o.Hint, Device: dev, Log: say})
		}
	}
	return env.fail(initramfs.Run(ctx, o, dev))
}

// about is the device and this program, for the header of the recovery.
func about(c *config.Config) string {
	words := c.Product
	if words == "" {
		words = "a device without a product name"
	}
	if serial, err := device.MachineSerial("/", ""); err == nil {
		words += "   serial " + serial
	}
	return printable.Line(words + "   updater " + buildVersion())
}
