package initramfs

import (
	"fmt"
	"io"
	"strconv"

	"updater/internal/printable"
)

// menu is a numbered list of choices.
type menu struct {
	title  string
	labels []string
	do     []func() (action, *menu) // returns an action, or the menu to show next
	at     int                      // index of the highlighted line on screens
}

// add appends a choice. Labels hold file names of media, so what is not printable is replaced.
func (m *menu) add(label string, do func() (action, *menu)) {
	m.labels, m.do = append(m.labels, printable.Line(label)), append(m.do, do)
}

// print writes the menu for a serial line: plain text without escape sequences.
func (m *menu) print(w io.Writer) {
	fmt.Fprintf(w, "updater: %s: type a number, then Enter\n", m.title)
	for i, l := range m.labels {
		fmt.Fprintf(w, "  %d  %s\n", i+1, l)
	}
}

// draw writes the menu for a screen (console_codes(4)); again replaces the menu drawn before.
func (m *menu) draw(w io.Writer, again bool) {
	if again {
		fmt.Fprintf(w, "\x1b[%dA", len(m.labels)+1)
	}
	fmt.Fprintf(w, "\x1b[Kupdater: %s: arrow keys and Enter, or a number and Enter\n", m.title)
	for i, l := range m.labels {
		mark, on, off := "  ", "", ""
		if i == m.at {
			mark, on, off = "> ", "\x1b[7m", "\x1b[0m"
		}
		fmt.Fprintf(w, "\x1b[K%s%d  %s%s%s\n", mark, i+1, on, l, off)
	}
}

// keys interprets the input of one console. Only Enter chooses: an unconnected serial line receives noise.
type keys struct {
	screen bool // arrow keys move the highlight
	number []byte
	escape []byte
}

// take handles one byte. It reports whether the highlight moved, and the index of the chosen line or -1.
func (k *keys) take(c byte, m *menu) (moved bool, chosen int) {
	if len(k.escape) > 0 || c == 0x1b {
		return k.arrow(c, m), -1
	}
	switch {
	case c >= '0' && c <= '9':
		if len(k.number) < 9 {
			k.number = append(k.number, c)
		}
	case c == '\r' || c == '\n':
		n, err := strconv.Atoi(string(k.number))
		empty := len(k.number) == 0
		k.number = nil
		switch {
		case empty && k.screen:
			return false, m.at
		case err == nil && n >= 1 && n <= len(m.do):
			return false, n - 1
		}
	default:
		k.number = nil
	}
	return false, -1
}

// arrow handles one byte of an escape sequence: ESC [ A or ESC O A is up, ESC [ B or ESC O B is down.
func (k *keys) arrow(c byte, m *menu) (moved bool) {
	k.escape = append(k.escape, c)
	if len(k.escape) < 3 {
		if len(k.escape) == 2 && c != '[' && c != 'O' {
			k.escape = nil
		}
		return false
	}
	k.escape = nil
	if !k.screen {
		return false
	}
	switch c {
	case 'A':
		m.at = (m.at + len(m.do) - 1) % len(m.do)
	case 'B':
		m.at = (m.at + 1) % len(m.do)
	default:
		return false
	}
	return true
}
