package update_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"updater/bmap"
	"updater/update"
)

// TestNothingToDo: what a slot holds by the state and the boot loader decides whether anything is done. An install is one that opens
// a slot for writing and marks it bad; an activation only reads and switches.
func TestNothingToDo(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536, Update: &bmap.Update{Version: "7", RollbackIndex: 7}})
	for _, c := range []struct {
		name    string
		a, b    string // flags: r running, n next, g good, x not bootable
		outcome update.Outcome
		holds   bool // the medium of B holds the image
		want    string
	}{
		{"next", "rg", "n", update.OutcomeInstalled, false, "next"},
		{"running on trial", "g", "rn", update.OutcomeInstalled, false, "running"},
		{"running, good", "g", "rng", update.OutcomeInstalled, false, "running"},
		{"installed", "rng", "", update.OutcomeInstalled, true, "activated"},
		{"installed, fell back", "rng", "x", update.OutcomeInstalled, true, "activated"},
		{"installed, changed since", "rng", "", update.OutcomeInstalled, false, "installed"},
		{"being written", "rng", "x", update.OutcomeWriting, true, "installed"},
		{"failed", "rng", "x", update.OutcomeFailed, true, "installed"},
		{"marked bad", "rng", "x", update.OutcomeBad, true, "installed"},
		{"unknown", "rng", "", "", true, "installed"},
		{"in a recovery, next", "g", "n", update.OutcomeInstalled, true, "next"},
		{"in a recovery, next and changed", "gx", "n", update.OutcomeInstalled, false, "installed"},
		{"in a recovery, no slot boots", "x", "x", update.OutcomeInstalled, true, "activated"},
		{"running slot is not good", "rn", "", update.OutcomeInstalled, true, "refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDevice(1 << 20)
			for i, flags := range []string{c.a, c.b} {
				has := func(f string) bool { return strings.Contains(flags, f) }
				d.slots[i] = update.Slot{Name: []string{"A", "B"}[i], Booted: has("r"), Next: has("n"), Good: has("g"), Bootable: !has("x")}
			}
			if c.holds {
				clear(d.medium[:k.imageSize])
				copy(d.medium, k.image)
				copy(d.data, d.medium)
			}
			job, m := k.job(d), &memory{d: d}
			job.State = m
			if c.outcome != "" {
				m.records = []update.Record{{Slot: "B", Outcome: c.outcome, Release: identityOf(t, k), Version: "7", RollbackIndex: 7}}
			}
			res, err := update.Install(t.Context(), job)
			got := "installed"
			nothing, ok := errors.AsType[*update.NothingError](err)
			_, refused := errors.AsType[*update.NotGoodError](err)
			switch {
			case ok:
				got = string(nothing.Held)
			case refused:
				got = "refused"
			case err != nil:
				t.Fatal(err)
			case !slices.ContainsFunc(d.journal, func(op string) bool { return strings.HasPrefix(op, "invalidate") }):
				got = "activated"
			}
			if got != c.want {
				t.Fatalf("%s, want %s: %+v, %v; %v", got, c.want, res, err, d.journal)
			}
			switch changed := slices.ContainsFunc(d.journal, func(op string) bool { return op != "read back" && !strings.HasPrefix(op, "open") }); {
			case got == "activated" && (res.Slot != "B" || d.next() != "B" || res.SkippedBytes != res.MappedBytes || len(written(d)) > 0):
				t.Errorf("%+v, next %s; %v", res, d.next(), d.journal)
			case (ok || refused) && changed:
				t.Errorf("something was changed: %v", d.journal)
			}
		})
	}
}

// identityOf is what an install of the kit's image records.
func identityOf(t *testing.T, k *kit) string {
	t.Helper()
	d := newDevice(1 << 20)
	job, m := k.job(d), &memory{d: d}
	job.State = m
	if _, err := update.Install(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	return m.records[0].Release
}

// TestActivationHooks: a hook refuses the activation of an installed slot as it would its installation.
func TestActivationHooks(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536})
	for _, post := range []bool{false, true} {
		d := newDevice(1 << 20)
		clear(d.medium[:k.imageSize])
		copy(d.medium, k.image)
		job, m := k.job(d), &memory{d: d}
		m.records = []update.Record{{Slot: "B", Outcome: update.OutcomeInstalled, Release: identityOf(t, k)}}
		job.State = m
		refuse := func(_ context.Context, p update.Planned) error { return errInjected }
		if job.PreInstall = refuse; post {
			job.PreInstall, job.PostInstall = nil, refuse
		}
		if _, err := update.Install(t.Context(), job); !errors.Is(err, errInjected) || d.next() != "A" {
			t.Errorf("post %v: %v, next %s", post, err, d.next())
		}
	}
}

// TestActivationCancelled: an activation of an installed slot is cancelled before the switch or not at all.
func TestActivationCancelled(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536})
	stop := errors.New("signal")
	for n := 1; ; n++ {
		ctx, cancel := context.WithCancelCause(t.Context())
		d := newDevice(1 << 20)
		clear(d.medium[:k.imageSize])
		copy(d.medium, k.image)
		d.onOp = func(i int) {
			if i == n {
				cancel(stop)
			}
		}
		job := k.job(d)
		job.State = &memory{d: d, records: []update.Record{{Slot: "B", Outcome: update.OutcomeInstalled, Release: identityOf(t, k)}}}
		_, err := update.Install(ctx, job)
		cancel(nil)
		if len(d.journal) < n {
			return
		}
		if strings.HasPrefix(d.journal[n-1], "activate") {
			if err != nil || d.next() != "B" {
				t.Fatalf("cancelled within the switch: Install = %v, next %s; want a finished switch", err, d.next())
			}
		} else if !errors.Is(err, stop) || d.next() != "A" {
			t.Fatalf("cancelled at operation %d (%s): Install = %v, next %s; want the cause, and A", n, d.journal[n-1], err, d.next())
		}
	}
}
