package initramfs

import (
	"testing"
	"testing/synctest"
	"time"

	"updater/internal/steppedclock"
)

// TestWork: a step is overdue when its bound has passed without progress, and only then, whichever way the clock is set meanwhile.
func TestWork(t *testing.T) {
	for _, step := range []time.Duration{0, time.Hour, -time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			clock := steppedclock.New()
			w := &Work{now: clock.Now}
			check := func(after time.Duration, want bool) {
				t.Helper()
				clock.Step(step)
				time.Sleep(after)
				if _, _, late := w.Overdue(); late != want {
					t.Errorf("steps by %s: overdue is %v after %s; want %v", step, late, after, want)
				}
			}
			check(2*StepBound, false) // nothing has begun
			w.Progress()
			check(StepBound-time.Second, false)
			check(2*time.Second, true)
			w.Begin("flushing", 10*time.Minute)
			check(9*time.Minute, false)
			w.Progress()
			check(9*time.Minute, false)
			check(2*time.Minute, true)
			w.Begin("waiting for a person", 0)
			check(100*time.Hour, false)
			w.Begin("reading", time.Second)
			check(2*time.Second, true)
			if doing, bound, _ := w.Overdue(); doing != "reading" || bound != time.Second {
				t.Errorf("the step is %q within %s", doing, bound)
			}
		})
	}
}

// TestWithin: a step that takes too long before a restart is left behind.
func TestWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		began := time.Now()
		if within(time.Minute, func() { <-release }) || time.Since(began) != time.Minute {
			t.Errorf("a step that hangs ended after %s", time.Since(began))
		}
		close(release)
		if !within(time.Minute, func() { time.Sleep(time.Second) }) || time.Since(began) != time.Minute+time.Second {
			t.Error("a step that ends was not waited for")
		}
	})
}
