package main

import (
	"slices"
	"sync/atomic"

	"github.com/spf13/pflag"
)

// output configures how much is shown, and where.
type output struct {
	quiet, verbose bool
	progress       string // auto, plain, json or none; "" is auto
	psplash        string // FIFO of the splash screen

	began atomic.Bool // something is being written
}

// begin records that something is being written, for the hint of an interruption.
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
