// Package terminal draws on terminals: blocks of lines that are redrawn in place, and bars that fit a width.
//
// Guarantees: a line is never wider than the terminal, so none wraps; a block that was drawn before a resize is replaced as a whole on
// terminals that reflow lines. Text from outside has to be printable (package printable); only SGR sequences may be in a line.
package terminal

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"updater/internal/printable"
)

// The colours of a verdict, as SGR sequences.
const (
	Green = "\x1b[32m"
	Red   = "\x1b[31m"
	Amber = "\x1b[33m"
	Bold  = "\x1b[1m"
)

// Paint returns text in a colour, padded to a width first.
func Paint(colour, text string, width int) string {
	text = fmt.Sprintf("%-*s", width, text)
	if colour == "" {
		return text
	}
	return colour + text + "\x1b[0m"
}

// Colours reports whether w is a terminal that shows colours, and the user has not turned them off (no-color.org).
func Colours(w io.Writer) bool {
	return os.Getenv("NO_COLOR") == "" && Is(w)
}

// Is reports whether w is a terminal that understands control sequences.
func Is(w io.Writer) bool {
	if os.Getenv("TERM") == "dumb" {
		return false
	}
	switch t := Direct(w).(type) {
	case sizer:
		return true
	case *os.File:
		return term.IsTerminal(int(t.Fd()))
	}
	return false
}

// sizer is a terminal that is no file.
type sizer interface {
	Size() (columns, rows int)
}

// Size returns the columns and rows of a terminal, 80 and 24 if they are unknown.
func Size(w io.Writer) (columns, rows int) {
	switch t := Direct(w).(type) {
	case sizer:
		return t.Size()
	case *os.File:
		if columns, rows, err := term.GetSize(int(t.Fd())); err == nil && columns > 0 && rows > 0 {
			return columns, rows
		}
	}
	return 80, 24
}

// Direct returns the writer behind a [printable.Writer], which would replace control sequences.
func Direct(w io.Writer) io.Writer {
	if p, ok := w.(*printable.Writer); ok {
		return p.Unwrap()
	}
	return w
}

// Live redraws a block of lines in place. It is not safe for concurrent use.
type Live struct {
	W     io.Writer
	drawn []int // cells of the lines on the terminal
}

// Draw replaces the block, and erases everything below it, such as an echoed ^C.
func (l *Live) Draw(lines ...string) {
	width, _ := Size(l.W)
	var b strings.Builder
	up := 0
	for _, cells := range l.drawn { // a narrower terminal has wrapped them
		up += max(1, (cells+width-1)/width)
	}
	if up > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", up)
	}
	l.drawn = l.drawn[:0]
	b.WriteString("\r")
	for _, line := range lines {
		line = Clip(line, width-1)
		l.drawn = append(l.drawn, Cells(line))
		b.WriteString(line + "\x1b[K\r\n")
	}
	b.WriteString("\x1b[J")
	_, _ = io.WriteString(Direct(l.W), b.String())
}

// Keep leaves the block on the terminal; the next one goes below it.
func (l *Live) Keep() { l.drawn = nil }

// Clip cuts a line to a number of cells. SGR sequences take none and stay; every other character takes one.
func Clip(line string, width int) string {
	var b strings.Builder
	var seq sequence
	for _, r := range line {
		if !seq.has(r) {
			if width <= 0 {
				continue
			}
			width--
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Cells counts the cells of a line.
func Cells(line string) int {
	var seq sequence
	n := 0
	for _, r := range line {
		if !seq.has(r) {
			n++
		}
	}
	return n
}

// sequence is whether a line is inside an SGR sequence.
type sequence bool

// has reads the next character and reports whether it belongs to a sequence.
func (s *sequence) has(r rune) bool {
	was := *s
	*s = r == '\x1b' || was && r != 'm'
	return bool(was) || r == '\x1b'
}
