package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// When is [when]: when an update by a channel may begin. A person may always start one.
type When struct {
	Windows []Window `toml:"windows"` // of local time; empty is always
	Mains   bool     `toml:"mains"`   // not while the machine runs on a battery
	Inhibit []string `toml:"inhibit"` // not while one of these files exists
}

// Window is a part of a week, such as "22:30-05:00" or "Mon-Fri,Sun 01:00-04:00". One that passes midnight belongs to the day on which it begins.
type Window struct {
	days     [7]bool // from Sunday
	from, to int     // minutes of the day
}

// UnmarshalText parses it.
func (w *Window) UnmarshalText(text []byte) error {
	days, times, both := strings.Cut(string(text), " ")
	if !both {
		days, times = "Sun-Sat", days
	}
	err := w.parseDays(days)
	from, to, ok := strings.Cut(times, "-")
	begin, err1 := time.Parse("15:04", from)
	end, err2 := time.Parse("15:04", to)
	w.from, w.to = begin.Hour()*60+begin.Minute(), end.Hour()*60+end.Minute()
	if !ok || errors.Join(err, err1, err2) != nil || w.from == w.to {
		return fmt.Errorf("%q is not a window such as 22:30-05:00 or Mon-Fri,Sun 01:00-04:00", text)
	}
	return nil
}

func (w *Window) parseDays(list string) error {
	names := []string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}
	for item := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(item, "-")
		if !isRange {
			last = first
		}
		i, j := slices.Index(names, first), slices.Index(names, last)
		if i < 0 || j < 0 {
			return fmt.Errorf("unknown day in %q", item)
		}
		for ; ; i = (i + 1) % 7 {
			if w.days[i] = true; i == j {
				break
			}
		}
	}
	return nil
}

// Open reports whether a moment is in the window, by its own time zone.
func (w *Window) Open(t time.Time) bool {
	minute, day := t.Hour()*60+t.Minute(), int(t.Weekday())
	if w.from < w.to {
		return w.days[day] && w.from <= minute && minute < w.to
	}
	return w.days[day] && minute >= w.from || w.days[(day+6)%7] && minute < w.to
}

func (w *When) check() error {
	for _, path := range w.Inhibit {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("when.inhibit has %q, expected an absolute path", path)
		}
	}
	return nil
}
