package initramfs

import (
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Console is the set of active kernel consoles, screens and serial lines alike. Safe for concurrent use.
type Console struct {
	mu       sync.Mutex
	lines    []*line
	fallback io.Writer
	view     screen // of a recovery
	shown    bool   // screens show the view, not the log
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
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.lines) == 0 {
		return c.fallback.Write(p)
	}
	c.view.addLog(p)
	for _, l := range c.lines {
		if c.shown && l.keys.screen {
			c.view.draw(l.f)
		} else {
			_, _ = l.f.Write(p)
		}
	}
	return len(p), nil
}

// change changes the content of the view.
func (c *Console) change(do func(s *screen)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	do(&c.view)
}

// show shows a menu on every console, nil for none, and discards pending input.
func (c *Console) show(m *menu) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shown, c.view.menu, c.view.note = true, m, ""
	for _, l := range c.lines {
		l.keys.typed, l.keys.escape = nil, nil
		for len(l.input) > 0 {
			<-l.input
		}
		if l.keys.screen {
			c.view.draw(l.f)
		} else if m != nil {
			c.view.print(l.f)
		}
	}
}

// refresh draws the screens again, whose clock goes on.
func (c *Console) refresh() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.lines {
		if l.keys.screen && c.shown {
			c.view.draw(l.f)
		}
	}
}

// pressed handles pending input and returns the chosen entry, or nil. It does not block. typed reports whether a text is being entered.
func (c *Console) pressed() (do choice, typed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.view.menu
	for _, l := range c.lines {
		for len(l.input) > 0 {
			p := l.keys.take(<-l.input, m)
			typed = typed || m.enter != nil
			if p.wrong != "" {
				c.view.note = p.wrong
				if !l.keys.screen {
					p.echo = "updater: " + p.wrong + "\n"
				}
			}
			switch {
			case !l.keys.screen:
				_, _ = io.WriteString(l.f, p.echo)
			case p.changed, p.wrong != "":
				c.view.draw(l.f)
			}
			if p.do != nil {
				return p.do, typed
			}
		}
	}
	return nil, typed
}
