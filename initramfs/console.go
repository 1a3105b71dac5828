package initramfs

import (
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Console is the set of active kernel consoles, screens and serial lines alike. It is not safe for concurrent use.
type Console struct {
	lines    []*line
	fallback io.Writer
}

// line is one console. Its reading goroutine runs until the process ends.
type line struct {
	f     *os.File
	keys  keys
	input chan byte
}

// OpenConsole opens the consoles the kernel writes to. It skips those it cannot open; if none is left, output goes to
// fallback.
func OpenConsole(fallback io.Writer) *Console {
	c := &Console{fallback: fallback}
	active, err := os.ReadFile("/sys/class/tty/console/active")
	if err != nil {
		return c
	}
	for name := range strings.FieldsSeq(string(active)) {
		f, err := os.OpenFile("/dev/"+name, os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			continue
		}
		_, serial := strings.CutPrefix(name, "ttyS")
		l := &line{f: f, input: make(chan byte, 64)}
		l.keys.screen = !serial && strings.Trim(strings.TrimPrefix(name, "tty"), "0123456789") == ""
		l.raw()
		go l.read()
		c.lines = append(c.lines, l)
	}
	return c
}

// raw makes keys arrive at once and without echo. Output processing is unchanged.
func (l *line) raw() {
	t, err := unix.IoctlGetTermios(int(l.f.Fd()), unix.TCGETS)
	if err != nil {
		return
	}
	t.Lflag &^= unix.ICANON | unix.ECHO | unix.ISIG
	t.Iflag &^= unix.ICRNL | unix.IXON
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	_ = unix.IoctlSetTermios(int(l.f.Fd()), unix.TCSETS, t)
}

func (l *line) read() {
	buf := make([]byte, 16)
	for {
		n, err := l.f.Read(buf)
		for _, b := range buf[:n] {
			select {
			case l.input <- b:
			default: // the menu does not read while an update is being installed
			}
		}
		if err != nil {
			return
		}
	}
}

// Write implements io.Writer. It writes to every console and ignores consoles that fail.
func (c *Console) Write(p []byte) (int, error) {
	if len(c.lines) == 0 {
		return c.fallback.Write(p)
	}
	for _, l := range c.lines {
		_, _ = l.f.Write(p)
	}
	return len(p), nil
}

// show prints the menu on every console and discards pending input.
func (c *Console) show(m *menu) {
	for _, l := range c.lines {
		l.keys.number, l.keys.escape = nil, nil
		for len(l.input) > 0 {
			<-l.input
		}
		if l.keys.screen {
			m.draw(l.f, false)
		} else {
			m.print(l.f)
		}
	}
}

// pressed handles pending input and returns the chosen entry, or nil. It does not block.
func (c *Console) pressed(m *menu) func() (action, *menu) {
	for _, l := range c.lines {
		for len(l.input) > 0 {
			moved, chosen := l.keys.take(<-l.input, m)
			if moved {
				m.draw(l.f, true)
			}
			if chosen >= 0 {
				return m.do[chosen]
			}
		}
	}
	return nil
}
