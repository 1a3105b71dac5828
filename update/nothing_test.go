package update_test

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"updater/bmap"
	"updater/update"
)

// TestNothingToDo: the state and the boot loader's view of a slot decide whether anything is done. An install is one that opens a
// slot for writing and marks it bad; an activation only reads and switches.
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
			if recovers := got == "installed" && strings.HasPrefix(c.name, "in a recovery"); err == nil && (res.Slot == "A") != recovers || d.opened != d.closed {
				t.Errorf("slot %s was installed; %d targets were opened, %d closed", res.Slot, d.opened, d.closed)
			}
			if ok && (nothing.Slot != "B" || nothing.Version != "7") {
				t.Errorf("nothing is to do for %+v", nothing)
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

// TestIfNewer: with IfNewer the releases that run or boot next have to be older, and a release that failed is not retried. If a slot is asked
// for, only that one counts.
func TestIfNewer(t *testing.T) {
	created := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536, Update: &bmap.Update{Version: "7", RollbackIndex: 7, Created: created}})
	same := update.Record{Outcome: update.OutcomeInstalled, Release: identityOf(t, k), Version: "7", RollbackIndex: 7, Created: created}
	bad := same
	bad.Outcome = update.OutcomeBad
	other := func(index int64, created time.Time) update.Record {
		return update.Record{Outcome: update.OutcomeInstalled, Release: "other", Version: "x", RollbackIndex: index, Created: created}
	}
	newer, older := other(8, created), other(6, created)
	none := update.Record{}
	ask := func(slot string) func(*update.Job) { return func(j *update.Job) { j.Slot = slot } }
	always := func(j *update.Job) { j.IfNewer = false }
	download := func(j *update.Job) { j.IfNewer, j.DownloadOnly = false, true }
	for _, c := range []struct {
		name   string
		next   string // slot that boots next; A runs
		a, b   update.Record
		change func(j *update.Job)
		want   string
	}{
		{"nothing is known", "A", none, none, nil, "installed B"},
		{"an older one runs", "A", older, none, nil, "installed B"},
		{"a newer one runs", "A", newer, none, nil, "newer A"},
		{"a newer one runs, and does not count", "A", newer, none, always, "installed B"},
		{"one of the same index runs, created later", "A", other(7, created.Add(time.Hour)), none, nil, "newer A"},
		{"one of the same index runs, created earlier", "A", other(7, created.Add(-time.Hour)), none, nil, "installed B"},
		{"a newer one boots next", "B", older, newer, nil, "newer B"},
		{"a newer one runs, another one boots next", "B", newer, older, nil, "newer A"},
		{"it was tried and cannot boot any more", "A", older, same, func(j *update.Job) { j.Boot.(*device).slots[1].Bootable = false }, "failed B"},
		{"a newer one is inactive", "A", older, newer, nil, "installed B"},
		{"it failed", "A", older, bad, nil, "failed B"},
		{"it failed, and does not count", "A", older, bad, always, "installed B"},
		{"another one failed", "A", older, update.Record{Outcome: update.OutcomeBad, Release: "other"}, nil, "installed B"},
		{"it runs and was marked bad", "A", bad, none, always, "installed B"},
		{"it runs and was marked bad, and counts", "A", bad, none, nil, "failed A"},
		{"it is inactive", "A", older, same, nil, "activated B"},
		{"it is in two slots", "A", same, same, ask("B"), "activated B"},
		{"it is in a slot that is not asked for", "A", older, same, ask("C"), "installed C"},
		{"it runs, another slot is asked for", "A", same, none, ask("B"), "installed B"},
		{"a rewrite", "B", older, same, func(j *update.Job) { j.Rewrite = true }, "installed C"},
		{"a download of what is waiting", "A", older, same, download, "waiting B"},
		{"a download of what failed", "A", older, bad, download, "installed B"},
		{"a download of another one", "A", older, older, download, "installed B"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDevice(1 << 20)
			d.slots = append(d.slots, update.Slot{Name: "C", Bootable: true})
			for i := range d.slots {
				d.slots[i].Next = d.slots[i].Name == c.next
			}
			clear(d.medium[:k.imageSize])
			copy(d.medium, k.image)
			copy(d.data, d.medium)
			job, m := k.job(d), &memory{d: d}
			job.State, job.IfNewer = m, true
			if c.change != nil {
				c.change(&job)
			}
			for i, rec := range []update.Record{c.a, c.b, c.b} { // C holds the release of B, if that is whole
				if rec.Slot = d.slots[i].Name; i < 2 || reflect.DeepEqual(c.b, same) && job.Slot != "C" {
					m.records = append(m.records, rec)
				}
			}
			res, err := update.Install(t.Context(), job)
			got := ""
			switch e, nothing := errors.AsType[*update.NothingError](err); {
			case nothing:
				got = string(e.Held) + " " + e.Slot
			case err != nil:
				t.Fatal(err)
			case slices.Contains(d.journal, "invalidate "+res.Slot):
				got = "installed " + res.Slot
			default:
				got = "activated " + res.Slot
			}
			if got != c.want || d.opened != d.closed {
				t.Errorf("%s, want %s: %v; %q", got, c.want, err, d.journal)
			}
		})
	}
	// Without an index and a time no order is known; a release does not count as newer than one that is not known to be older.
	k = newKit(t, bmap.CreateOptions{MaxRange: 65536})
	d := newDevice(1 << 20)
	job := k.job(d)
	job.State, job.IfNewer = &memory{d: d}, true
	if _, err := update.Install(t.Context(), job); err != nil {
		t.Errorf("Install beside slots that hold nothing = %v", err)
	}
}

