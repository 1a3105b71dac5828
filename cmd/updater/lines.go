package main

import (
	"fmt"
	"time"

	"updater/device"
	"updater/internal/printable"
	"updater/update"
)

// lineSink prints plain lines to standard error: one for each phase, and within a phase one for every 5 % or 10 s.
type lineSink struct {
	env   Env
	told  time.Time // the last line about the phase
	steps int64     // of plainStep that were printed
}

// plainStep and plainEvery are how much must be done, in percent, or how long it must take, for another line.
const (
	plainStep  = 5
	plainEvery = 10 * time.Second
)

// phaseWords are what people read.
var phaseWords = map[update.Phase]string{
	update.PhaseCheck:    "checking the signature",
	update.PhasePlan:     "comparing the slots",
	update.PhaseWrite:    "writing",
	update.PhaseFlush:    "flushing the device",
	update.PhaseReadBack: "reading back",
	update.PhaseRepair:   "rewriting ranges that read back wrong",
	update.PhaseSwitch:   "switching the boot slot",
}

// doing is what people read of a phase, with the role of one of several images.
func doing(p update.Phase, of update.Share) string {
	if of.Role == "" {
		return phaseWords[p]
	}
	return phaseWords[p] + " " + of.Role
}

func (l *lineSink) line(format string, a ...any) {
	printable.Fprintf(l.env.Stderr, "updater: "+format+"\n", a...)
}

func (l *lineSink) warn(text string) { l.env.warn("%s", text) }

func (l *lineSink) device(f device.Facts) {
	if !l.env.out.quiet {
		l.line("device %s", f)
	}
}

func (l *lineSink) fetch(f update.Fetch) {
	if l.env.out.quiet {
		return
	}
	how := fmt.Sprintf("the whole file, because %s", f.Reason)
	if f.Whole >= 0 {
		how = fmt.Sprintf("the whole file of %s, because %s", size(f.Whole), f.Reason)
	}
	if f.Parts {
		how = fmt.Sprintf("%s of %s in %d requests", size(f.Bytes), size(f.Whole), f.Requests)
	}
	if d := f.Delta; d != nil && d.Made > 0 {
		l.line("%s made out of the other slot and a delta, of which %s are fetched in %d requests", size(d.Made), size(d.Bytes), d.Requests)
	}
	if f.Whole == 0 {
		how = "the rest"
	}
	l.line("%s held already, %s copied from the other slot; fetching %s", size(f.Held), size(f.Copied), how)
}

func (l *lineSink) hook(name, text string) { l.line("%s: %.900s", name, text) }

// silent reports whether phases and their progress are not shown.
func (l *lineSink) silent() bool { return l.env.out.quiet || l.env.out.progress == "none" }

func (l *lineSink) phase(p phaseBegin) {
	if l.env.out.verbose && p.before != "" {
		l.line("%s took %.2f s", phaseWords[p.before], p.took.Seconds())
	}
	l.told, l.steps = time.Now(), 0
	if !l.silent() && p.Phase != "" {
		l.line("%s", doing(p.Phase, p.of))
	}
}

func (l *lineSink) sample(s sample) {
	step, percent := s.done*100/s.total/plainStep, s.done*100/s.total
	if l.silent() || step <= l.steps && time.Since(l.told) < plainEvery {
		return
	}
	if step > l.steps {
		l.steps, percent = step, step*plainStep
	}
	l.told = time.Now()
	how := size(s.done)
	if s.rate > 0 {
		how += fmt.Sprintf(", %s/s, %s left", size(s.rate), s.left)
	}
	if s.of.All > 0 {
		done, total := s.all()
		how += fmt.Sprintf("; %d%% of all images", done*100/total)
	}
	l.line("%s %d%% (%s)", doing(s.Phase, s.of), percent, how)
}

func (l *lineSink) close() {}
