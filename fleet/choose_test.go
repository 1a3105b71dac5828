package fleet_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"updater/fleet"
	"updater/release"
)

var noon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// id is the identity of a release in tests.
func id(n int) string { return fmt.Sprintf("%064x", n) }

func entry(n int, index int64) release.Entry {
	return release.Entry{Identity: id(n), Version: fmt.Sprint(n), RollbackIndex: index, Path: "release.toml", Attempt: 1}
}

func channel(entries ...release.Entry) release.ChannelContents {
	return release.ChannelContents{Product: "demo", Channel: "stable", Created: noon, Expires: noon.Add(time.Hour), Releases: entries}
}

func held(n int, index int64) fleet.Held {
	return fleet.Held{Identity: id(n), Version: fmt.Sprint(n), RollbackIndex: index}
}

func with(e release.Entry, change func(e *release.Entry)) release.Entry {
	change(&e)
	return e
}

func TestChoose(t *testing.T) {
	withdrawn := func(e *release.Entry) { e.Withdrawn = true }
	from := func(n int64) func(*release.Entry) { return func(e *release.Entry) { e.FromIndex = n } }
	rollout := func(r release.Rollout) func(*release.Entry) { return func(e *release.Entry) { e.Rollout = &r } }
	for _, c := range []struct {
		name    string
		entries []release.Entry
		device  fleet.Device
		want    string // version; "" is nothing
		reason  string
		waiting bool
	}{
		{name: "an empty channel", reason: "channel stable has no release yet"},
		{name: "nothing is known of the device", entries: []release.Entry{entry(1, 1), entry(2, 2)}, want: "2"},
		{name: "the highest index, not the last entry", entries: []release.Entry{entry(2, 2), entry(1, 1)}, want: "2"},
		{name: "of one index the later entry", entries: []release.Entry{entry(1, 1), entry(2, 1)}, device: fleet.Device{Running: held(1, 1)}, want: "2"},
		{
			name: "of one index never an earlier entry", entries: []release.Entry{entry(1, 1), with(entry(2, 1), withdrawn)},
			device: fleet.Device{Running: held(2, 1)},
			reason: "channel stable has nothing newer than the running release",
		},
		{
			name: "it runs", entries: []release.Entry{entry(1, 1), entry(2, 2)}, device: fleet.Device{Running: held(2, 2)},
			reason: "channel stable has nothing newer than the running release",
		},
		{
			name: "it runs by the words of the configuration", entries: []release.Entry{entry(2, 2)},
			device: fleet.Device{Running: fleet.Held{Version: "2", RollbackIndex: 2}}, reason: "channel stable has nothing newer than the running release",
		},
		{
			name: "never an older one than what runs", entries: []release.Entry{entry(1, 1)}, device: fleet.Device{Running: held(9, 9)},
			reason: "channel stable has nothing newer than the running release",
		},
		{
			name: "it boots next", entries: []release.Entry{entry(2, 2)}, device: fleet.Device{Running: held(1, 1), Next: held(2, 2)},
			reason: "version 2 is installed and boots next", waiting: true,
		},
		{
			name: "it boots next, but was withdrawn", entries: []release.Entry{with(entry(2, 2), withdrawn)},
			device: fleet.Device{Running: held(1, 1), Next: held(2, 2)},
			reason: "version 2 boots next and was withdrawn since; activate the running slot to stay there",
		},
		{
			name: "newer than what boots next", entries: []release.Entry{entry(2, 2), entry(3, 3)},
			device: fleet.Device{Running: held(1, 1), Next: held(2, 2)}, want: "3",
		},
		{
			name: "the newest is withdrawn", entries: []release.Entry{entry(2, 2), with(entry(3, 3), withdrawn)},
			device: fleet.Device{Running: held(1, 1)}, want: "2",
		},
		{
			name: "below the floor", entries: []release.Entry{entry(2, 2)}, device: fleet.Device{Floor: 5},
			reason: "version 2 has the rollback index 2; this device takes none below 5",
		},
		{
			name: "failed here", entries: []release.Entry{entry(2, 2)}, device: fleet.Device{Running: held(1, 1), Failed: map[string]int64{id(2): 1}},
			reason: "version 2 failed here at attempt 1",
		},
		{
			name:    "failed here, at an earlier attempt",
			entries: []release.Entry{with(entry(2, 2), func(e *release.Entry) { e.Attempt = 2 })},
			device:  fleet.Device{Running: held(1, 1), Failed: map[string]int64{id(2): 1}}, want: "2",
		},
		{
			name: "for other hardware", entries: []release.Entry{entry(2, 2)},
			device: fleet.Device{Refused: map[string]string{id(2): "the release is for hardware 2.0"}},
			reason: "version 2 cannot be installed: the release is for hardware 2.0",
		},
		{
			name: "a stepping stone", entries: []release.Entry{entry(12, 12), with(entry(17, 17), from(12))},
			device: fleet.Device{Running: held(10, 10)}, want: "12",
		},
		{
			name: "behind the stepping stone", entries: []release.Entry{entry(12, 12), with(entry(17, 17), from(12))},
			device: fleet.Device{Running: held(12, 12)}, want: "17",
		},
		{
			name: "the stepping stone has not booted yet", entries: []release.Entry{entry(12, 12), with(entry(17, 17), from(12))},
			device:  fleet.Device{Running: held(10, 10), Next: held(12, 12)},
			reason:  "version 12 is installed and boots next; version 17 needs a release with rollback index 12 or more first; this device runs 10",
			waiting: true,
		},
		{
			name: "no stepping stone", entries: []release.Entry{with(entry(17, 17), from(12))}, device: fleet.Device{Running: held(10, 10)},
			reason: "version 17 needs a release with rollback index 12 or more first; this device runs 10",
		},
		{
			name:    "a rollout that has not begun",
			entries: []release.Entry{with(entry(2, 2), rollout(release.Rollout{Start: noon.Add(time.Hour), Percent: 100}))},
			reason:  "version 2 is not for this device before 2026-11-28T13:00:00Z",
		},
		{
			name: "a rollout that is held at nobody", entries: []release.Entry{with(entry(2, 2), rollout(release.Rollout{Start: noon}))},
			reason: "version 2 is held at 0 % of the devices, without this one",
		},
		{
			name:    "without a clock it is at least as late as the channel says",
			entries: []release.Entry{with(entry(2, 2), rollout(release.Rollout{Start: noon.Add(-time.Hour), Hours: 1}))}, want: "2",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := fleet.Choose(channel(c.entries...), c.device)
			version := ""
			if got.Entry != nil {
				version = got.Entry.Version
			}
			if version != c.want || c.want == "" && got.Reason != c.reason || got.Waiting != c.waiting {
				t.Errorf("Choose = %q, %q, waiting %t; want %q, %q, %t", version, got.Reason, got.Waiting, c.want, c.reason, c.waiting)
			}
		})
	}
}

