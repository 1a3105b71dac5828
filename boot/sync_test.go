package boot_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"updater/boot"
)

// recorder records the calls.
type recorder struct {
	boot.Backend
	done []string
}

func (r *recorder) Activate(context.Context, string, int) error {
	r.done = append(r.done, "activate")
	return nil
}

func (r *recorder) RestoreFallback(context.Context, string) error {
	r.done = append(r.done, "restore")
	return nil
}

// Files that the boot loader reads are synced before the switch; if that fails, nothing is switched.
func TestSyncFirst(t *testing.T) {
	r := new(recorder)
	b := boot.SyncFirst(r, func() error { r.done = append(r.done, "sync"); return nil })
	if err := b.Activate(t.Context(), "B", 1); err != nil || !slices.Equal(r.done, []string{"sync", "activate"}) {
		t.Errorf("Activate = %v after %v; want sync, activate", err, r.done)
	}
	r = new(recorder)
	b = boot.SyncFirst(r, func() error { r.done = append(r.done, "sync"); return nil })
	if err := boot.RestoreFallback(t.Context(), b, "B"); err != nil || !slices.Equal(r.done, []string{"sync", "restore"}) {
		t.Errorf("RestoreFallback = %v after %v; want sync, restore", err, r.done)
	}
	r, cause := new(recorder), errors.New("disk is gone")
	b = boot.SyncFirst(r, func() error { return cause })
	for name, err := range map[string]error{"Activate": b.Activate(t.Context(), "B", 1), "RestoreFallback": boot.RestoreFallback(t.Context(), b, "B")} {
		if !errors.Is(err, cause) || !errors.Is(err, boot.ErrState) || len(r.done) > 0 {
			t.Errorf("%s = %v after %v; want the cause, and no call", name, err, r.done)
		}
	}
}

func words(st boot.State) (list []string) {
	for _, f := range boot.Forecasts(st) {
		list = append(list, f.String())
	}
	return list
}

func TestForecasts(t *testing.T) {
	for _, c := range []struct {
		boots []string
		slots []boot.SlotState
		want  string
	}{
		{[]string{"B", "B", "A"}, []boot.SlotState{{Name: "A", Good: true, TriesLeft: -1}, {Name: "B", TriesLeft: 2}}, `
next boot: slot B, which has 1 try left after it
the boot after: slot B, which has 0 tries left after it
boot 3: slot A, because slot B was not marked good`},
		{[]string{"A", "", "A"}, []boot.SlotState{{Name: "A", Good: true, TriesLeft: 1}, {Name: "B"}}, `
next boot: slot A, which has 0 tries left after it
the boot after: no slot: the boot loader's own fallback (the recovery, or it refills all tries)
boot 3: slot A, which is good and not counted`},
	} {
		if got := "\n" + strings.Join(words(boot.State{Boots: c.boots, Slots: c.slots}), "\n"); got != c.want {
			t.Errorf("%q:%s\nwant%s", c.boots, got, c.want)
		}
	}
}

// TestForecastsOfGood: good slots are not counted, whether their tries are none or 0, and a boot without a slot is named.
func TestForecastsOfGood(t *testing.T) {
	st := boot.State{
		Boots: []string{"A", "", "A", "B", "C"},
		Slots: []boot.SlotState{{Name: "A", Good: true, TriesLeft: -1}, {Name: "B", Good: true}, {Name: "C"}},
	}
	want := []string{
		"next boot: slot A, which is good and not counted",
		"the boot after: no slot: the boot loader's own fallback (the recovery, or it refills all tries)",
		"boot 3: slot A, which is good and not counted",
		"boot 4: slot B, because slot A was not marked good",
		"boot 5: slot C, because slot B was not marked good",
	}
	if got := words(st); !slices.Equal(got, want) {
		t.Errorf("Forecasts = %q; want %q", got, want)
	}
	if none := boot.Forecasts(st)[1]; none.TriesLeft != -1 {
		t.Errorf("a boot without a slot leaves %d tries; want -1, not counted", none.TriesLeft)
	}
	st = boot.State{Boots: []string{"B", "B", "C", "C"}, Slots: []boot.SlotState{{Name: "B", Good: true}, {Name: "C", TriesLeft: 1}}}
	want = []string{
		"next boot: slot B, which is good and not counted", "the boot after: slot B, which is good and not counted",
		"boot 3: slot C, because slot B was not marked good", "boot 4: slot C, which has 0 tries left after it",
	}
	if got := words(st); !slices.Equal(got, want) {
		t.Errorf("Forecasts = %q; want %q", got, want)
	}
}

// TestDisagreements: every disagreement between the running slot and the boot loader's choice is found, and nothing else.
func TestDisagreements(t *testing.T) {
	on := func(name string) boot.SlotState { return boot.SlotState{Name: name, Bootable: true, Priority: 1} }
	for _, c := range []struct {
		name string
		st   boot.State
		want string
	}{
		{"sound", boot.State{Booted: "A", Next: "A", Slots: []boot.SlotState{on("A"), on("B")}}, ""},
		{"from elsewhere", boot.State{Next: "A", Slots: []boot.SlotState{on("A"), on("B")}}, ""},
		{"one slot", boot.State{Booted: "A", Next: "A", Slots: []boot.SlotState{on("A")}}, ""},
		{"no slot", boot.State{Booted: "A", Slots: []boot.SlotState{{Name: "A", Priority: 1}, {Name: "B"}}},
			"failure: the boot loader finds no slot to boot"},
		{"another one next", boot.State{Booted: "A", Next: "B", Slots: []boot.SlotState{on("A"), on("B")}}, "info: slot A is running and slot B boots next"},
		{"no fallback", boot.State{Booted: "A", Next: "A", Slots: []boot.SlotState{on("A"), {Name: "B"}}},
			"info: slot A has no fallback: no other slot is bootable"},
		{"out of the choice", boot.State{Booted: "A", Next: "B", Slots: []boot.SlotState{{Name: "A"}, on("B"), on("C")}},
			"warning: slot A is running, but the boot state does not allow it to boot; info: slot A is running and slot B boots next"},
	} {
		var got []string
		for _, f := range boot.Disagreements(c.st) {
			got = append(got, string(f.Severity)+": "+f.Evidence)
		}
		if s := strings.Join(got, "; "); s != c.want {
			t.Errorf("%s: %s; want %s", c.name, s, c.want)
		}
	}
}
