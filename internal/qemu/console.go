package qemu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

func (m *Machine) readConsole(r *io.PipeReader) {
	b := bufio.NewReader(r)
	for {
		s, err := b.ReadString('\n')
		if s = clean(s); s != "" {
			m.add(s)
		}
		if err != nil {
			r.CloseWithError(err)
			return
		}
	}
}

func (m *Machine) add(line string) {
	if m.log != nil {
		fmt.Fprintln(m.log, line)
	}
	m.mu.Lock()
	m.lines = append(m.lines, line)
	close(m.changed)
	m.changed = make(chan struct{})
	m.mu.Unlock()
}

// escapes are the ANSI sequences that firmware, GRUB and systemd send.
var escapes = regexp.MustCompile(`\x1b(\[[0-9;?=]*[a-zA-Z]|\][^\x07\x1b]*(\x07|\x1b\\)|[()][0-9A-B]|[c=>78])`)

// clean makes a console line readable: no escape sequences, carriage returns, NUL bytes or blanks at its end.
func clean(s string) string {
	s = escapes.ReplaceAllString(s, "")
	s = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' {
			return -1
		}
		return r
	}, s)
	return strings.TrimRight(s, " \t")
}

// Lines returns a copy of the console so far, cleaned, without empty lines.
func (m *Machine) Lines() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.lines...)
}

// Expect waits for the next console line that matches re, returns its submatches as regexp.FindStringSubmatch does, and continues behind it
// with the next call. It fails when the machine ended or timed out first; the error then carries the last 60 console lines.
func (m *Machine) Expect(re string) ([]string, error) {
	exp, err := regexp.Compile(re)
	if err != nil {
		return nil, fmt.Errorf("console pattern: %w", err)
	}
	for {
		ended := isClosed(m.done) // before looking: nothing comes after the end
		match, changed := m.scan(exp)
		switch {
		case match != nil:
			return match, nil
		case ended:
			return nil, m.failure(fmt.Errorf("ended (%s) before a console line matched %q", m.End(), re))
		}
		select {
		case <-changed:
		case <-m.done:
		}
	}
}

func (m *Machine) scan(exp *regexp.Regexp) (match []string, changed chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.next < len(m.lines) {
		match = exp.FindStringSubmatch(m.lines[m.next])
		m.next++
		if match != nil {
			return match, nil
		}
	}
	return nil, m.changed
}

// failure adds the machine's name and the end of its console to err.
func (m *Machine) failure(err error) error {
	lines := m.Lines()
	if cause := context.Cause(m.ctx); cause != nil && !errors.Is(err, cause) && !errors.Is(cause, context.Canceled) {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	tail := lines[max(0, len(lines)-60):]
	return fmt.Errorf("virtual machine %s: %w; end of its console:\n%s", m.name, err, strings.Join(tail, "\n"))
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
