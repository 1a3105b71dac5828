package medium

import (
	"testing"
	"testing/synctest"
	"time"

	"updater/internal/steppedclock"
)

// hanging answers no read until it is released.
type hanging struct {
	Device
	release chan struct{}
}

func (h hanging) ReadBackAt(p []byte, _ int64) (int, error) { <-h.release; return len(p), nil }

// TestStalledClock: a device is given up when its operation has lasted too long, whichever way the clock of the station is set meanwhile.
func TestStalledClock(t *testing.T) {
	for _, step := range []time.Duration{time.Hour, -time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			clock, h := steppedclock.New(), hanging{release: make(chan struct{})}
			w := &watched{Device: h, now: clock.Now}
			go func() { _, _ = w.ReadBackAt(make([]byte, 1), 0) }()
			synctest.Wait()
			clock.Step(step)
			time.Sleep(time.Minute)
			if w.Stalled(2 * time.Minute) {
				t.Errorf("after a step by %s: given up after a minute", step)
			}
			time.Sleep(2 * time.Minute)
			if !w.Stalled(2 * time.Minute) {
				t.Errorf("after a step by %s: not given up after three minutes", step)
			}
			close(h.release)
		})
	}
}
