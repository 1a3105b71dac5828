package config

import (
	"testing"
	"time"
)

func TestWindow(t *testing.T) {
	for _, tt := range []struct {
		window, at string // 2026-11-23 is a Monday
		open       bool
	}{
		{"01:00-04:00", "2026-11-23 01:00", true},
		{"01:00-04:00", "2026-11-23 04:00", false},
		{"01:00-04:00", "2026-11-23 00:59", false},
		{"22:30-05:00", "2026-11-23 22:30", true},
		{"22:30-05:00", "2026-11-23 04:59", true},
		{"22:30-05:00", "2026-11-23 12:00", false},
		{"Mon 22:00-02:00", "2026-11-23 23:00", true},
		{"Mon 22:00-02:00", "2026-11-24 01:59", true},
		{"Mon 22:00-02:00", "2026-11-23 01:00", false},
		{"Sat-Mon 10:00-11:00", "2026-11-23 10:30", true},
		{"Sat-Mon 10:00-11:00", "2026-11-22 10:30", true},
		{"Sat-Mon 10:00-11:00", "2026-11-24 10:30", false},
		{"Tue-Thu,Sun 10:00-11:00", "2026-11-22 10:30", true},
		{"Tue-Thu,Sun 10:00-11:00", "2026-11-27 10:30", false},
	} {
		var w Window
		if err := w.UnmarshalText([]byte(tt.window)); err != nil {
			t.Fatal(err)
		}
		at, err := time.ParseInLocation("2006-01-02 15:04", tt.at, time.UTC)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.Open(at); got != tt.open {
			t.Errorf("%s at %s (%s): open %v, want %v", tt.window, tt.at, at.Weekday(), got, tt.open)
		}
	}
	for _, text := range []string{"", "01:00", "01:00-01:00", "25:00-26:00", "Mo 01:00-02:00", "Mon, 01:00-02:00", "Mon-Fri", "Mon 1:00 2:00", "01:00-02:00-03:00"} {
		if err := new(Window).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}
