package verify_test

import (
	"testing"
	"time"

	"updater/verify"
)

func TestTrustedClock(t *testing.T) {
	now := time.Now()
	past, future := now.AddDate(-3, 0, 0), now.AddDate(3, 0, 0)
	tests := []struct {
		name            string
		built, recorded time.Time
		want            time.Time // zero: about now
		lower           bool
	}{
		{name: "no floor", lower: true},
		{name: "clock is good", built: past, recorded: past.Add(time.Hour)},
		{name: "clock is behind the build", built: future, recorded: past, want: future, lower: true},
		{name: "clock is behind the record", built: past, recorded: future, want: future, lower: true},
		{name: "clock was set to the build", built: now.Add(-time.Minute), lower: true},
		{name: "recorded a minute ago", built: past, recorded: now.Add(-time.Minute)},
		{name: "only a record", recorded: past},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got, lower := verify.TrustedClock(tc.built, tc.recorded)
			want := tc.want
			if want.IsZero() {
				want = time.Now()
			}
			if d := want.Sub(got); d < 0 || d > time.Minute || lower != tc.lower {
				t.Errorf("TrustedClock() = %v, %v; want %v, %v", got, lower, want, tc.lower)
			}
		})
	}
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
		{"year 2100", far, signed.Add(verify.MaxClockLead)},
	} {
		if got := verify.Recordable(tc.now, built, time.Time{}, signed); !got.Equal(tc.want) {
			t.Errorf("%s: Recordable() = %v; want %v", tc.name, got, tc.want)
		}
	}
}
