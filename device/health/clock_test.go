package health

import (
	"context"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"updater/internal/steppedclock"
)

// TestKeepClock: the watchdog is fed until a round is overdue, whichever way the clock is set meanwhile.
func TestKeepClock(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/10-app", nil, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, step := range []time.Duration{time.Hour, -time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			clock := steppedclock.New()
			var fed func() bool
			hang := make(chan struct{})
			rounds := 0
			round := func() error {
				if rounds++; rounds > 3 {
					<-hang // a check that cannot be killed
				}
				return nil
			}
			o := Options{Dir: dir, Timeout: 10 * time.Second, now: clock.Now}
			ended := make(chan error)
			go func() {
				ended <- Keep(ctx, o, time.Minute, func(alive func() bool, _ func(string, ...any)) { fed = alive }, round, t.Logf)
			}()
			synctest.Wait()
			clock.Step(step)
			for range 3 {
				time.Sleep(time.Minute)
				synctest.Wait()
				if !fed() {
					t.Errorf("a step by %s: the watchdog is not fed after a round that was healthy", step)
				}
			}
			time.Sleep(time.Minute) // the interval and two time limits are over
			if fed() {
				t.Errorf("a step by %s: the watchdog is fed though a round is overdue", step)
			}
			stop()
			close(hang)
			<-ended
		})
	}
}
