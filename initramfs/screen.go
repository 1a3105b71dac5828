package initramfs

import (
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"updater/internal/printable"
	"updater/internal/terminal"
)

// screen is the view of a recovery: the device, its slots, the failed tries with their reasons, the menu, and on screens the last lines of
// the log.
type screen struct {
	about  string // product, serial and version
	more   func() []string
	status Status
	tried  []string
	menu   *menu // nil while an update is being looked for
	note   string
	log    []string // the last lines
	piece  string   // of the line that has not ended

	now   func() time.Time // replaced in tests
	heard func() []string  // addresses; replaced in tests
}

// keptLog and keptTried bound the kept lines of the log and of the errors.
const (
	keptLog   = 50
	keptTried = 8
)

// addLog keeps lines of the log, which may come in pieces.
func (s *screen) addLog(text []byte) {
	s.piece += string(text)
	for {
		line, rest, whole := strings.Cut(s.piece, "\n")
		if !whole {
			break
		}
		s.log, s.piece = append(s.log, strings.TrimPrefix(line, "updater: ")), rest
	}
	s.piece = s.piece[max(0, len(s.piece)-maxLine):]
	s.log = s.log[max(0, len(s.log)-keptLog):]
}

// failed keeps why something failed, with its hint.
func (s *screen) failed(words ...string) {
	s.tried = append(s.tried, words...)
	s.tried = s.tried[max(0, len(s.tried)-keptTried):]
}

// head is the header: the device, its addresses and its clock.
func (s *screen) head() []string {
	now, heard := time.Now, addresses
	if s.now != nil {
		now, heard = s.now, s.heard
	}
	lines := []string{"Recovery of " + s.about, strings.Join(append(heard(), now().UTC().Format("2006-01-02 15:04 UTC")), "   ")}
	if s.more != nil {
		lines = append(lines, s.more()...)
	}
	return lines
}

// addresses lists those that others can reach.
func addresses() []string {
	var list []string
	all, _ := net.InterfaceAddrs()
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && len(list) < 4 {
			list = append(list, n.IP.String())
		}
	}
	if len(list) == 0 {
		return []string{"no network"}
	}
	return list
}

// facts are the header, the slots and the failed tries, each line at most width cells.
func (s *screen) facts(width int) []string {
	lines := append(s.head(), strings.Repeat("-", width))
	lines = append(lines, s.status.Slots...)
	switch {
	case len(s.status.Slots) == 0:
		lines = append(lines, "the boot state cannot be read")
	case s.status.Bootable:
		lines = append(lines, "a slot is bootable; a restart boots it")
	default:
		lines = append(lines, "no slot is bootable; install an update")
	}
	for i, words := range s.tried {
		if i == 0 {
			lines = append(lines, "", "tried:")
		}
		lines = append(lines, wrap("  ", printable.Line(words), width, 3)...)
	}
	return lines
}

// wrap breaks a text into at most so many lines of width cells, indented.
func wrap(indent, text string, width, most int) []string {
	var lines []string
	room := max(width-len(indent), 1)
	for runes := []rune(text); len(runes) > 0 && len(lines) < most; {
		n := min(room, len(runes))
		if at := strings.LastIndexByte(string(runes[:n]), ' '); n < len(runes) && at > 0 {
			n = len([]rune(string(runes[:n])[:at])) + 1
		}
		lines = append(lines, indent+strings.TrimSpace(string(runes[:n])))
		runes = runes[n:]
	}
	return lines
}

// print writes the screen for a serial line: text without escape sequences, which a log can hold.
func (s *screen) print(w io.Writer) {
	for _, line := range append(s.facts(79), "") {
		fmt.Fprintln(w, line)
	}
	s.menu.print(w)
}

// draw writes the screen in place (console_codes(4)). The log has the lines that are left over.
func (s *screen) draw(w io.Writer) {
	width, height := terminal.Size(w)
	lines := s.frame(width-1, height-1)
	for i, line := range lines {
		lines[i] = terminal.Clip(line, width-1) + "\x1b[K"
	}
	_, _ = io.WriteString(w, "\x1b[H"+strings.Join(lines, "\n")+"\x1b[J")
}

// frame lays the screen out: facts, then the menu and the answer to the last input, then the log.
func (s *screen) frame(width, height int) []string {
	lines := s.facts(width)
	lines[0] = terminal.Paint(terminal.Bold, lines[0], 0)
	var below []string
	if s.menu != nil {
		below = append([]string{""}, s.menu.draw()...)
		if s.note != "" {
			below = append(below, s.note)
		}
	}
	if room := height - len(below); len(lines) > room { // the menu is never cut by the failed tries
		lines = lines[:max(room, 1)]
	}
	lines = append(lines, below...)
	if room := height - len(lines) - 1; room > 0 {
		log := s.log[max(0, len(s.log)-room):]
		lines = append(append(lines, ""), log...)
	}
	return lines[:min(len(lines), height)]
}
