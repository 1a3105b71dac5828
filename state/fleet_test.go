package state_test

import (
	"fmt"
	"strings"
	"testing"

	"updater/boot/boottest"
	"updater/state"
)

// Reports wait once each, at most 8; what was delivered does not wait again. Failures are bounded, and one of them for a release.
func TestFleetIsBounded(t *testing.T) {
	var f state.Fleet
	for n := range 100 {
		f.Queue(state.Report{Outcome: state.ReportGood, Install: int64(n), Release: "r"})
		f.Fail(state.Failure{Release: fmt.Sprint("r", n), At: day1})
	}
	if len(f.Reports) != state.MaxReports || f.Reports[0].Install != 92 || len(f.Failures) != 32 || f.Failures[0].Release != "r68" {
		t.Errorf("%d reports wait and %d failures are known, from %+v and %+v on", len(f.Reports), len(f.Failures), f.Reports[0], f.Failures[0])
	}
	last := state.Report{Outcome: state.ReportGood, Install: 99, Release: "r", Detail: "again"}
	f.Queue(last)
	f.Delivered(last)
	f.Queue(last)
	if len(f.Reports) != state.MaxReports-1 {
		t.Errorf("%d reports wait after a delivery", len(f.Reports))
	}
	f.Fail(state.Failure{Release: "r99", Attempt: 3})
	if n := len(f.Failures); n != 32 || f.Failures[n-1].Attempt != 3 {
		t.Errorf("%d failures; the last is %+v", n, f.Failures[n-1])
	}
	if f.Works("r99"); len(f.Failures) != 31 {
		t.Errorf("%d failures after one release has worked", len(f.Failures))
	}
}

// Reports make room for what decides, in the smallest store too.
func TestReportsMakeRoom(t *testing.T) {
	m := boottest.NewMedium(make([]byte, 8192))
	s := open(t, m)
	do(t, s.Update(func(s *state.State) {
		for n := range 12 {
			s.Put(fmt.Sprint("slot", n), "rootfs", image(int64(n), state.Good), "")
		}
		for n := range 8 {
			s.Fleet.Queue(state.Report{Outcome: state.ReportFailed, Install: int64(n), Detail: string(make([]byte, 200))})
		}
		s.Fleet.Seen, s.Floor = state.Seen{Channel: "stable", Created: day1}, 7
	}))
	got := open(t, m).State()
	if n := len(got.Fleet.Reports); n == 8 || n > 0 && got.Fleet.Reports[n-1].Install != 7 || got.Fleet.Seen.Channel != "stable" || got.Floor != 7 {
		t.Errorf("the store has %d reports, and %+v", n, got.Fleet.Seen)
	}
}

// A store that is full of failures forgets the oldest ones: the device can still be updated.
func TestFailuresMakeRoom(t *testing.T) {
	m := boottest.NewMedium(make([]byte, 8192))
	s := open(t, m)
	for n := range 32 {
		do(t, s.Update(func(s *state.State) {
			identity := fmt.Sprintf("%064x", n)
			s.Fleet.Fail(state.Failure{Release: identity, Version: strings.Repeat("1", 200), At: day1, Detail: "its tries are spent"})
			s.Fleet.Queue(state.Report{Outcome: state.ReportFellBack, Install: int64(n), Release: identity})
		}))
	}
	do(t, s.Update(func(s *state.State) { s.Put("A", "rootfs", image(7, state.Good), "") }))
	got := open(t, m).State()
	if n := len(got.Fleet.Failures); n < 2 || n == 32 || got.Fleet.Failures[n-1].Release != fmt.Sprintf("%064x", 31) {
		t.Errorf("the store has %d failures, the last %+v", n, got.Fleet.Failures[n-1])
	}
	if got.Slots["A"]["rootfs"].RollbackIndex != 7 {
		t.Errorf("the store has the slots %+v", got.Slots)
	}
}
