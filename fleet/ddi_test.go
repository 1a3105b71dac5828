package fleet_test

import (
	"fmt"
	"testing"
)

// ddi is a server of the Direct Device Integration API with one target, which is the device.
type ddi interface {
	device() *line
	// offer gives the target an action for the release in a folder, and returns its number.
	offer(dir string, how manner) (id int64)
	cancel()
	// state of the last action: running, downloaded, finished, error or canceled.
	state() string
	// attributes of the target; nil where the server keeps none.
	attributes() map[string]string
}

// manner is how an action is to be carried out.
type manner string

const (
	forced       manner = "forced"
	downloadOnly manner = "downloadonly"
	outOfWindow  manner = "out of its maintenance window"
)

// scenarios run against the fake and against real servers.
var scenarios = []struct {
	name string
	run  func(t *testing.T, s ddi)
	full bool // gooseBit does not have it
}{
	{"it proves itself", provesItself, false},
	{"it falls back", fallsBack, false},
	{"it runs already", runsAlready, true},
	{"cancelled before the download", cancelled, true},
	{"cancelled after the switch", cancelledLate, true},
	{"download only", downloadsOnly, true},
	{"out of its window", waits, true},
	{"nobody trusts it", refused, true},
}

// runScenarios runs those that a kind of server has.
func runScenarios(t *testing.T, full bool, server func(t *testing.T) ddi) {
	for _, c := range scenarios {
		if full || !c.full {
			t.Run(c.name, func(t *testing.T) { c.run(t, server(t)) })
		}
	}
}

func wantState(t *testing.T, s ddi, want string) {
	t.Helper()
	if got := s.state(); got != want {
		t.Errorf("the action is %q on the server; want %q", got, want)
	}
}

func wantAttributes(t *testing.T, s ddi, want map[string]string) {
	t.Helper()
	got := s.attributes()
	for name, value := range want {
		if got != nil && got[name] != value {
			t.Errorf("the server has the attributes %q; want %s %q", got, name, value)
		}
	}
}

// comesUp boots the slot that was installed, marks it good and reports it.
func (l *line) comesUp() {
	l.Helper()
	l.restart()
	l.run(0, "", "mark", "good")
	l.run(0, "1 reports sent", "report", "--now")
}

func provesItself(t *testing.T, s ddi) {
	l := s.device()
	l.run(3, "the server has nothing for this device", "check")
	wantAttributes(t, s, map[string]string{"product": "demo", "slot": "A", "version": ""})
	l.publish("1", 1)
	s.offer("1", forced)
	l.run(0, "version 1 is for this device", "check")
	l.run(0, "installed version 1 into slot B", "update")
	l.run(3, "version 1 is installed and boots next", "update")
	wantState(t, s, "running")
	l.restart()
	l.run(3, "version 1 runs and was not marked good yet", "update")
	l.run(3, "no report waits", "report", "--now")
	wantState(t, s, "running")
	l.run(0, "slot B is good", "mark", "good")
	l.run(0, "1 reports sent", "report", "--now")
	wantState(t, s, "finished")
	l.run(3, "the server has nothing", "check")
	wantAttributes(t, s, map[string]string{"product": "demo", "slot": "B", "version": "1"})
}

// fallsBack needs a new action for a second try.
func fallsBack(t *testing.T, s ddi) {
	l := s.device()
	l.run(3, "the server has nothing for this device", "check")
	l.publish("1", 1)
	for range 2 {
		id := s.offer("1", forced)
		l.run(0, "version 1 into slot B", "update")
		if b, a := l.restart(), l.restart(); b != "B" || a != "A" {
			t.Fatalf("slots %s and %s boot", b, a)
		}
		l.run(3, fmt.Sprintf("version 1 was tried for action %d", id), "update")
		l.run(0, "1 reports sent", "report", "--now")
		wantState(t, s, "error")
		l.run(0, "", "mark", "good")
	}
}

func runsAlready(t *testing.T, s ddi) {
	l := s.device()
	l.publish("1", 1)
	s.offer("1", forced)
	l.run(0, "installed version 1", "update")
	l.comesUp()
	s.offer("1", forced)
	wantState(t, s, "running")
	l.run(3, "version 1 runs", "update")
	wantState(t, s, "finished")
}

func cancelled(t *testing.T, s ddi) {
	l := s.device()
	l.publish("1", 1)
	id := s.offer("1", forced)
	l.run(0, "version 1 is for this device", "check")
	s.cancel()
	l.run(3, fmt.Sprintf("the server has cancelled action %d", id), "update")
	wantState(t, s, "canceled")
	l.run(3, "the server has nothing", "check")
	l.Pristine0()
}

func cancelledLate(t *testing.T, s ddi) {
	l := s.device()
	l.publish("1", 1)
	s.offer("1", forced)
	l.run(0, "installed version 1", "update")
	s.cancel()
	l.run(3, "the server has cancelled", "update")
	wantState(t, s, "running")
	l.comesUp()
	wantState(t, s, "finished")
}

func downloadsOnly(t *testing.T, s ddi) {
	l := s.device()
	l.publish("1", 1)
	s.offer("1", downloadOnly)
	l.run(0, "slot B waits; updater activate B switches to it", "update")
	wantState(t, s, "downloaded")
	l.run(3, "the server has nothing", "check")
	l.run(0, "slot B boots next", "activate", "B")
	l.comesUp()
}

func waits(t *testing.T, s ddi) {
	l := s.device()
	l.publish("1", 1)
	s.offer("1", outOfWindow)
	l.run(0, "slot B waits", "update")
	l.run(3, "in slot B; updater activate B switches to it", "update")
	wantState(t, s, "running")
	if l.Next() != "A" {
		t.Error("the slot was switched out of its window")
	}
}

func refused(t *testing.T, s ddi) {
	l := s.device()
	l.publish("1", 1)
	l.Sign("pub/1/release.toml", "other")
	s.offer("1", forced)
	l.run(10, "", "update")
	wantState(t, s, "error")
	l.run(3, "the server has nothing", "update")
	l.Pristine0()
}
