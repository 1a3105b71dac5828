package fleet_test

import (
	"errors"
	"testing"
	"time"

	"updater/fleet"
	"updater/state"
	"updater/update"
)

func TestJudge(t *testing.T) {
	c := channel() // of noon, for an hour
	at := func(d time.Duration) fleet.Clock { return fleet.Clock{Now: noon.Add(d)} }
	seen := func(name string, d time.Duration, sum string) state.Seen {
		return state.Seen{Channel: name, Created: noon.Add(d), SHA256: sum}
	}
	for _, tc := range []struct {
		name           string
		seen           state.Seen
		clock          fleet.Clock
		want           fleet.Freshness
		stale, expired bool
	}{
		{name: "the first one", clock: at(time.Minute), want: fleet.Fresh},
		{name: "a newer one", seen: seen("stable", -time.Second, "b"), clock: at(time.Minute), want: fleet.Fresh},
		{name: "the same one again", seen: seen("stable", 0, "a"), clock: at(time.Minute), want: fleet.Fresh},
		{name: "other bytes of the same time", seen: seen("stable", 0, "b"), clock: at(time.Minute), stale: true},
		{name: "an older one", seen: seen("stable", time.Second, "b"), clock: at(time.Minute), stale: true},
		{name: "another channel was followed before", seen: seen("beta", time.Second, "b"), clock: at(time.Minute), want: fleet.Fresh},
		{name: "the last second", clock: at(time.Hour), want: fleet.Fresh},
		{name: "expired", clock: at(time.Hour + time.Second), expired: true},
		{name: "no clock", clock: fleet.Clock{Now: noon.Add(-1000 * time.Hour), LowerBound: true}, want: fleet.FreshUnknown},
		{name: "no clock, and expired all the same", clock: fleet.Clock{Now: noon.Add(2 * time.Hour), LowerBound: true}, expired: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := fleet.Judge(c, "a", tc.seen, tc.clock)
			_, stale := errors.AsType[*fleet.StaleError](err)
			_, expired := errors.AsType[*update.ExpiredError](err)
			if got != tc.want || stale != tc.stale || expired != tc.expired || (err != nil) != (stale || expired) {
				t.Errorf("Judge = %q, %v; want %q, stale %t, expired %t", got, err, tc.want, tc.stale, tc.expired)
			}
		})
	}
}