// identityOf returns the identity that an install of the kit's image records.
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

// TestActivationHooks: a hook refuses the activation of an installed slot as it would its installation, and may be the last moment to
// cancel it.
func TestActivationHooks(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536})
	ctx, cancel := context.WithCancelCause(t.Context())
	refuse := func(_ context.Context, p update.Planned) error { return errInjected }
	cancels := func(context.Context, update.Planned) error { cancel(errInjected); return nil }
	for i, hooks := range [][2]func(context.Context, update.Planned) error{{refuse, nil}, {nil, refuse}, {nil, cancels}} {
		d := newDevice(1 << 20)
		clear(d.medium[:k.imageSize])
		copy(d.medium, k.image)
		job, m := k.job(d), &memory{d: d}
		m.records = []update.Record{{Slot: "B", Outcome: update.OutcomeInstalled, Release: identityOf(t, k)}}
		job.State, job.PreInstall, job.PostInstall = m, hooks[0], hooks[1]
		if _, err := update.Install(ctx, job); !errors.Is(err, errInjected) || d.next() != "A" {
			t.Errorf("hooks %d: Install = %v, next %s", i, err, d.next())
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
		p := newPhases()
		job.Progress = &p.Progress
		res, err := update.Install(ctx, job)
		cancel(nil)
		if d.opened != d.closed {
			t.Fatalf("cancelled at operation %d: %d targets were opened, %d closed", n, d.opened, d.closed)
		}
		if len(d.journal) < n {
			if got := strings.Join(p.list, " "); got != "check readback switch" || res.Tries != 3 || len(res.Signers) != 1 {
				t.Errorf("the phases are %s, the result %+v", got, res)
			}
			break
		}
		if strings.HasPrefix(d.journal[n-1], "activate") {
			if err != nil || d.next() != "B" {
				t.Fatalf("cancelled within the switch: Install = %v, next %s; want a finished switch", err, d.next())
			}
		} else if !errors.Is(err, stop) || d.next() != "A" {
			t.Fatalf("cancelled at operation %d (%s): Install = %v, next %s; want the cause, and A", n, d.journal[n-1], err, d.next())
		}
	}
	for _, ignores := range []bool{false, true} { // the switch fails, or is not kept
		d := newDevice(1 << 20)
		clear(d.medium[:k.imageSize])
		copy(d.medium, k.image)
		d.ignores = ignores
		d.onOp = func(i int) {
			if !ignores && strings.HasPrefix(d.journal[i-1], "activate") {
				d.failAt = i
			}
		}
		job := k.job(d)
		job.State = &memory{d: d, records: []update.Record{{Slot: "B", Outcome: update.OutcomeInstalled, Release: identityOf(t, k)}}}
		if _, err := update.Install(t.Context(), job); !isA[*update.BootError](err) || d.next() != "A" || d.opened != d.closed {
			t.Errorf("Install = %v, next %s; want a BootError", err, d.next())
		}
	}
}
