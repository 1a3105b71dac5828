// Package terminaltest is a model of a terminal for tests: it keeps the cells that a person sees. It knows the control sequences that this
// tree writes, wraps and scrolls as xterm does, and reflows its lines when it is resized, as VTE and tmux do.
package terminaltest

import (
	"strconv"
	"strings"
	"sync"
)

// Screen is a terminal of some columns and rows. Safe for concurrent use.
type Screen struct {
	mu            sync.Mutex
	columns, rows int
	lines         []line // the last rows are visible
	x, y          int    // of the cursor; y counts all lines
	escape        string // a sequence that has not ended
	other         bool   // the other screen is shown, which neither keeps scrolled lines nor reflows
	Unknown       []string
}

type line struct {
	cells   []rune
	wrapped bool // the line goes on in the next one
}

// New returns an empty screen.
func New(columns, rows int) *Screen {
	return &Screen{columns: columns, rows: rows, lines: make([]line, 1)}
}

// Size implements the sizer of package terminal.
func (s *Screen) Size() (columns, rows int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.columns, s.rows
}

// Resize changes the size and reflows the lines.
func (s *Screen) Resize(columns, rows int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.other {
		s.columns, s.rows, s.lines, s.x, s.y = columns, rows, s.lines[:min(rows, len(s.lines))], 0, 0
		return
	}
	old, x, y := s.lines, s.x, s.y
	s.columns, s.rows, s.lines = columns, rows, nil
	var whole []rune
	for i, l := range old {
		at := -1
		if i == y {
			at = len(whole) + x
		}
		whole = append(whole, l.cells...)
		if at >= 0 {
			s.x, s.y = at%columns, len(s.lines)+at/columns
		}
		if l.wrapped {
			continue
		}
		for len(whole) > columns {
			s.lines = append(s.lines, line{cells: whole[:columns:columns], wrapped: true})
			whole = whole[columns:]
		}
		s.lines, whole = append(s.lines, line{cells: whole}), nil
	}
}

// Write implements io.Writer.
func (s *Screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range string(p) {
		switch {
		case s.escape != "" || r == '\x1b':
			s.escape += string(r)
			if final := len(s.escape) > 2 && r >= '@' && r <= '~'; final {
				s.control(s.escape)
				s.escape = ""
			}
		case r == '\r':
			s.x = 0
		case r == '\n':
			s.x = 0 // a terminal driver adds the return
			s.down()
		default:
			s.put(r)
		}
	}
	return len(p), nil
}

func (s *Screen) down() {
	if s.y++; s.y == len(s.lines) {
		s.lines = append(s.lines, line{})
	}
	if s.other && len(s.lines) > s.rows {
		s.lines, s.y = s.lines[1:], s.y-1
	}
}

func (s *Screen) put(r rune) {
	if s.x >= s.columns {
		s.lines[s.y].wrapped = true
		s.x = 0
		s.down()
	}
	l := &s.lines[s.y]
	for len(l.cells) <= s.x {
		l.cells = append(l.cells, ' ')
	}
	l.cells[s.x] = r
	s.x++
}

// top is the first visible line.
func (s *Screen) top() int { return max(0, len(s.lines)-s.rows) }

func (s *Screen) control(seq string) {
	n, err := strconv.Atoi(strings.TrimLeft(seq[2:len(seq)-1], "?"))
	l := &s.lines[s.y]
	switch final := seq[len(seq)-1]; {
	case final == 'A' && err == nil:
		s.y = max(s.top(), s.y-n)
	case seq == "\x1b[H":
		s.x, s.y = 0, s.top()
	case seq == "\x1b[K":
		l.cells, l.wrapped = l.cells[:min(s.x, len(l.cells))], false
	case seq == "\x1b[J":
		l.cells, l.wrapped = l.cells[:min(s.x, len(l.cells))], false
		for i := s.y + 1; i < len(s.lines); i++ {
			s.lines[i] = line{}
		}
	case seq == "\x1b[2J":
		for i := s.top(); i < len(s.lines); i++ {
			s.lines[i] = line{}
		}
	case final == 'm', final == 'h' && n == 25, final == 'l' && n == 25:
	case n == 1049:
		s.other, s.lines, s.x, s.y = final == 'h', make([]line, 1), 0, 0
	default:
		s.Unknown = append(s.Unknown, seq)
	}
}

// Text returns all lines that were shown, including those that have scrolled away, without blanks at the ends.
func (s *Screen) Text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, l := range s.lines {
		b.WriteString(strings.TrimRight(string(l.cells), " ") + "\n")
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}
