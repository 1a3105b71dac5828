package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"updater/internal/printable"
	"updater/provision/board"
	"updater/provision/line"
	"updater/provision/record"
)

// provisionView shows a run: tiles on a terminal, lines elsewhere.
type provisionView struct {
	out    io.Writer
	board  *board.Board
	screen *live // nil for lines
	ended  chan struct{}
	done   sync.WaitGroup

	mu   sync.Mutex
	last map[string]int64 // tenth of the step that was printed, by unit
}

// The other screen of a terminal, and back (xterm's control sequences; the Linux console ignores them).
const (
	enterScreen = "\x1b[?1049h\x1b[2J\x1b[H"
	leaveScreen = "\x1b[?1049l"
)

// newProvisionView shows a run: on a terminal over the whole screen, unless plain is set.
func newProvisionView(env Env, board *board.Board, plain bool) *provisionView {
	v := &provisionView{out: env.Stderr, board: board, ended: make(chan struct{}), last: map[string]int64{}}
	if !plain && isTerminal(env.Stderr) && os.Getenv("TERM") != "dumb" {
		fmt.Fprint(direct(v.out), enterScreen)
		v.screen = &live{w: v.out}
		v.done.Go(v.redraw)
		return v
	}
	board.OnStep = v.line
	v.done.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				v.progress()
			case <-v.ended:
				return
			}
		}
	})
	return v
}

// redraw draws one tile for each unit, and the line of totals below, until the end.
func (v *provisionView) redraw() {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		tiles := v.board.Tiles()
		var lines []string
		for _, t := range tiles {
			lines = append(lines, tileLines(t, time.Now(), terminalWidth(v.out))...)
		}
		v.screen.draw(append(lines, totals(tiles))...)
		select {
		case <-tick.C:
		case <-v.ended:
			return
		}
	}
}

// stop ends the display and restores the screen.
func (v *provisionView) stop() {
	close(v.ended)
	v.done.Wait()
	if v.screen != nil {
		fmt.Fprint(direct(v.out), leaveScreen)
	}
}

// line prints the start of a step, or the verdict.
func (v *provisionView) line(t board.Tile) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.last[t.Name] = 0
	switch {
	case t.Verdict != "" && t.Error != "":
		printable.Fprintf(v.out, "updater: %s: %s: %s\n", t.Name, verdictWord(t.Verdict), t.Error)
	case t.Verdict != "":
		printable.Fprintf(v.out, "updater: %s: %s\n", t.Name, verdictWord(t.Verdict))
	default:
		printable.Fprintf(v.out, "updater: %s: %s\n", t.Name, stepWord(t.Step))
	}
}

// progress prints a line per tenth of each step.
func (v *provisionView) progress() {
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

func verdictWord(v record.Verdict) string { return strings.ToUpper(string(v)) }

func resultLine(r line.Result) string {
	line := r.Name + ": " + verdictWord(r.Verdict)
	if r.Serial != "" {
		line += ", serial " + r.Serial
	}
	if r.Record > 0 {
		line += fmt.Sprintf(", record %d", r.Record)
	}
	if r.Error != "" {
		line += ": " + r.Error
	}
	return line
}

// tileLines draws a unit: its name, its state, a bar, and its error.
func tileLines(t board.Tile, now time.Time, width int) []string {
	green, red, bold, off := "\x1b[1;30;42m", "\x1b[1;37;41m", "\x1b[1m", "\x1b[0m"
	if os.Getenv("NO_COLOR") != "" { // no-color.org
		green, red, bold, off = "", "", "", ""
	}
	word, color := stepWord(t.Step), bold
	switch t.Verdict {
	case record.Pass:
		word, color = verdictWord(t.Verdict), green
	case record.Fail, record.Quarantine, record.Refused:
		word, color = verdictWord(t.Verdict), red
	}
	lines := []string{
		bold + cut(t.Name, width) + off,
		cut("  "+strings.TrimSpace(t.Disk+"  "+t.Serial), width),
		"  " + color + " " + cut(word, width-4) + " " + off,
		"", "",
	}
	switch {
	case t.Error != "":
		lines[3] = cut("  "+t.Error, width)
	case t.Verdict == "" && t.Total > 0:
		w := max(min(width-4, 60), 1)
		done := int(float64(w) * float64(min(t.Done, t.Total)) / float64(t.Total))
		lines[3] = "  " + strings.Repeat("#", done) + strings.Repeat("-", w-done)
		lines[4] = cut("  "+speed(t, now), width)
	}
	return lines
}

func totals(tiles []board.Tile) string {
	counts := map[record.Verdict]int{}
	for _, t := range tiles {
		counts[t.Verdict]++
	}
	return fmt.Sprintf("%d working  %d PASS  %d FAIL  %d QUARANTINE  %d REFUSED",
		counts[""], counts[record.Pass], counts[record.Fail], counts[record.Quarantine], counts[record.Refused])
}

// cut makes text from the hardware fit for a terminal, and limits the width.
func cut(text string, width int) string {
	runes := []rune(printable.Line(text))
	return string(runes[:min(len(runes), max(width, 0))])
}

// speed is the progress, the rate and the remaining time of a step.
func speed(t board.Tile, now time.Time) string {
	seconds := now.Sub(t.Began).Seconds()
	if seconds < 0.5 || t.Done == 0 {
		return ""
	}
	rate := float64(t.Done) / seconds
	left := time.Duration(float64(t.Total-t.Done) / rate * float64(time.Second)).Round(time.Second)
	return fmt.Sprintf("%d%%  %.1f MB/s  %s left", t.Done*100/t.Total, rate/1e6, left)
}
