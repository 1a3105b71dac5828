package fleet

import (
	"fmt"
	"time"

	"updater/release"
	"updater/state"
	"updater/update"
)

// StaleError is a channel that is older than the one that the device has seen, or another one of the same time: a replay.
type StaleError struct{ Reason string }

func (e *StaleError) Error() string { return e.Reason }

// Freshness is the judged age of a channel.
type Freshness string

// The values.
const (
	Fresh        Freshness = "fresh"
	FreshUnknown Freshness = "unknown" // the clock of the device is not set
)

// Clock is the time of a device.
type Clock struct {
	Now        time.Time
	LowerBound bool // it may be later: the clock was never set
}

// Judge judges the age of a channel, whose signed bytes have the checksum sum. The signature was checked before. Errors: [StaleError],
// update.ExpiredError.
func Judge(c release.ChannelContents, sum string, seen state.Seen, clock Clock) (Freshness, error) {
	stamp := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	stale := func(format string, a ...any) error {
		return &StaleError{fmt.Sprintf("channel %s of %s ", c.Channel, stamp(c.Created)) + fmt.Sprintf(format, a...)}
	}
	if seen.Channel == c.Channel {
		switch {
		case c.Created.Before(seen.Created):
			return "", stale("is old; this device has seen one of %s", stamp(seen.Created))
		case c.Created.Equal(seen.Created) && sum != seen.SHA256:
			return "", stale("has the sha256 %s, expected %s, which this device has seen", sum, seen.SHA256)
		}
	}
	switch {
	case clock.Now.After(c.Expires):
		return "", fmt.Errorf("channel %s: %w", c.Channel, &update.ExpiredError{Expires: c.Expires, Now: clock.Now})
	case clock.LowerBound:
		return FreshUnknown, nil
	}
	return Fresh, nil
}
