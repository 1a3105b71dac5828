package initramfs

import (
	"bytes"
	"strings"
	"testing"
)

func threeThings() *menu {
	m := &menu{title: "what to do"}
	for _, l := range []string{"one", "two", "three"} {
		m.add(l, func() (action, *menu) { return actionRetry, nil })
	}
	return m
}

func TestKeys(t *testing.T) {
	for _, c := range []struct {
		name, typed string
		screen      bool
		want        int // index of what was chosen last; -1 is nothing
	}{
		{"number and Enter", "2\r", false, 1},
		{"a number alone does nothing", "2", false, -1},
		{"Enter alone does nothing on a serial line", "\r\n", false, -1},
		{"too high", "4\r", false, -1},
		{"zero", "0\r", false, -1},
		{"noise in between", "2x\r", false, -1},
		{"noise of an open line", "\x00\xff7\x003\xff\r", false, -1},
		{"after noise", "\xff3\n", false, 2},
		{"arrows do nothing on a serial line", "\x1b[B\r", false, -1},
		{"a long number", "000000000000000000001\r", false, -1},
		{"arrow down", "\x1b[B\r", true, 1},
		{"application keys", "\x1bOB\x1bOB\r", true, 2},
		{"arrow up goes round", "\x1b[A\r", true, 2},
		{"arrow down goes round", "\x1b[B\x1b[B\x1b[B\r", true, 0},
		{"other sequences", "\x1b[C\x1bx\x1b[D\r", true, 0},
		{"a number on a screen", "\x1b[B3\r", true, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, m, got := keys{screen: c.screen}, threeThings(), -1
			for _, b := range []byte(c.typed) {
				if _, chosen := k.take(b, m); chosen >= 0 {
					got = chosen
				}
			}
			if got != c.want {
				t.Errorf("%q chose %d; want %d", c.typed, got, c.want)
			}
		})
	}
}

// A serial line gets text that a log can hold; a screen gets one line marked, and the same place again.
func TestMenuLooks(t *testing.T) {
	var serial, screen bytes.Buffer
	m := threeThings()
	m.print(&serial)
	if s := serial.String(); strings.Contains(s, "\x1b") || !strings.Contains(s, "  2  two\n") {
		t.Errorf("print = %q", s)
	}
	m.at = 1
	m.draw(&screen, true)
	if s := screen.String(); !strings.HasPrefix(s, "\x1b[4A") || !strings.Contains(s, "> 2  \x1b[7mtwo\x1b[0m") {
		t.Errorf("draw = %q", s)
	}
}
