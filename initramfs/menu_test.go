package initramfs

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"updater/internal/terminal/terminaltest"
)

func threeThings(chosen *int) *menu {
	m := &menu{title: "what to do"}
	for i, l := range []string{"one", "two", "three"} {
		m.add(l, func() (action, *menu) { *chosen = i; return actionRetry, nil })
	}
	return m
}

func TestKeys(t *testing.T) {
	for _, c := range []struct {
		name, typed string
		screen      bool
		want        int // index of the last choice; -1 means none
		answers     int // to input that is not a choice
	}{
		{"number and Enter", "2\r", false, 1, 0},
		{"a number alone does nothing", "2", false, -1, 0},
		{"Enter alone does nothing on a serial line", "\r\n", false, -1, 0},
		{"too high", "4\r", false, -1, 1},
		{"zero", "0\r", false, -1, 1},
		{"a word", "help\r", false, -1, 1},
		{"noise in between", "2x\r", false, -1, 1},
		{"noise of an open line", "\x00\xff7\x003\xff\r", false, -1, 1},
		{"the answer itself, by a line that echoes", "help is no choice; type a number from 1 to 3, then Enter\r", false, -1, 0},
		{"after noise", "\xff\r3\n", false, 2, 1},
		{"arrows do nothing on a serial line", "\x1b[B\r", false, -1, 0},
		{"a long number", "000000000000000000001\r", false, -1, 0},
		{"arrow down", "\x1b[B\r", true, 1, 0},
		{"application keys", "\x1bOB\x1bOB\r", true, 2, 0},
		{"arrow up goes round", "\x1b[A\r", true, 2, 0},
		{"arrow down goes round", "\x1b[B\x1b[B\x1b[B\r", true, 0, 0},
		{"other sequences", "\x1b[C\x1bx\x1b[D\r", true, 0, 0},
		{"a number on a screen", "\x1b[B3\r", true, 2, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, answers := -1, 0
			k, m := keys{screen: c.screen}, threeThings(&got)
			for _, b := range []byte(c.typed) {
				p := k.take(b, m)
				if p.do != nil {
					p.do()
				}
				if p.wrong != "" {
					answers++
					if len(p.wrong) <= mostAnswered || !utf8.ValidString(p.wrong) {
						t.Errorf("%q would be answered again", p.wrong)
					}
				}
			}
			if got != c.want || answers != c.answers {
				t.Errorf("%q chose %d with %d answers; want %d, %d", c.typed, got, answers, c.want, c.answers)
			}
		})
	}
}

// TestEnter: a text is typed with its echo, corrected, bounded, and never holds a control character.
func TestEnter(t *testing.T) {
	var got string
	m := &menu{title: "type an address", enter: func(text string) (action, *menu) { got = text; return 0, nil }}
	var k keys
	var echo strings.Builder
	for _, b := range []byte("httx\x7fp://\x00\xffh/\x1b[Ai" + strings.Repeat("m", 2*mostText) + "\r") {
		p := k.take(b, m)
		echo.WriteString(p.echo)
		if p.do != nil {
			p.do()
		}
	}
	if !strings.HasPrefix(got, "http://h/im") || len(got) != mostText || !strings.HasPrefix(echo.String(), "httx\b \bp://h/im") {
		t.Errorf("%.40q of %d bytes, echo %.40q", got, len(got), echo.String())
	}
}

// recovery is the screen of a device whose slots do not boot.
func recovery(m *menu) *screen {
	s := &screen{
		about:  "demo   serial AG001   updater 0.2.0",
		more:   func() []string { return []string{"code 4711"} },
		status: Status{Slots: []string{"slot A         bad     2026.11.1", "slot B         bad     2026.11.2"}},
		menu:   m,
		now:    func() time.Time { return time.Date(2026, 11, 29, 1, 45, 0, 0, time.UTC) },
		heard:  func() []string { return []string{"192.168.7.20"} },
	}
	s.failed("update medium /dev/sda1: mounting its file system, which is damaged or of an unsupported type: invalid argument", "-> get it again")
	s.addLog([]byte("updater: recovery: trying https://"))
	s.addLog([]byte("host/image\nupdater: recovery: trying again in 5s; plug in a medium at any time\n"))
	return s
}

const onScreen = `Recovery of demo   serial AG001   updater 0.2.0
192.168.7.20   2026-11-29 01:45 UTC
code 4711
-------------------------------------------------------------------------------
slot A         bad     2026.11.1
slot B         bad     2026.11.2
no slot is bootable; install an update

tried:
  update medium /dev/sda1: mounting its file system, which is damaged or of an
  unsupported type: invalid argument
  -> get it again

what to do: arrow keys and Enter, or a number and Enter
> 1  one
  2  two
  3  three
9 is no choice

recovery: trying https://host/image
recovery: trying again in 5s; plug in a medium at any time
`

const onSerial = `Recovery of demo   serial AG001   updater 0.2.0
192.168.7.20   2026-11-29 01:45 UTC
code 4711
-------------------------------------------------------------------------------
slot A         bad     2026.11.1
slot B         bad     2026.11.2
no slot is bootable; install an update

tried:
  update medium /dev/sda1: mounting its file system, which is damaged or of an
  unsupported type: invalid argument
  -> get it again

updater: what to do: type a number, then Enter
  1  one
  2  two
  3  three
`

// TestScreen: a screen shows all of a recovery in its cells, drawn again without a trace of before; a serial line gets it as text that a log
// can hold.
func TestScreen(t *testing.T) {
	var chosen int
	s := recovery(threeThings(&chosen))
	var serial bytes.Buffer
	s.print(&serial)
	if got := serial.String(); got != onSerial {
		t.Errorf("a serial line gets\n%s\nwant\n%s", got, onSerial)
	}
	vt := terminaltest.New(80, 25)
	s.addLog([]byte(strings.Repeat("updater: an old line\n", 40)))
	s.draw(vt)
	s = recovery(s.menu)
	s.note = "9 is no choice"
	s.draw(vt)
	if got := vt.Text(); got != onScreen || len(vt.Unknown) > 0 {
		t.Errorf("a screen shows, with unknown sequences %q,\n%s\nwant\n%s", vt.Unknown, got, onScreen)
	}
	for _, size := range [][2]int{{40, 12}, {20, 8}, {80, 5}, {200, 60}} { // the menu stays whatever was tried
		vt := terminaltest.New(size[0], size[1])
		s.draw(vt)
		s.draw(vt)
		got := vt.Text()
		if n := strings.Count(got, "\n"); n > size[1] || strings.Count(got, "Recovery of") != 1 || size[1] > 5 && !strings.Contains(got, "> 1  one\n") {
			t.Errorf("%v: %d lines\n%s", size, n, got)
		}
	}
}