// 10,000 devices follow the curve of a rollout within 2 %, in another order for every release, and each learns the moment of its turn.
func TestRolloutCurve(t *testing.T) {
	const devices = 10_000
	for _, r := range []release.Rollout{
		{Start: noon, Percent: 5, Hours: 72}, {Start: noon, Percent: 0, Hours: 10}, {Start: noon, Percent: 30}, {Start: noon, Percent: 100, Hours: 5},
	} {
		early := map[int]int{}
		for release := range 3 {
			at := func(now time.Time) (share float64) {
				for n := range devices {
					from, ok := fleet.Turn(&r, fleet.Place(fmt.Sprintf("device-%d", n), id(release)))
					if ok && !from.After(now) {
						share += 1. / devices
						if now.Equal(r.Start) {
							early[n]++
						}
					}
				}
				return share
			}
			for step := range 11 {
				done := float64(step) / 10
				want := float64(r.Percent) / 100
				if r.Hours > 0 {
					want += (1 - want) * done
				}
				now := r.Start.Add(time.Duration(done * float64(r.Hours) * float64(time.Hour)))
				if got := at(now); math.Abs(got-want) > 0.02 {
					t.Errorf("%+v, release %d, %.0f %% of the time: %.3f of the devices may take it; want %.3f", r, release, done*100, got, want)
				}
			}
			if got := at(r.Start.Add(-time.Second)); got > 0 {
				t.Errorf("%+v: %.3f of the devices may take it before the start", r, got)
			}
		}
		if r.Percent == 5 {
			always := 0
			for _, times := range early {
				if times == 3 {
					always++
				}
			}
			if always > devices/1000 {
				t.Errorf("%d devices are the first ones of every release", always)
			}
		}
	}
}

