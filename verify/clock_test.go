package verify_test

import (
	"testing"
	"testing/synctest"
	"time"

	"updater/verify"
)

func TestTrustedClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the clock stands still
		now := time.Now()
		past, future := now.AddDate(-3, 0, 0), now.AddDate(3, 0, 0)
		for _, tc := range []struct {
			name            string
			built, recorded time.Time
			want            time.Time
			lower           bool
		}{
			{name: "no floor", want: now, lower: true},
			{name: "clock is good", built: past, recorded: past.Add(time.Hour), want: now},
			{name: "clock is behind the build", built: future, recorded: past, want: future, lower: true},
			{name: "clock is behind the record", built: past, recorded: future, want: future, lower: true},
			{name: "clock was set to the build", built: now.Add(-time.Minute), want: now, lower: true},
			{name: "less than a day after the build", built: now.Add(1 - verify.MaxClockSkew), want: now, lower: true},
			{name: "a day after the build", built: now.Add(-verify.MaxClockSkew), want: now},
			{name: "clock is the record", built: past, recorded: now, want: now},
			{name: "clock is just behind the record", built: past, recorded: now.Add(1), want: now.Add(1), lower: true},
			{name: "only a record", recorded: past, want: now},
		} {
			if got, lower := verify.TrustedClock(tc.built, tc.recorded); !got.Equal(tc.want) || lower != tc.lower {
				t.Errorf("%s: TrustedClock() = %v, %v; want %v, %v", tc.name, got, lower, tc.want, tc.lower)
			}
		}
	})
}

// TestRecordable: a clock in the year 2100 is not remembered, one that is a little ahead is.
func TestRecordable(t *testing.T) {
	built := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	signed := built.AddDate(0, 6, 0)
	far := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		name string
		now  time.Time
		want time.Time
	}{
		{"right", signed.AddDate(0, 1, 0), signed.AddDate(0, 1, 0)},
		{"far, by a year and a day", signed.Add(verify.MaxClockLead), signed.Add(verify.MaxClockLead)},
		{"year 2100", far, signed.Add(verify.MaxClockLead)},
	} {
		for _, attested := range [][]time.Time{{built, time.Time{}, signed}, {signed, built}} {
			if got := verify.Recordable(tc.now, attested...); !got.Equal(tc.want) {
				t.Errorf("%s: Recordable() = %v; want %v", tc.name, got, tc.want)
			}
		}
	}
}
