package initramfs

import (
	"fmt"
	"io"
	"strconv"

	"updater/internal/printable"
)

// choice carries out what was chosen. It returns an action, or the menu to show next.
type choice func() (action, *menu)

// menu is a numbered list of choices, or asks for a text.
type menu struct {
	title  string
	labels []string
	do     []choice
	at     int // index of the highlighted line on screens

	enter func(text string) (action, *menu) // takes a text instead; nil for a list
	text  string                            // typed so far
}

// add appends a choice. Labels hold file names of media, so unprintable characters are replaced.
func (m *menu) add(label string, do choice) {
	m.labels, m.do = append(m.labels, printable.Line(label)), append(m.do, do)
}

// confirm asks before something is destroyed.
func confirm(what string, back *menu, do choice) *menu {
	m := &menu{title: what}
	m.add("no, back", func() (action, *menu) { return 0, back })
	m.add("yes", do)
	return m
}

// print writes the menu for a serial line: plain text without escape sequences.
func (m *menu) print(w io.Writer) {
	if m.enter != nil {
		fmt.Fprintf(w, "updater: %s, then Enter; Enter alone goes back\n", m.title)
		return
	}
	fmt.Fprintf(w, "updater: %s: type a number, then Enter\n", m.title)
	for i, l := range m.labels {
		fmt.Fprintf(w, "  %d  %s\n", i+1, l)
	}
}

// draw returns the lines of the menu for a screen.
func (m *menu) draw() []string {
	if m.enter != nil {
		return []string{m.title + ", then Enter; Enter alone goes back", "> " + m.text + "_"}
	}
	lines := []string{m.title + ": arrow keys and Enter, or a number and Enter"}
	for i, l := range m.labels {
		mark, on, off := "  ", "", ""
		if i == m.at {
			mark, on, off = "> ", "\x1b[7m", "\x1b[0m"
		}
		lines = append(lines, fmt.Sprintf("%s%d  %s%s%s", mark, i+1, on, l, off))
	}
	return lines
}

// keys interprets the input of one console. Only Enter chooses: an unconnected serial line receives noise.
type keys struct {
	screen bool // arrow keys move the highlight
	typed  []byte
	escape []byte
}

// mostText bounds an address that is typed, mostAnswered the input that gets an answer: a device that answers itself, such as a line that
// echoes, must not be answered again.
const (
	mostText     = 1000
	mostAnswered = 12
)

// pressed is the effect of a byte of input.
type pressed struct {
	changed bool   // the menu has to be drawn again
	do      choice // choice that was made; nil means none
	echo    string // for a serial line
	wrong   string // the answer to input that is not a choice
}

// take handles one byte.
func (k *keys) take(c byte, m *menu) pressed {
	switch {
	case len(k.escape) > 0 || c == 0x1b:
		return pressed{changed: k.arrow(c, m)}
	case m.enter != nil:
		return m.edit(c)
	case c != '\r' && c != '\n':
		if len(k.typed) <= mostAnswered {
			k.typed = append(k.typed, c)
		}
		return pressed{}
	}
	typed := string(k.typed)
	k.typed = nil
	n, err := strconv.Atoi(typed)
	switch {
	case typed == "" && k.screen:
		return pressed{do: m.do[m.at]}
	case typed == "" || len(typed) > mostAnswered:
		return pressed{}
	case err == nil && n >= 1 && n <= len(m.do):
		return pressed{do: m.do[n-1]}
	}
	return pressed{wrong: fmt.Sprintf("%s is no choice; type a number from 1 to %d, then Enter", printable.Line(typed), len(m.do))}
}

// edit handles one byte of a text.
func (m *menu) edit(c byte) pressed {
	switch {
	case c == '\r' || c == '\n':
		text := m.text
		return pressed{do: func() (action, *menu) { return m.enter(text) }, echo: "\n"}
	case (c == 0x7f || c == '\b') && m.text != "":
		m.text = m.text[:len(m.text)-1]
		return pressed{changed: true, echo: "\b \b"}
	case c > ' ' && c < 0x7f && len(m.text) < mostText:
		m.text += string(rune(c))
		return pressed{changed: true, echo: string(rune(c))}
	}
	return pressed{}
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
	if !k.screen || len(m.do) == 0 {
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
