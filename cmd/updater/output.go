package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/spf13/pflag"

	"updater/device"
	"updater/update"
)

// output says how much is shown, and where.
type output struct {
	quiet, verbose bool
	progress       string // auto, plain, json or none; "" is auto
	psplash        string // FIFO of the splash screen

	began atomic.Bool // something is being written
}

// begin notes that something is being written, for the hint of an interruption.
func (o *output) begin() {
	if o != nil {
		o.began.Store(true)
	}
}

// defaultSplash is where psplash listens, unless it was built otherwise.
const defaultSplash = "/run/psplash_fifo"

// AddFlags adds the options of every verb.
func (o *output) AddFlags(f *pflag.FlagSet) {
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print only the result, warnings and errors")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "also print how long each phase took")
	f.BoolVarP(&o.verbose, "debug", "d", false, "bmaptool's name of --verbose")
	_ = f.MarkHidden("debug")
}

// addProgress adds the options of the verbs that take long.
func (o *output) addProgress(f *pflag.FlagSet) {
	f.StringVar(&o.progress, "progress", "auto", "how progress is shown: `HOW` is auto (a bar on a terminal, else lines), plain, json (as --json) or none")
	f.StringVar(&o.psplash, "psplash", defaultSplash, "show progress on the splash screen that listens on `FIFO`, if one does")
}

func (o *output) check() error {
	if o.quiet && o.verbose {
		return usagef("--quiet and --verbose contradict each other")
	}
	if !slices.Contains([]string{"", "auto", "plain", "json", "none"}, o.progress) {
		return usagef("--progress is %q, expected auto, plain, json or none", o.progress)
	}
	return nil
}

// draws reports whether bars are drawn on w.
func (o *output) draws(w io.Writer) bool {
	return !o.quiet && (o.progress == "" || o.progress == "auto") && isTerminal(w)
}

// splash is the sink for psplash. It never waits: a splash screen that does not read misses something, and a missing one is no fault.
type splash struct {
	fd   int
	last int64 // percent
}

// openSplash returns nil when no splash screen listens.
func openSplash(path string) *splash {
	if info, err := os.Stat(path); path == "" || err != nil || info.Mode().Type() != os.ModeNamedPipe {
		return nil
	}
	fd, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return &splash{fd: fd, last: -1}
}

func (s *splash) tell(format string, a ...any) {
	_, _ = syscall.Write(s.fd, append(fmt.Appendf(nil, format, a...), 0))
}

// shares are the parts of the splash screen's bar for the long phases, in percent.
var shares = map[update.Phase][2]int64{update.PhaseWrite: {0, 60}, update.PhaseReadBack: {60, 100}}

func (s *splash) sample(p sample) {
	share, ok := shares[p.Phase]
	if !ok {
		return
	}
	done, total := p.all()
	if now := share[0] + (share[1]-share[0])*done/total; now > s.last {
		s.last = now
		s.tell("PROGRESS %d", now)
	}
}

func (s *splash) phase(p phaseBegin) {
	if p.Phase == "" {
		return
	}
	s.tell("MSG %s", doing(p.Phase, p.of))
	if p.Phase == update.PhaseSwitch {
		s.sample(sample{Phase: update.PhaseReadBack, done: 1, total: 1})
	}
}

func (s *splash) warn(string)         {}
func (s *splash) device(device.Facts) {}
func (s *splash) fetch(update.Fetch)  {}
func (s *splash) hook(string, string) {}
func (s *splash) close()              { _ = syscall.Close(s.fd) }
