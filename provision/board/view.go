package board

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"updater/internal/printable"
	"updater/internal/terminal"
	"updater/provision/record"
)

// View shows a board to an operator: tiles over the whole screen of a terminal, lines elsewhere.
type View struct {
	out    io.Writer
	board  *Board
	keys   *os.File // of the operator; nil without one
	quit   func()
	screen atomic.Bool // tiles are shown
	ended  chan struct{}
	done   sync.WaitGroup

	mu      sync.Mutex
	last    map[string]int64 // tenth of the step that was printed, by unit
	size    [2]int           // of the screen at the last frame
	ask     string           // question that the next key answers: "" (none), "quit" or "again"
	answer  chan bool        // to "again"
	restore func()
}

// Options say how a board is shown.
type Options struct {
	Out   io.Writer
	Keys  io.Reader // keys are read from it if it is a terminal; may be nil
	Plain bool      // lines, also on a terminal
	Quit  func()    // the operator ends the run
}

// The other screen of a terminal without a cursor, and back (xterm's control sequences; the Linux console ignores those of the screen).
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[2J"
	leaveScreen = "\x1b[?25h\x1b[?1049l"
)

// refresh is how often a view is drawn, and its keys are read.
const refresh = 200 * time.Millisecond

// Show begins to show a board, whose run has not begun yet.
func Show(b *Board, o Options) *View {
	v := &View{out: o.Out, board: b, quit: o.Quit, ended: make(chan struct{}), last: map[string]int64{}, answer: make(chan bool, 1), restore: func() {}}
	b.OnStep = v.line
	if !o.Plain && terminal.Is(v.out) {
		v.screen.Store(true)
		v.raw(o.Keys)
		v.write(enterScreen)
	}
	v.done.Go(func() {
		tick := time.NewTicker(refresh)
		defer tick.Stop()
		for {
			v.show()
			select {
			case <-tick.C:
			case <-v.ended:
				return
			}
		}
	})
	return v
}

// Stop ends the view and restores the screen.
func (v *View) Stop() {
	close(v.ended)
	v.done.Wait()
	v.leave()
}

// Again asks the operator whether the targets that did not pass run once more. It is false where nobody can be asked.
func (v *View) Again(cancelled <-chan struct{}) bool {
	if !v.screen.Load() || v.keys == nil {
		return false
	}
	v.mu.Lock()
	v.ask = "again"
	v.mu.Unlock()
	select {
	case yes := <-v.answer:
		return yes
	case <-cancelled:
		return false
	}
}

// raw makes single keys arrive, without echo. Signals of the terminal stay.
func (v *View) raw(r io.Reader) {
	f, ok := r.(*os.File)
	if !ok {
		return
	}
	before, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return
	}
	v.keys = f
	t := *before
	t.Lflag &^= unix.ICANON | unix.ECHO
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	_ = unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, &t)
	v.restore = func() { _ = unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, before) }
}

func (v *View) write(s string) { _, _ = io.WriteString(terminal.Direct(v.out), s) }

// leave restores the screen as it was; the later output is lines.
func (v *View) leave() {
	if v.screen.Swap(false) {
		v.write(leaveScreen)
		v.restore()
	}
}

