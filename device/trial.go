package device

import (
	"context"
	"fmt"
	"slices"
	"time"

	"updater/boot"
	"updater/state"
	"updater/update"
)

// follows reports whether the device remembers how its releases prove themselves: it has a state store, and a channel or a report server.
func (d *Device) follows() bool {
	return d.store != nil && !d.target && (d.Config.Follows() || d.Config.Reports())
}

// onTrial records, before its activation, that a slot is on trial, and which slot a rollback leaves; "" is no rollback. A switch back to the
// running slot ends the trial of another one. The caller holds the boot lock.
func (d *Device) onTrial(slot, left string) error {
	if !d.follows() {
		return nil
	}
	rec, now := d.Release(slot), d.Now()
	return d.change(now, func(s *state.State) {
		f := &s.Fleet
		f.Rollback = state.Rollback{}
		if from := d.Release(left); from.Release != "" {
			f.Rollback = state.Rollback{To: slot, Report: fellBack(*f, from, now, "it was rolled back")}
		}
		if slot == d.booted && f.Trial.Slot == slot {
			return
		}
		if rec.Release == "" || slot == d.booted {
			f.Trial = state.Trial{}
			return
		}
		t := state.Trial{Slot: slot, Release: rec.Release, Attempt: d.Attempt}
		if f.Trial.Release == rec.Release {
			t.Lost, t.Attempt = f.Trial.Lost, max(t.Attempt, f.Trial.Attempt)
		}
		f.Trial = t
		f.Installs++
	})
}

// settle finds out whether the slot on trial was given up. A slot whose tries are spent has failed. Otherwise the boot loader's state does not
// show why the slot is no longer a choice: some loaders leave no trace of a try (tryboot, EFI), a power cut may have come before the
// activation, or another program has put it back. Such a loss counts, and the release has failed after boot.tries of them, or 2. The caller
// holds the boot lock.
func (d *Device) settle(ctx context.Context) error {
	t, rollback := d.known.Fleet.Trial, d.known.Fleet.Rollback.To
	if !d.follows() || (t.Release == "" || t.Ended) && rollback == "" {
		return nil
	}
	st, err := d.backend.State(ctx)
	if err != nil {
		return nil // the next operation reports it; the trial is judged once the state can be read
	}
	if rollback != "" {
		if err := d.rolledBack(rollback == st.Next || rollback == d.booted); err != nil || t.Release == "" || t.Ended {
			return err
		}
	}
	i := slices.IndexFunc(st.Slots, func(s boot.SlotState) bool { return s.Name == t.Slot })
	rec, now := d.Release(t.Slot), d.Now()
	if i < 0 || rec.Release != t.Release {
		return d.change(now, func(s *state.State) { s.Fleet.Trial = state.Trial{} })
	}
	slot := st.Slots[i]
	switch {
	case rec.Outcome == update.OutcomeBad:
		return d.failed(now, rec, "it was marked bad")
	case t.Slot == d.booted || t.Slot == st.Next:
		return nil
	case !slot.Bootable && slot.Priority > 0:
		return d.failed(now, rec, "its tries are spent")
	case t.Lost+1 >= max(d.Config.Boot.Tries, 2):
		return d.failed(now, rec, fmt.Sprintf("it did not come up %d times", t.Lost+1))
	}
	return d.change(now, func(s *state.State) { s.Fleet.Trial.Lost, s.Fleet.Trial.Ended = t.Lost+1, true })
}

// failed remembers that the release of a slot did not prove itself, and queues the report.
func (d *Device) failed(now time.Time, rec update.Record, detail string) error {
	return d.change(now, func(s *state.State) { d.noteFailure(s, now, rec, detail) })
}

func (d *Device) noteFailure(s *state.State, now time.Time, rec update.Record, detail string) {
	r := fellBack(s.Fleet, rec, now, detail)
	if s.Fleet.Trial.Release == rec.Release {
		s.Fleet.Trial = state.Trial{}
	}
	d.fail(&s.Fleet, r)
}

// fellBack is the report of a release that did not prove itself.
func fellBack(f state.Fleet, rec update.Record, now time.Time, detail string) state.Report {
	r := state.Report{Outcome: state.ReportFellBack, Install: f.Installs, Detail: detail}
	if f.Trial.Release == rec.Release {
		r.Attempt = f.Trial.Attempt
	}
	return about(r, rec, now)
}

func (d *Device) fail(f *state.Fleet, r state.Report) {
	f.Fail(state.Failure{Release: r.Release, Version: r.Version, Attempt: r.Attempt, At: r.At, Detail: r.Detail})
	if d.Config.Reports() {
		f.Queue(r)
	}
}

// rolledBack ends a rollback: the release that was left has failed if the switch took place.
func (d *Device) rolledBack(switched bool) error {
	return d.change(d.Now(), func(s *state.State) {
		if r := s.Fleet.Rollback; switched && r.To != "" {
			d.fail(&s.Fleet, r.Report)
		}
		s.Fleet.Rollback = state.Rollback{}
	})
}

// proved notes that the running release works.
func (d *Device) proved(s *state.State, now time.Time, slot string) {
	rec := d.Release(slot)
	if !d.follows() || rec.Release == "" || s.Fleet.Trial.Release != rec.Release {
		return
	}
	attempt := s.Fleet.Trial.Attempt
	s.Fleet.Trial = state.Trial{}
	s.Fleet.Works(rec.Release)
	d.queue(s, now, rec, state.Report{Outcome: state.ReportGood, Install: s.Fleet.Installs, Attempt: attempt})
}

// queue queues a report of a release if reports are configured.
func (d *Device) queue(s *state.State, now time.Time, rec update.Record, r state.Report) {
	if !d.Config.Reports() || rec.Release == "" {
		return
	}
	s.Fleet.Queue(about(r, rec, now))
}

func about(r state.Report, rec update.Record, now time.Time) state.Report {
	r.Release, r.Version, r.RollbackIndex, r.Slot, r.At = rec.Release, rec.Version, rec.RollbackIndex, rec.Slot, now
	return r
}

// NoteFailed queues the report of an install by an attempt that ended with an error, with the number that its activation would have had. It is durable when
// it returns nil. Errors: [StoreError].
func (d *Device) NoteFailed(rec update.Record, attempt int64, cause error) error {
	return d.note(rec, state.Report{Outcome: state.ReportFailed, Install: d.known.Fleet.Installs + 1, Attempt: attempt, Detail: cause.Error()})
}

// note queues a report, durably.
func (d *Device) note(rec update.Record, r state.Report) error {
	return d.locked(func() error {
		now := d.Now()
		return d.change(now, func(s *state.State) { d.queue(s, now, rec, r) })
	})
}

// See remembers the newest channel that was accepted, durably, and attests the clock by the time of its signature. accept judges it by what
// is remembered, under the lock. Errors: those of accept, [StoreError].
func (d *Device) See(seen state.Seen, signed time.Time, accept func(before state.Seen) error) error {
	return d.locked(func() error {
		if err := accept(d.known.Fleet.Seen); err != nil || d.known.Fleet.Seen == seen {
			return err
		}
		return d.change(d.Now(), func(s *state.State) { s.Fleet.Seen = seen }, signed)
	})
}

// Delivered forgets a report that the server has accepted, durably. Errors: [StoreError].
func (d *Device) Delivered(r state.Report) error {
	return d.locked(func() error {
		return d.change(d.Now(), func(s *state.State) { s.Fleet.Delivered(r) })
	})
}
