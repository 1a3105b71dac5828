package steppedclock_test

import (
	"testing"
	"testing/synctest"
	"time"

	"updater/internal/steppedclock"
)

// TestClock: a step changes only the wall clock.
func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, step := range []time.Duration{time.Hour, -time.Hour} {
			c := steppedclock.New()
			before := c.Now()
			c.Step(step)
			time.Sleep(time.Second)
			after := c.Now()
			if wall, passed := after.Round(0).Sub(before.Round(0)), after.Sub(before); wall != step+time.Second || passed != time.Second {
				t.Errorf("a step by %s: the wall clock went on by %s, the monotonic one by %s", step, wall, passed)
			}
		}
	})
}
