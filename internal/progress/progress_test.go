package progress

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"updater/internal/terminal/terminaltest"
	"updater/update"
)

// job reports an install of two images to a screen, and calls at halfway through the writing of the first one.
func job(r *Events, halfway func()) {
	r.phase(update.PhaseCheck, 0, update.Share{})
	app := update.Share{Role: "app", All: 48 << 20}
	rootfs := update.Share{Role: "rootfs", Before: 16 << 20, All: 48 << 20}
	for _, of := range []update.Share{app, rootfs} {
		total := int64(16 << 20)
		if of.Before > 0 {
			total = 32 << 20
		}
		for _, phase := range []update.Phase{update.PhaseWrite, update.PhaseFlush, update.PhaseReadBack} {
			if phase == update.PhaseFlush {
				r.phase(phase, 0, of)
				continue
			}
			r.phase(phase, total, of)
			for done := total / 8; done < total; done += total / 8 { // the last eighth is never sampled
				time.Sleep(2 * time.Second)
				r.sample(phase, done, total)
				if halfway != nil && phase == update.PhaseWrite && of == app && done == total/2 {
					halfway()
				}
			}
			time.Sleep(2 * time.Second)
		}
	}
	r.phase(update.PhaseSwitch, 0, update.Share{})
	r.phase("", 0, update.Share{})
}

// TestBars: at every width the bars end at 100 %, each on one line, without remains of an earlier state; in the middle they show the current
// image and all of them.
func TestBars(t *testing.T) {
	for _, c := range []struct {
		columns int
		middle  string
		end     string
	}{
		{40, "writing app [###---]  50%  8s left\nall images [#------]  16%  40s left\n", `
updater: checking the signature
writing app [######] 100%  in 16.0 s
updater: flushing the device app
reading back app 100%  in 16.0 s
updater: flushing the device rootfs
`}, {80, `
writing app          [###########------------]  50%  1.0 MiB/s     8s left
all images           [###--------------------]  16%  1.0 MiB/s     40s left
`, `
writing app          [#######################] 100%  1.0 MiB/s     in 16.0 s
updater: flushing the device app
reading back app     [#######################] 100%  1.0 MiB/s     in 16.0 s
writing rootfs       [#######################] 100%  2.0 MiB/s     in 16.0 s
updater: flushing the device rootfs
reading back rootfs  [#######################] 100%  2.0 MiB/s     in 16.0 s
updater: switching the boot slot
`}, {200, "writing app          [####################--------------------]  50%  8.0 MiB of 16.0 MiB   1.0 MiB/s     8s left\n", `
writing rootfs       [########################################] 100%  32.0 MiB of 32.0 MiB  2.0 MiB/s     in 16.0 s
`},
	} {
		t.Run(fmt.Sprint(c.columns), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				screen := terminaltest.New(c.columns, 24)
				r := &Events{Sinks: []Sink{ForPeople(screen, Style{}, false)}}
				job(r, func() {
					if got := screen.Text(); !strings.Contains(got, strings.TrimPrefix(c.middle, "\n")) {
						t.Errorf("in the middle:\n%swant\n%s", got, c.middle)
					}
				})
				got := screen.Text()
				for want := range strings.Lines(strings.TrimPrefix(c.end, "\n")) {
					if strings.Count(got, want) != 1 {
						t.Errorf("%q stands %d times in\n%s", want, strings.Count(got, want), got)
					}
				}
				if n := strings.Count(got, "\n"); n != 8 || strings.Contains(got, "left") || strings.Contains(got, "all images") || len(screen.Unknown) > 0 {
					t.Errorf("%d lines, unknown sequences %q:\n%s", n, screen.Unknown, got)
				}
			})
		})
	}
}

// TestBarsAside: a resize, a warning and an echoed ^C in the middle leave neither a second bar nor a piece of one.
func TestBarsAside(t *testing.T) {
	for name, halfway := range map[string]func(*terminaltest.Screen, *Events){
		"narrower": func(s *terminaltest.Screen, _ *Events) { s.Resize(40, 24) },
		"wider":    func(s *terminaltest.Screen, _ *Events) { s.Resize(200, 24) },
		"^C":       func(s *terminaltest.Screen, _ *Events) { fmt.Fprint(s, "^C") },
		"warning":  func(_ *terminaltest.Screen, r *Events) { r.Warn("the clock was set") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				screen := terminaltest.New(80, 24)
				r := &Events{Sinks: []Sink{ForPeople(screen, Style{}, false)}}
				job(r, func() { halfway(screen, r) })
				got := screen.Text()
				want := 8
				if name == "warning" {
					want = 9
				}
				if strings.Count(got, "writing app ") != 1 || strings.Count(got, "100%") != 4 || strings.Count(got, "\n") != want || strings.Contains(got, "^C") {
					t.Errorf("the screen is\n%s", got)
				}
			})
		})
	}
}

// TestBarOfFailure: the bar of a phase that fails stays where it was.
func TestBarOfFailure(t *testing.T) {
	screen := terminaltest.New(80, 24)
	r := &Events{Sinks: []Sink{ForPeople(screen, Style{}, false)}}
	r.phase(update.PhaseWrite, 100, update.Share{})
	r.sample(update.PhaseWrite, 61, 100)
	r.phase("", 0, update.Share{})
	if got := screen.Text(); !strings.Contains(got, " 61%") || strings.Contains(got, "100%") {
		t.Errorf("the screen is\n%s", got)
	}
}

// TestPlainProgress: a line for every five percent that are done or every ten seconds, and no more.
func TestPlainProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var errs bytes.Buffer
		r := &Events{Sinks: []Sink{ForPeople(&errs, Style{}, false)}}
		r.phase(update.PhaseWrite, 1000, update.Share{})
		for done := range int64(101) { // one per mille every second
			r.sample(update.PhaseWrite, done, 1000)
			time.Sleep(time.Second)
		}
		r.phase(update.PhaseReadBack, 1000, update.Share{})
		for done := range int64(1001) {
			r.sample(update.PhaseReadBack, done, 1000)
		}
		writing, reading := strings.Count(errs.String(), "writing "), strings.Count(errs.String(), "reading back ")
		if writing < 10 || writing > 12 || reading != 20 || !strings.Contains(errs.String(), "writing 10% (100 bytes, 1 bytes/s, 15m0s left)") {
			t.Errorf("%d lines in 100 s, %d lines for 100 %%:\n%s", writing, reading, errs.String())
		}
	})
}
