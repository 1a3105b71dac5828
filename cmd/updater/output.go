package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"updater/update"
)

// output is what the command line says of how much is told, and where.
type output struct {
	quiet, verbose bool
	progress       string // auto, plain, json or none; "" is auto
	psplash        string // FIFO of the splash screen
}

// defaultSplash is where psplash listens, unless it was built otherwise.
const defaultSplash = "/run/psplash_fifo"

// AddFlags adds what holds for every verb.
func (o *output) AddFlags(f *pflag.FlagSet) {
	f.BoolVarP(&o.quiet, "quiet", "q", false, "say nothing but the result, warnings and errors")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "say how long each phase took, too")
}

// addProgress adds what holds for the verbs that take long.
func (o *output) addProgress(f *pflag.FlagSet) {
	f.StringVar(&o.progress, "progress", "auto", "how progress is told: `HOW` is auto (a bar on a terminal, else lines), plain, json (as --json) or none")
	f.StringVar(&o.psplash, "psplash", defaultSplash, "tell the splash screen that listens on `FIFO`, if one does")
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

// splash tells psplash how an install goes. Nothing of it is waited for: a splash screen that does not read misses
// something, and one that is not there is no fault.
type splash struct {
	fd   int // -1 is none
	last int64
}

func openSplash(path string) *splash {
	s := &splash{fd: -1, last: -1}
	if info, err := os.Stat(path); path == "" || err != nil || info.Mode().Type() != os.ModeNamedPipe {
		return s
	}
	if fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
		s.fd = fd
	}
	return s
}

func (s *splash) tell(format string, a ...any) {
	if s.fd >= 0 {
		_, _ = unix.Write(s.fd, append(fmt.Appendf(nil, format, a...), 0))
	}
}

// shares are the parts of an install's bar that its long phases get, in percent.
var shares = map[update.Phase][2]int64{update.PhaseWrite: {0, 60}, update.PhaseReadBack: {60, 100}}

func (s *splash) sample(phase update.Phase, done, total int64) {
	share, ok := shares[phase]
	if !ok || total <= 0 {
		return
	}
	if now := share[0] + (share[1]-share[0])*done/total; now > s.last {
		s.last = now
		s.tell("PROGRESS %d", now)
	}
}

func (s *splash) close() {
	if s.fd >= 0 {
		_ = unix.Close(s.fd)
		s.fd = -1
	}
}
