package verify

import "time"

const (
	// MaxClockSkew is how far a signature may lie ahead of the trusted clock. A board whose clock runs on local time is
	// wrong by up to 14 hours.
	MaxClockSkew = 24 * time.Hour

	// MaxClockLead is how far [Recordable] lets the system clock be ahead of the times that signatures attest.
	MaxClockLead = 366 * 24 * time.Hour
)

// TrustedClock returns the latest of the system clock and two floors: when the program was built, and the time that the
// last run recorded. Zero floors are ignored. A board without a battery-backed clock starts in 1970 and gets the later floor.
//
// lowerBound reports whether the result is a lower bound, for [Policy.LowerBound]: the system clock was behind a
// floor, or less than [MaxClockSkew] after the build, as if it was set to the build time. Without a floor nothing supports the
// system clock, and lowerBound is true. Pass both results on: with a build time as the clock and without LowerBound, a
// device that has no clock would refuse every update signed a day after its build.
//
// It cannot detect a clock that was set to the build time and then ran for more than a day without being corrected.
// Signatures younger than that clock are refused as from the future until someone sets it. A clock that is ahead is
// trusted for this run: documents with an expiry look expired. It is not recorded, see [Recordable].
func TrustedClock(built, recorded time.Time) (now time.Time, lowerBound bool) {
	return trustedClock(time.Now(), built, recorded)
}

func trustedClock(now, built, recorded time.Time) (time.Time, bool) {
	floor := built
	if recorded.After(floor) {
		floor = recorded
	}
	if now.Before(floor) {
		return floor, true
	}
	return now, floor.IsZero() || !built.IsZero() && now.Sub(built) < MaxClockSkew
}

// Recordable returns the time that a run may record for the next ones: now, but at most [MaxClockLead] after the latest
// of the attested times, which are those of the build and of trusted signatures. So a clock that once showed the year
// 2100 refuses documents with an expiry at that time only.
func Recordable(now time.Time, attested ...time.Time) time.Time {
	var latest time.Time
	for _, t := range attested {
		if t.After(latest) {
			latest = t
		}
	}
	if limit := latest.Add(MaxClockLead); now.After(limit) {
		return limit
	}
	return now
}
