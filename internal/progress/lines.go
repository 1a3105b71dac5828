package progress

import (
	"fmt"
	"io"
	"time"

	"updater/device"
	"updater/internal/printable"
	"updater/internal/terminal"
	"updater/update"
)

// Style selects how much is printed for people.
type Style struct {
	Quiet   bool // warnings and hooks only
	Silent  bool // neither phases nor their progress
	Verbose bool // also how long each phase took
}

// ForPeople returns the sink for people at w: bars on a terminal, unless plain is set, else lines with the prefix "updater: ".
func ForPeople(w io.Writer, s Style, plain bool) Sink {
	l := &lines{w: w, Style: s}
	if plain || s.Quiet || s.Silent || !terminal.Is(w) {
		return l
	}
	return &bars{lines: l, live: terminal.Live{W: w}}
}

// lines prints one line for each phase, and within a phase one for every 5 % or 10 s.
type lines struct {
	w io.Writer
	Style
	told  time.Time // of the last line about the phase
	steps int64     // of plainStep that were printed
}

// plainStep is the progress, in percent, and plainEvery the time after which another line is printed.
const (
	plainStep  = 5
	plainEvery = 10 * time.Second
)

func (l *lines) line(format string, a ...any) {
	printable.Fprintf(l.w, "updater: "+format+"\n", a...)
}

func (l *lines) Warn(text string) { l.line("warning: %s", text) }

func (l *lines) Device(f device.Facts) {
	if !l.Quiet {
		l.line("device %s", f)
	}
}

func (l *lines) Fetch(f update.Fetch) {
	if l.Quiet {
		return
	}
	size := terminal.Bytes
	how := fmt.Sprintf("the whole file, because %s", f.Reason)
	if f.Whole >= 0 {
		how = fmt.Sprintf("the whole file of %s, because %s", size(f.Whole), f.Reason)
	}
	if f.Parts {
		how = fmt.Sprintf("%s of %s in %d requests", size(f.Bytes), size(f.Whole), f.Requests)
	}
	if d := f.Delta; d != nil && d.Made > 0 {
		with := "a delta"
		if d.Index {
			with = "parts of the image"
		}
		l.line("%s made out of the other slot and %s, of which %s are fetched in %d requests", size(d.Made), with, size(d.Bytes), d.Requests)
	}
	if f.Whole == 0 {
		how = "the rest"
	}
	l.line("%s held already, %s copied from the other slot; fetching %s; %s saved", size(f.Held), size(f.Copied), how, size(f.Saved))
}

func (l *lines) Hook(name, text string) { l.line("%s: %.900s", name, text) }

func (l *lines) Phase(p Begin) {
	l.took(p)
	l.told, l.steps = time.Now(), 0
	if !l.Quiet && !l.Silent && p.Phase != "" {
		l.line("%s", doing(p.Phase, p.Of))
	}
}

func (l *lines) took(p Begin) {
	if l.Verbose && p.Before != "" {
		l.line("%s took %.2f s", phaseWords[p.Before], p.Took.Seconds())
	}
}

func (l *lines) Sample(s Sample) {
	percent := s.Percent()
	step := percent / plainStep
	if l.Quiet || l.Silent || step <= l.steps && time.Since(l.told) < plainEvery {
		return
	}
	if step > l.steps {
		l.steps, percent = step, step*plainStep
	}
	l.told = time.Now()
	how := terminal.Bytes(s.Done)
	if s.Rate > 0 {
		how += fmt.Sprintf(", %s/s, %s left", terminal.Bytes(s.Rate), s.Left)
	}
	if s.Of.All > 0 {
		done, total := s.All()
		how += fmt.Sprintf("; %d%% of all images", done*100/total)
	}
	l.line("%s %d%% (%s)", s.Label, percent, how)
}

func (l *lines) Close() {}

// bars draws a bar for each phase with a known amount of work, and lines for everything else.
type bars struct {
	*lines
	live terminal.Live
	last Sample // of the bar that is drawn; its total is 0 when none is
}

func (b *bars) Warn(text string)       { b.aside(func() { b.lines.Warn(text) }) }
func (b *bars) Hook(name, line string) { b.aside(func() { b.lines.Hook(name, line) }) }
func (b *bars) Device(f device.Facts)  { b.aside(func() { b.lines.Device(f) }) }
func (b *bars) Fetch(f update.Fetch)   { b.aside(func() { b.lines.Fetch(f) }) }

// aside prints lines above the bar.
func (b *bars) aside(tell func()) {
	b.live.Draw()
	tell()
	b.live.Keep()
	b.draw()
}

func (b *bars) Phase(p Begin) {
	if p.Phase != "" { // the phase before is complete, even if its last sample was not
		b.last.Done = b.last.Total
	}
	b.finish(p.Took)
	if p.Total == 0 {
		b.lines.Phase(p)
		return
	}
	b.took(p)
	b.Sample(Sample{Phase: p.Phase, Of: p.Of, Bar: terminal.Bar{Label: doing(p.Phase, p.Of), Total: p.Total}})
}

func (b *bars) Sample(s Sample) {
	b.last = s
	b.draw()
}

// finish leaves the bar on the terminal as it is, with the time of a phase that has done all of its work.
func (b *bars) finish(took time.Duration) {
	if b.last.Total > 0 && b.last.Done >= b.last.Total {
		b.last.Took, b.last.Rate = took, int64(float64(b.last.Done)/max(took.Seconds(), 0.001))
	}
	b.draw()
	b.live.Keep()
	b.last = Sample{}
}

func (b *bars) Close() {}

// draw draws the bar of the current image and, if there are several, that of all images below it.
func (b *bars) draw() {
	s := b.last
	if s.Total <= 0 {
		return
	}
	width, _ := terminal.Size(b.live.W)
	text := []string{s.Line(width - 1)}
	if s.Of.All > 0 && s.Took == 0 {
		all := terminal.Bar{Label: "all images"}
		all.Done, all.Total = s.All()
		if s.Rate > 0 {
			all.Rate, all.Left = s.Rate, time.Duration(float64(all.Total-all.Done)/float64(s.Rate)*float64(time.Second)).Round(time.Second)
		}
		text = append(text, all.Line(width-1))
	}
	b.live.Draw(text...)
}
