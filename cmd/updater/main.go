// Command updater puts a new system image on a device so that no power cut can brick it. See README.md.
package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"updater/initramfs"
	"updater/internal/terminal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), endings()...)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // a reader of the output that is gone must not kill an install: the write fails instead
	env := Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: terminal.Journal(os.Stderr)}
	code := dispatch(ctx, os.Args, env)
	stop()
	os.Exit(code)
}

// endings are the signals that end the program as an interruption. A SIGHUP that was ignored from the start, as nohup(1) does, stays ignored.
func endings() []os.Signal {
	list := []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT}
	if !signal.Ignored(syscall.SIGHUP) {
		list = append(list, syscall.SIGHUP)
	}
	return list
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
