package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"updater/device"
	"updater/device/health"
	"updater/initramfs"
	"updater/internal/printable"
)

type healthOptions struct {
	bootOptions
	dir              string
	timeout, every   time.Duration
	reboot, watchdog bool

	// For tests; nil is the real thing.
	feed    health.Watchdog
	restart func() error
}

func newHealth(env Env) *cobra.Command {
	var o healthOptions
	cmd := o.command("health", "Run the health checks of this system", noArgs, func(cmd *cobra.Command, _ []string) error {
		return runHealth(cmd.Context(), o, env)
	})
	cmd.Long = `health runs every program in a folder, in the order of their names, each with a time limit, and
succeeds when all of them do. A file that is not a program fails: no check is skipped. Run it
before updater mark good. With --reboot a system that is not healthy marks its slot bad and restarts
into the other one; it is refused, and nothing restarts, where no other slot is bootable. With
--watchdog it does not end: it repeats the checks, and keeps the hardware watchdog
alive only while they succeed.`
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "/etc/updater/health.d", "`FOLDER` of the checks")
	f.DurationVar(&o.timeout, "timeout", 30*time.Second, "`TIME` that each check may take")
	f.DurationVar(&o.every, "every", 30*time.Second, "`TIME` between the rounds of --watchdog")
	f.BoolVar(&o.reboot, "reboot", false, "when not healthy, mark the running slot bad and reboot into the other")
	f.BoolVar(&o.watchdog, "watchdog", false, "keep running, and feed the hardware watchdog while healthy")
	return cmd
}

func runHealth(ctx context.Context, o healthOptions, env Env) error {
	if o.timeout <= 0 || o.every <= 0 {
		return usagef("--timeout is %s and --every is %s, expected positive times", o.timeout, o.every)
	}
	checks := health.Options{Dir: o.dir, Timeout: o.timeout, Clean: printable.Line}
	round := func() error { return healthRound(ctx, o, checks, env) }
	if !o.watchdog {
		return round()
	}
	feed := o.feed
	if feed == nil {
		feed = initramfs.KeepWatchdog
	}
	return health.Keep(ctx, checks, o.every, feed, round, func(format string, a ...any) {
		printable.Fprintf(env.Stderr, "updater: "+format+"\n", a...)
	})
}

// healthRound runs all checks once and prints the report. When the system is not healthy and --reboot is set, it marks the slot bad and
// restarts.
func healthRound(ctx context.Context, o healthOptions, checks health.Options, env Env) error {
	r, err := health.Run(ctx, checks)
	if err != nil {
		return err
	}
	printHealth(env, r, o.json)
	if !r.Healthy && o.reboot {
		if err := giveUp(ctx, o, env); err != nil {
			return err
		}
	}
	return r.Err()
}

// printHealth prints a report. The consequences of the report do not depend on standard output.
func printHealth(env Env, r *health.Report, asJSON bool) {
	if asJSON {
		env.doneJSON(r)
		return
	}
	for _, c := range r.Checks {
		for line := range strings.Lines(c.Output) {
			printable.Fprintf(env.Stderr, "updater: %s: %s\n", c.Name, line)
		}
		word := "ok"
		if !c.Healthy {
			word = "failed"
		}
		env.done("%-6s  %s (%.1f s)\n", word, c.Name, c.Seconds)
	}
	if len(r.Checks) == 0 {
		env.warn("there is no health check, so everything counts as healthy")
	}
}

// giveUp marks the running slot bad, and restarts into the other one. The last bootable slot cannot be marked bad, and then nothing restarts:
// it would come back as it is.
func giveUp(ctx context.Context, o healthOptions, env Env) error {
	err := o.change(ctx, env, func(d *device.Device) (string, error) {
		slot, err := d.SlotOrBooted("")
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("slot %s is bad; restarting into the other one", slot), d.MarkBad(ctx, slot)
	})
	if err != nil {
		return err
	}
	if o.restart != nil {
		return o.restart()
	}
	return device.Reboot()
}
