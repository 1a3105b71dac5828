package verify

import "time"

// MaxClockSkew is how far a signature may lie ahead of the trusted clock.
const MaxClockSkew = 24 * time.Hour

// TrustedTime returns the latest of the system clock and the floors. Floors are moments known to be in the past, such as
// the build time of the binary and the time recorded by the last run. A board without a battery-backed clock starts in
// 1970 and gets the latest floor. Zero floors are ignored.
//
// A clock that is ahead is believed: nothing on the device can tell. It makes signatures and documents with an expiry
// look expired, and a caller that records the time it saw would keep it.
func TrustedTime(floors ...time.Time) time.Time {
	t, _ := TrustedClock(floors...)
	return t
}

// TrustedClock is [TrustedTime] that also says whether the result is only a lower bound, for [Policy.LowerBound]: the
// system clock was behind a floor, or less than [MaxClockSkew] after the latest one, as after someone set it to that floor.
// Without a floor nothing supports the system clock, and lowerBound is true. Pass both results on: with a build time as the
// clock and without LowerBound, a device that has no clock would refuse every update signed a day after its build.
//
// What it cannot see: a clock that was set to a floor and then ran for more than a day without being corrected. Signatures
// younger than that clock are refused as from the future until someone sets it.
func TrustedClock(floors ...time.Time) (now time.Time, lowerBound bool) {
	return trustedClock(time.Now(), floors)
}

func trustedClock(now time.Time, floors []time.Time) (time.Time, bool) {
	var floor time.Time
	for _, f := range floors {
		if f.After(floor) {
			floor = f
		}
	}
	if now.Before(floor) {
		return floor, true
	}
	return now, floor.IsZero() || now.Sub(floor) < MaxClockSkew
}
