package state_test

import (
	"fmt"
	"strings"
	"testing"

	"updater/boot/boottest"
	"updater/state"
)

// Reports wait once each, at most 8; a delivered one does not wait again. Failures are bounded, and one of them for a release.
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
	f.Fail(state.Failure{Release: "r98", Version: strings.Repeat("1", 256), Detail: strings.Repeat("2", 256)})
	if n := f.Failures[31]; n.Release != "r98" || n.Attempt != 1 || len(n.Version) != 255 || len(n.Detail) != 255 {
		t.Errorf("the last failure is %+v", n)
	}
	if f.Works("r99"); len(f.Failures) != 31 {
		t.Errorf("%d failures after one release has worked", len(f.Failures))
	}
}

// Reports are the same if outcome, install and release agree; a delivered one is remembered without its text, and nothing else is dropped.
func TestReports(t *testing.T) {
	r := state.Report{Outcome: state.ReportGood, Install: 1, Release: "r", Version: strings.Repeat("1", 256), Detail: strings.Repeat("2", 256), Slot: "A", At: day1}
	outcome, install, release := r, r, r
	outcome.Outcome, install.Install, release.Release = state.ReportFellBack, 2, "s"
	text := r
	text.Detail, text.Slot, text.At, text.Version, text.Attempt, text.RollbackIndex = "", "B", day2, "", 3, 4
	var f state.Fleet
	for range 2 {
		for _, r := range []state.Report{r, outcome, install, release, text} {
			f.Queue(r)
		}
	}
	if len(f.Reports) != 4 || len(f.Reports[0].Version) != 255 || len(f.Reports[0].Detail) != 255 || f.Reports[3].Release != "s" {
		t.Fatalf("the reports are %+v", f.Reports)
	}
	f.Delivered(text)
	if want := (state.Report{Outcome: state.ReportGood, Install: 1, Release: "r"}); f.Reported != want || len(f.Reports) != 3 || f.Reports[0].Outcome != state.ReportFellBack {
		t.Errorf("after a delivery %+v is delivered, and %+v wait", f.Reported, f.Reports)
	}
	if f.Queue(outcome); len(f.Reports) != 3 {
		t.Errorf("%+v wait", f.Reports)
	}
	f.Delivered(outcome)
	if f.Queue(r); len(f.Reports) != 3 {
		t.Errorf("only the last delivery counts, but %+v wait", f.Reports)
	}
}

// Reports make room for members that decide, in the smallest store too.
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
