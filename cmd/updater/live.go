package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// live redraws a block of lines in place on a terminal.
type live struct {
	w     io.Writer
	drawn int // lines that stand on the terminal
}

// draw replaces the block. Every line is cut to the width of the terminal, so that none wraps.
func (l *live) draw(lines ...string) {
	var b strings.Builder
	if l.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", l.drawn)
	}
	width := terminalWidth(l.w)
	for _, line := range lines {
		b.WriteString("\r" + clip(line, width-1) + "\x1b[K\n")
	}
	if len(lines) < l.drawn {
		b.WriteString("\x1b[J")
	}
	l.drawn = len(lines)
	_, _ = io.WriteString(direct(l.w), b.String())
}

// keep leaves the block on the terminal; what is drawn next goes below it.
func (l *live) keep() { l.drawn = 0 }

// clip cuts a line to a number of cells. Control sequences (CSI ... m) take none; every other character takes one.
func clip(line string, width int) string {
	var b strings.Builder
	inside := false
	for _, r := range line {
		switch {
		case r == '\x1b':
			inside = true
		case inside:
			inside = r != 'm'
		case width <= 0:
			continue
		default:
			width--
		}
		b.WriteRune(r)
	}
	return b.String()
}

// terminalWidth is the number of columns of a terminal, 80 where it is unknown.
func terminalWidth(w io.Writer) int {
	if f, ok := direct(w).(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return width
		}
	}
	return 80
}

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := direct(w).(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// barSink draws a bar for each phase with a known amount of work, and lines for everything else.
type barSink struct {
	lineSink
	live live
	last sample // of the bar that is drawn; its total is 0 when none is
}

func (b *barSink) warn(text string)       { b.finish(); b.lineSink.warn(text) }
func (b *barSink) hook(name, line string) { b.finish(); b.lineSink.hook(name, line) }

func (b *barSink) phase(p phaseBegin) {
	if b.last.total > 0 && b.last.Phase == p.before {
		b.last.done = b.last.total
		b.draw(doing(p.before, b.last.of), b.last)
	}
	b.finish()
	if p.total == 0 {
		b.lineSink.phase(p)
		return
	}
	b.sample(sample{Phase: p.Phase, total: p.total, of: p.of})
}

func (b *barSink) sample(s sample) {
	b.last = s
	b.draw(doing(s.Phase, s.of), s)
}

// finish leaves the bar as it is.
func (b *barSink) finish() {
	b.live.keep()
	b.last = sample{}
}

func (b *barSink) close() { b.finish() }

// draw draws one bar: what is done, how much of it, how fast, how long it takes.
func (b *barSink) draw(doing string, s sample) {
	if s.total <= 0 {
		return
	}
	text := fmt.Sprintf(" %3d%%  %s", s.done*100/s.total, size(s.done))
	if s.rate > 0 {
		text += fmt.Sprintf("  %s/s  %s left", size(s.rate), s.left)
	}
	width := min(max(terminalWidth(b.live.w)-16-len(text)-4, 4), 40)
	b.live.draw(fmt.Sprintf("%-16s [%s]%s", doing, bar(s.done, s.total, width), text))
}

// bar is a bar of so many characters.
func bar(done, total int64, width int) string {
	full := int(float64(width) * float64(min(done, total)) / float64(total))
	return strings.Repeat("#", full) + strings.Repeat("-", width-full)
}
