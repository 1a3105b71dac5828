// Package health runs the health checks of a system: a folder of programs, in the order of their names, each with a time limit. The system is
// healthy when all of them succeed; a file that is not a program fails, so that no check is skipped.
package health

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"updater/device/config"
	"updater/internal/program"
)

// maxOutput bounds how much of a check's output a report keeps, in bytes.
const maxOutput = 2 << 10

// Options say which checks run.
type Options struct {
	Dir     string
	Timeout time.Duration            // of each check
	Clean   func(line string) string // makes a line of foreign output fit for a terminal

	now func() time.Time // replaced in tests
}

// Report is the result of one round.
type Report struct {
	Healthy bool    `json:"healthy"`
	Checks  []Check `json:"checks"`
}

// Check is one check of a round.
type Check struct {
	Name    string  `json:"name"`
	Healthy bool    `json:"healthy"`
	Seconds float64 `json:"seconds"`
	Error   string  `json:"error,omitempty"`
	Output  string  `json:"said,omitempty"` // the beginning of its output
}

// UnhealthyError names the checks that failed.
type UnhealthyError struct{ Checks []string }

func (e *UnhealthyError) Error() string { return "not healthy: " + strings.Join(e.Checks, "; ") }

// Hint says what to do next.
func (e *UnhealthyError) Hint() string {
	return "the slot is not marked good; --reboot marks it bad and returns to the other one"
}

// Err is nil for a healthy system, else an [UnhealthyError].
func (r *Report) Err() error {
	if r.Healthy {
		return nil
	}
	e := new(UnhealthyError)
	for _, c := range r.Checks {
		if !c.Healthy {
			e.Checks = append(e.Checks, c.Name+": "+c.Error)
		}
	}
	return e
}

// Run runs every check once; the report is complete even when one fails. Errors: config.RequestError when there is no such folder, the cause of
// a cancelled context.
func Run(ctx context.Context, o Options) (*Report, error) {
	entries, err := os.ReadDir(o.Dir) // sorted
	if err != nil {
		return nil, config.Requestf("the folder of the health checks: %w", err)
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	r := &Report{Healthy: true, Checks: []Check{}}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		c := o.check(ctx, filepath.Join(dir, e.Name()))
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		r.Healthy = r.Healthy && c.Healthy
		r.Checks = append(r.Checks, c)
	}
	return r, nil
}

func (o Options) check(ctx context.Context, path string) Check {
	c := Check{Name: filepath.Base(path)}
	began := time.Now()
	var output strings.Builder
	_, err := program.Run(ctx, program.Command{Argv: []string{path}, Limit: o.Timeout, Line: func(l string) {
		if output.Len()+len(l) < maxOutput {
			fmt.Fprintln(&output, o.Clean(l))
		}
	}})
	c.Output, c.Seconds, c.Healthy = output.String(), time.Since(began).Seconds(), err == nil
	if err != nil {
		c.Error = err.Error()
	}
	return c
}

// Watchdog keeps a hardware watchdog fed for as long as alive returns true. initramfs.KeepWatchdog is the real one.
type Watchdog func(alive func() bool, log func(format string, a ...any))

// Keep runs rounds until ctx ends. The watchdog is fed while the last round was healthy and is not overdue: a check that cannot be killed must
// not keep the machine alive. round runs one round and returns its error.
func Keep(ctx context.Context, o Options, every time.Duration, feed Watchdog, round func() error, log func(format string, a ...any)) error {
	checks, err := os.ReadDir(o.Dir)
	if err != nil {
		return config.Requestf("the folder of the health checks: %w", err)
	}
	patience := every + time.Duration(len(checks)+1)*o.Timeout
	now := o.now
	if now == nil {
		now = time.Now
	}
	began := now()
	var until atomic.Int64 // the watchdog is fed, on the monotonic clock: nanoseconds since began
	extend := func() { until.Store(int64(now().Sub(began) + patience)) }
	extend()
	go feed(func() bool { return int64(now().Sub(began)) < until.Load() }, log)
	for {
		err := round()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			extend()
		default:
			until.Store(0)
			log("warning: %v; the watchdog is not fed", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(every):
		}
	}
}
