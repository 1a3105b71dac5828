package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"updater/initramfs"
	"updater/internal/program"
)

// maxSaid bounds what of a check's output is kept for the report, in bytes.
const maxSaid = 2 << 10

type healthOptions struct {
	bootOptions
	dir                    string
	timeout, every         time.Duration
	json, reboot, watchdog bool

	// For tests; nil is the real thing.
	feed    func(alive func() bool, log func(format string, a ...any))
	restart func() error
}

// healthReport is the result of health.
type healthReport struct {
	Healthy bool          `json:"healthy"`
	Checks  []healthCheck `json:"checks"`
}

type healthCheck struct {
	Name    string  `json:"name"`
	Healthy bool    `json:"healthy"`
	Seconds float64 `json:"seconds"`
	Error   string  `json:"error,omitempty"`
	Said    string  `json:"said,omitempty"` // the first of what it has printed
}

// unhealthyError says which checks failed.
type unhealthyError struct{ checks []string }

func (e *unhealthyError) Error() string { return "not healthy: " + strings.Join(e.checks, "; ") }

// Hint tells what to do next.
func (e *unhealthyError) Hint() string {
	return "the slot is not marked good by this; --reboot gives it up and returns to the other one"
}

func newHealth(env Env) *cobra.Command {
	var o healthOptions
	cmd := o.command("health", "Run the health checks of this system", noArgs, func(cmd *cobra.Command, _ []string) error {
		return runHealth(cmd.Context(), o, env)
	})
	cmd.Long = `health runs every program in a folder, in the order of their names, each with a time limit, and
succeeds when all of them do. A file that is not a program fails: a check is never left out. Run it
before updater mark good. With --reboot a system that is not healthy marks its slot bad and restarts
into the other one; it is refused, and nothing restarts, where no other slot is bootable. With
--watchdog it does not end: it runs the checks again and again, and keeps the hardware watchdog
alive only while they succeed.`
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "/etc/updater/health.d", "`FOLDER` of the checks")
	f.DurationVar(&o.timeout, "timeout", 30*time.Second, "`TIME` that each check may take")
	f.DurationVar(&o.every, "every", 30*time.Second, "`TIME` between the rounds of --watchdog")
	f.BoolVar(&o.reboot, "reboot", false, "when not healthy, mark the running slot bad and reboot into the other")
	f.BoolVar(&o.watchdog, "watchdog", false, "go on, and feed the hardware watchdog while healthy")
	f.BoolVar(&o.json, "json", false, "print as JSON")
	return cmd
}

func runHealth(ctx context.Context, o healthOptions, env Env) error {
	if o.timeout <= 0 || o.every <= 0 {
		return usagef("--timeout is %s and --every is %s, expected positive times", o.timeout, o.every)
	}
	if o.watchdog {
		return keepHealthy(ctx, o, env)
	}
	_, err := healthRound(ctx, o, env)
	return err
}

// healthRound runs all checks once, reports, and gives the slot up when it is not healthy and --reboot says so.
func healthRound(ctx context.Context, o healthOptions, env Env) (healthy bool, err error) {
	r, err := checkHealth(ctx, o)
	if err != nil {
		return false, err
	}
	if err := printHealth(env, r, o.json); err != nil {
		return false, err
	}
	if r.Healthy {
		return true, nil
	}
	var bad []string
	for _, c := range r.Checks {
		if !c.Healthy {
			bad = append(bad, c.Name+": "+c.Error)
		}
	}
	if o.reboot {
		if err := giveUp(ctx, o, env); err != nil {
			return false, err
		}
	}
	return false, &unhealthyError{bad}
}

// checkHealth runs the checks in the order of their names; all of them, so that the report is whole.
func checkHealth(ctx context.Context, o healthOptions) (*healthReport, error) {
	entries, err := os.ReadDir(o.dir) // sorted
	if err != nil {
		return nil, usagef("the folder of the health checks: %w", err)
	}
	r := &healthReport{Healthy: true, Checks: []healthCheck{}}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		c := healthCheck{Name: e.Name()}
		began := time.Now()
		var said strings.Builder
		dir, err := filepath.Abs(o.dir)
		if err == nil {
			_, err = program.Run(ctx, program.Command{Argv: []string{filepath.Join(dir, e.Name())}, Limit: o.timeout, Line: func(l string) {
				if said.Len()+len(l) < maxSaid {
					fmt.Fprintln(&said, printable(l))
				}
			}})
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if c.Said, c.Seconds, c.Healthy = said.String(), time.Since(began).Seconds(), err == nil; err != nil {
			c.Error, r.Healthy = err.Error(), false
		}
		r.Checks = append(r.Checks, c)
	}
	return r, nil
}

func printHealth(env Env, r *healthReport, asJSON bool) error {
	if asJSON {
		return env.json(r)
	}
	for _, c := range r.Checks {
		for line := range strings.Lines(c.Said) {
			fmt.Fprintf(env.Stderr, "updater: %s: %s", c.Name, line)
		}
		word := "ok"
		if !c.Healthy {
			word = "failed"
		}
		fmt.Fprintf(env.Stdout, "%-6s  %s (%.1f s)\n", word, c.Name, c.Seconds)
	}
	if len(r.Checks) == 0 {
		env.warn("there is no health check, so everything counts as healthy")
	}
	return nil
}

// giveUp marks the running slot bad, and restarts into the other. What may not be marked bad, the last bootable slot, is
// not restarted either: it would come back as it is.
func giveUp(ctx context.Context, o healthOptions, env Env) error {
	err := o.change(ctx, env, func(ctx context.Context, d *device) (string, error) {
		slot, err := d.slotOrBooted(ctx, nil)
		if err != nil {
			return "", err
		}
		if err := d.backend.MarkBad(ctx, slot); err != nil {
			return "", bootError(slot, "marking it bad", err)
		}
		return fmt.Sprintf("slot %s is bad; restarting into the other one", slot), d.rememberBad(slot)
	})
	if err != nil {
		return err
	}
	if o.restart != nil {
		return o.restart()
	}
	return askReboot()
}

// keepHealthy runs the checks until ctx ends. The watchdog is fed while the last round was healthy and is not overdue: a
// check that cannot be killed must not keep the machine alive.
func keepHealthy(ctx context.Context, o healthOptions, env Env) error {
	checks, err := os.ReadDir(o.dir)
	if err != nil {
		return usagef("the folder of the health checks: %w", err)
	}
	patience := o.every + time.Duration(len(checks)+1)*o.timeout
	var until atomic.Int64 // the watchdog is fed
	until.Store(time.Now().Add(patience).UnixNano())
	feed := o.feed
	if feed == nil {
		feed = initramfs.KeepWatchdog
	}
	go feed(func() bool { return time.Now().UnixNano() < until.Load() }, func(format string, a ...any) {
		fmt.Fprintf(env.Stderr, "updater: "+format+"\n", a...)
	})
	for {
		healthy, err := healthRound(ctx, o, env)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case healthy:
			until.Store(time.Now().Add(patience).UnixNano())
		default:
			until.Store(0)
			env.warn("%v; the watchdog is not fed", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(o.every):
		}
	}
}
