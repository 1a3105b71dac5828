// Command updater puts a new system image on a device so that no power cut can brick it. See README.md.
package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"updater/initramfs"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	env := Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	code := dispatch(ctx, os.Args, env)
	stop()
	os.Exit(code)
}

// dispatch selects what the program does by the name it was called by: the kernel calls it as modprobe, u-root's init as uinit, people as
// updater.
func dispatch(ctx context.Context, args []string, env Env) int {
	switch filepath.Base(args[0]) {
	case "modprobe":
		return modprobe(args[1:], env)
	case "uinit":
		return supervise(env)
	case workerName:
		return uinit(ctx, env)
	}
	return Run(ctx, args[1:], env)
}

// modprobe loads the module that is the last argument, as the kernel asks: modprobe -q -- NAME.
func modprobe(args []string, env Env) int {
	if len(args) == 0 {
		return env.fail(usagef("modprobe: no module named"))
	}
	if err := initramfs.Modprobe(args[len(args)-1]); err != nil {
		return env.fail(err)
	}
	return ExitDone
}
