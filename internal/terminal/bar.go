package terminal

import (
	"fmt"
	"strings"
	"time"
)

// Bar is work of a known amount.
type Bar struct {
	Label       string
	Done, Total int64         // bytes
	Rate        int64         // bytes a second; 0 is unknown
	Left        time.Duration // to the end; 0 is unknown
	Took        time.Duration // until the end; 0 while it lasts
}

// At returns the bar with its rate and remaining time after some time of work. The first second gives none.
func (b Bar) At(spent time.Duration) Bar {
	if b.Done > 0 && spent >= time.Second {
		b.Rate = int64(float64(b.Done) / spent.Seconds())
		b.Left = time.Duration(float64(spent) * float64(b.Total-b.Done) / float64(b.Done)).Round(time.Second)
	}
	return b
}

// Percent is the work done, from 0 to 100.
func (b Bar) Percent() int64 {
	if b.Total <= 0 {
		return 0
	}
	return int64(100 * (float64(min(b.Done, b.Total)) / float64(b.Total)))
}

// The cells of a label, and the least and most of the bar itself.
const (
	labelCells = 20
	leastBar   = 6
	mostBar    = 40
)

// Line draws the bar in at most width cells. A narrow line leaves out first the amount, then the rate, then the bar, then the remaining
// time; label and percentage stay. The layout does not depend on the work done.
func (b Bar) Line(width int) string {
	fields := []struct {
		text  string
		cells int
	}{{b.end(), 14}, {perSecond(b.Rate), 14}, {Bytes(b.Done) + " of " + Bytes(b.Total), 22}} // the most important first
	line := b.Label
	if width >= 60 {
		line = fmt.Sprintf("%-*s", labelCells, line)
	}
	room := width - Cells(line) - len(" 100%")
	shown, bar := len(fields), room-len(" []")
	for _, f := range fields {
		bar -= f.cells
	}
	for shown > 1 && bar < leastBar {
		shown--
		bar += fields[shown].cells
	}
	if room < fields[0].cells {
		shown = 0
	}
	if bar >= leastBar {
		line += " [" + Meter(b.Done, b.Total, min(bar, mostBar)) + "]"
	}
	line += fmt.Sprintf(" %3d%%", b.Percent())
	for shown--; shown >= 0; shown-- {
		line += fmt.Sprintf("  %-*s", fields[shown].cells-2, fields[shown].text)
	}
	return strings.TrimRight(line, " ")
}

// Speed is the rate and the remaining time, "" while they are unknown.
func (b Bar) Speed() string { return strings.TrimSpace(perSecond(b.Rate) + "  " + b.end()) }

func (b Bar) end() string {
	switch {
	case b.Took > 0:
		return fmt.Sprintf("in %.1f s", b.Took.Seconds())
	case b.Left > 0:
		return b.Left.String() + " left"
	}
	return ""
}

func perSecond(rate int64) string {
	if rate <= 0 {
		return ""
	}
	return Bytes(rate) + "/s"
}

// Meter is the bar alone, with a width in cells.
func Meter(done, total int64, cells int) string {
	full := 0
	if total > 0 {
		full = int(float64(cells) * (float64(min(done, total)) / float64(total)))
	}
	return strings.Repeat("#", full) + strings.Repeat("-", cells-full)
}

// Bytes formats a size in the largest binary unit that keeps the number at 1 or more.
func Bytes(n int64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	v, u := float64(n), 0
	for v >= 1024 && u < len(units)-1 {
		v, u = v/1024, u+1
	}
	if u == 0 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[u])
}