// The choice keeps the rules for any channel and any device.
func TestChooseProperties(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		entries := make([]release.Entry, random.IntN(6))
		device := fleet.Device{
			Identifier: fmt.Sprint(random.Int()), Floor: random.Int64N(3), Running: held(random.IntN(8), 1+random.Int64N(4)), Failed: map[string]int64{},
			Now: noon.Add(time.Duration(random.IntN(20)-10) * time.Hour),
		}
		if random.IntN(3) == 0 {
			device.Next = held(random.IntN(8), 1+random.Int64N(4))
		}
		for i := range entries {
			e := entry(i, 1+random.Int64N(5))
			e.Withdrawn, e.Attempt = random.IntN(4) == 0, 1+random.Int64N(2)
			e.FromIndex = random.Int64N(e.RollbackIndex + 1)
			if random.IntN(2) == 0 {
				e.Rollout = &release.Rollout{Start: noon.Add(time.Duration(random.IntN(8)-4) * time.Hour), Percent: random.Int64N(101), Hours: random.Int64N(5)}
			}
			if random.IntN(3) == 0 {
				device.Failed[e.Identity] = 1
			}
			entries[i] = e
		}
		c := channel(entries...)
		got := fleet.Choose(c, device)
		if again := fleet.Choose(c, device); fmt.Sprintf("%+v", again.Skipped) != fmt.Sprintf("%+v", got.Skipped) || again.Reason != got.Reason {
			t.Fatalf("the same question has the answers %+v and %+v", got, again)
		}
		checkChoice(t, c, device, got)
	}
}

func checkChoice(t *testing.T, c release.ChannelContents, d fleet.Device, got fleet.Choice) {
	t.Helper()
	fail := func(format string, a ...any) {
		t.Helper()
		t.Fatalf("%s\nchannel %+v\ndevice %+v\nchoice %+v", fmt.Sprintf(format, a...), c, d, got)
	}
	if got.Reason == "" || strings.HasSuffix(got.Reason, ".") {
		fail("the reason is %q", got.Reason)
	}
	if got.Waiting && (got.Entry != nil || d.Next == fleet.Held{}) {
		fail("it waits for a restart without a next slot")
	}
	for _, s := range got.Skipped {
		if s.Text == "" || s.Why == "" {
			fail("a release is skipped without a reason")
		}
	}
	e := got.Entry
	if e == nil {
		return
	}
	switch {
	case e.Withdrawn, e.RollbackIndex < d.Floor, e.FromIndex > d.Running.RollbackIndex, d.Failed[e.Identity] >= e.Attempt:
		fail("a release that is not for the device is chosen")
	case e.Identity == d.Running.Identity && e.RollbackIndex == d.Running.RollbackIndex,
		e.RollbackIndex < d.Running.RollbackIndex, e.RollbackIndex < d.Next.RollbackIndex:
		fail("an old release is chosen")
	}
	// A later moment never replaces the release by an older one.
	later := d
	later.Now = d.Now.Add(1000 * time.Hour)
	if l := fleet.Choose(c, later); l.Entry == nil || l.Entry.RollbackIndex < e.RollbackIndex {
		fail("later the choice is %+v", l)
	}
	// Once it runs, the channel has nothing of its index or below.
	d.Running, d.Next = fleet.Held{Identity: e.Identity, Version: e.Version, RollbackIndex: e.RollbackIndex}, fleet.Held{}
	if again := fleet.Choose(c, d); again.Entry != nil && again.Entry.RollbackIndex <= e.RollbackIndex && !laterEntry(c, again.Entry, e) {
		fail("once it runs the choice is %+v", again)
	}
}

func laterEntry(c release.ChannelContents, a, b *release.Entry) bool {
	at := func(e *release.Entry) int {
		return slices.IndexFunc(c.Releases, func(o release.Entry) bool { return o.Identity == e.Identity })
	}
	return at(a) > at(b)
}