func (v *View) show() {
	if !v.screen.Load() {
		v.progress()
		return
	}
	v.read()
	if !v.screen.Load() {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	width, height := terminal.Size(v.out)
	begin := "\x1b[H"
	if size := [2]int{width, height}; size != v.size {
		v.size, begin = size, "\x1b[H\x1b[2J"
	}
	lines := frame(v.board.Tiles(), time.Now(), width, height-1)
	lines = append(lines, v.footer())
	for i, l := range lines {
		lines[i] = terminal.Clip(l, width-1) + "\x1b[K"
	}
	v.write(begin + strings.Join(lines, "\r\n") + "\x1b[J")
}

func (v *View) footer() string {
	switch {
	case v.keys == nil:
		return "Ctrl-C  quit"
	case v.ask == "quit":
		return "stop every target, half written?  y  stop   any other key  go on"
	case v.ask == "again":
		return "r  retry what did not pass   q  quit"
	}
	return "d  detach: go on in lines   q  quit"
}

// read handles the keys that were pressed.
func (v *View) read() {
	if v.keys == nil {
		return
	}
	fds := []unix.PollFd{{Fd: int32(v.keys.Fd()), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 0); n <= 0 || err != nil {
		return
	}
	buf := make([]byte, 16)
	n, _ := unix.Read(int(v.keys.Fd()), buf)
	for _, key := range buf[:max(n, 0)] {
		v.press(key)
	}
}

func (v *View) press(key byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	ask := v.ask
	switch {
	case ask == "quit":
		v.ask = ""
		if key == 'y' {
			v.quit()
		}
	case ask == "again" && (key == 'r' || key == 'q'):
		v.ask = ""
		v.answer <- key == 'r'
	case ask == "" && key == 'q':
		v.ask = "quit"
	case ask == "" && key == 'd':
		v.leave()
	}
}

// line prints the start of a step, or the verdict.
func (v *View) line(t Tile) {
	if v.screen.Load() {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.last[t.Name] = 0
	words := stepWord(t.Step)
	if t.Verdict != "" {
		words = Word(t.Verdict)
	}
	if t.Verdict != "" && t.Error != "" {
		words += ": " + t.Error
	}
	printable.Fprintf(v.out, "updater: %s: %s\n", t.Name, words)
}

// progress prints a line per tenth of each step.
func (v *View) progress() {
	for _, t := range v.board.Tiles() {
		if t.Total == 0 || t.Verdict != "" {
			continue
		}
		tenth := t.Done * 10 / t.Total
		v.mu.Lock()
		if tenth > v.last[t.Name] && tenth < 10 {
			v.last[t.Name] = tenth
			printable.Fprintf(v.out, "updater: %s: %s %d%%\n", t.Name, stepWord(t.Step), tenth*10)
		}
		v.mu.Unlock()
	}
}

// stepWords are the steps of a unit, as they are shown to people.
var stepWords = map[string]string{
	"prepare": "checking the disk", "table": "writing the partition table", "write": "writing", "repair": "repairing",
	"flush": "flushing the device", "readback": "reading back", "filesystem": "making file systems", "identity": "identity",
	"kernel": "partitions and boot state", "latch": "latching", "check": "comparing", "waiting": "waiting",
}

func stepWord(step string) string { return cmp.Or(stepWords[step], step) }

// Word is a verdict as it is shown to people.
func Word(v record.Verdict) string { return strings.ToUpper(string(v)) }

// A tile has a fixed place, of so many cells and lines; one line where the screen is too low for all.
const (
	tileCells = 38
	tileLines = 4
)

// frame draws every tile at its place, and the totals in the last line. It has at most height lines.
func frame(tiles []Tile, now time.Time, width, height int) []string {
	columns := max(1, (width+1)/(tileCells+2))
	cells := max(1, (width+1)/columns-2)
	rows := (len(tiles) + columns - 1) / columns
	draw := func(t Tile) []string { return append(tileText(t, now, cells), "") }
	if rows*(tileLines+1) >= height {
		draw = func(t Tile) []string { return []string{oneLine(t, cells)} }
	}
	var lines []string
	shown := 0
	for row := range slices.Chunk(tiles, columns) {
		var texts [][]string
		for _, t := range row {
			texts = append(texts, draw(t))
		}
		if len(lines)+len(texts[0]) >= height {
			break
		}
		shown += len(row)
		for i := range texts[0] {
			var line strings.Builder
			for _, text := range texts {
				line.WriteString(text[i] + strings.Repeat(" ", max(0, cells-terminal.Cells(text[i]))) + "  ")
			}
			lines = append(lines, strings.TrimRight(line.String(), " "))
		}
	}
	last := Totals(tiles)
	if more := len(tiles) - shown; more > 0 {
		last = fmt.Sprintf("%d more do not fit  ", more) + last
	}
	return append(lines, last)
}

// paint colours a verdict, for people who look from afar.
func paint(v record.Verdict, text string, cells int) string {
	switch {
	case os.Getenv("NO_COLOR") != "" || v == "":
		return text
	case v == record.Pass:
		return terminal.Paint("\x1b[1;30;42m", text, cells)
	}
	return terminal.Paint("\x1b[1;37;41m", text, cells)
}

func word(t Tile) string {
	if t.Verdict != "" {
		return Word(t.Verdict)
	}
	return stepWord(t.Step)
}

// tileText draws a unit: its name and disk, its state, and its bar or its error.
func tileText(t Tile, now time.Time, cells int) []string {
	bar := terminal.Bar{Done: t.Done, Total: t.Total}.At(now.Sub(t.Began))
	lines := []string{cut(strings.TrimSpace(t.Name+"  "+t.Disk+"  "+t.Serial), cells), paint(t.Verdict, cut(word(t), cells), cells), "", ""}
	switch {
	case t.Error != "":
		lines[2] = cut(t.Error, cells)
		if runes := []rune(t.Error); len(runes) > cells {
			lines[3] = cut(string(runes[cells:]), cells)
		}
	case t.Verdict == "" && t.Total > 0:
		lines[2] = cut(fmt.Sprintf("[%s] %3d%%", terminal.Meter(t.Done, t.Total, max(cells-7, 1)), bar.Percent()), cells)
		lines[3] = cut(bar.Speed(), cells)
	}
	return lines
}

// oneLine draws a unit on one line.
func oneLine(t Tile, cells int) string {
	text := fmt.Sprintf("%-12s %s", cut(t.Name, 12), word(t))
	if t.Verdict == "" && t.Total > 0 {
		text += fmt.Sprintf(" %d%%", terminal.Bar{Done: t.Done, Total: t.Total}.Percent())
	}
	if t.Error != "" {
		text += ": " + t.Error
	}
	return paint(t.Verdict, cut(text, cells), cells)
}

// Totals counts the units by verdict.
func Totals(tiles []Tile) string {
	counts := map[record.Verdict]int{}
	for _, t := range tiles {
		counts[t.Verdict]++
	}
	words := []string{}
	if n := counts[""]; n > 0 {
		words = append(words, fmt.Sprintf("%d working", n))
	}
	for _, v := range []record.Verdict{record.Pass, record.Fail, record.Quarantine, record.Refused} {
		if n := counts[v]; n > 0 || v == record.Pass {
			words = append(words, fmt.Sprintf("%d %s", n, Word(v)))
		}
	}
	return strings.Join(words, "  ")
}

// cut makes text from the hardware fit for a terminal, and limits the width.
func cut(text string, cells int) string {
	return terminal.Clip(printable.Line(text), cells)
}
