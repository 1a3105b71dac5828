package main

import (
	"context"
	"fmt"
	"os"

	"updater/initramfs"
)

// uinit is the program that u-root's init starts: it brings the initramfs up, installs what it finds, and
// reboots. The kernel command line is untrusted: it chooses the mode and the source, and nothing of what
// is trusted.
func uinit(ctx context.Context, env Env) int {
	config, err := LoadConfig(DefaultConfig)
	if err != nil {
		// There is no way to fix a configuration inside an initramfs: the reboot gives the slots a chance.
		env.fail(err)
		config = new(Config)
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		env.warn("reading the kernel command line: %v", err)
	}
	o := initramfs.Options{
		Cmdline: string(cmdline),
		Disk:    config.Disk.Path,
		Log:     func(format string, a ...any) { fmt.Fprintf(env.Stdout, "updater: "+format+"\n", a...) },
	}
	err = initramfs.Run(ctx, o, func(ctx context.Context, u initramfs.Update) error {
		err := runInstall(ctx, installOptions{trustOptions: trustOptions{config: DefaultConfig, bmap: u.Bmap, sig: u.Signature}}, u.Image, env)
		if _, hint := classify(err); err != nil && hint != "" {
			err = fmt.Errorf("%w (hint: %s)", err, hint)
		}
		return err
	})
	return env.fail(err)
}
