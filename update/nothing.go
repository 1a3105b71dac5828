package update

import (
	"context"
	"slices"

	"updater/release"
)

// held reports whether a slot holds the release already and needs no more than its activation; the slot is Slot then, and was read back.
// A [NothingError] means that it does not need even that. Only the state knows the release of a slot, so without one nothing is held.
//
// A slot that runs, or that boots next while another one runs, is not read. Any other one is read back: it may have been written since,
// and a person who starts a recovery may do so because the next choice does not work.
func (r *run) held(ctx context.Context, slots []Slot) (bool, error) {
	if r.State == nil || r.Rewrite || r.Restore != nil {
		return false, nil
	}
	running := slices.ContainsFunc(slots, func(s Slot) bool { return s.Booted })
	candidate := Slot{}
	for _, s := range slots {
		if r.Slot != "" && s.Name != r.Slot {
			continue
		}
		rec := r.State.Release(s.Name)
		switch held := r.heldBy(s, rec); {
		case held == HeldNext && !running:
			candidate = s
		case held != "":
			return false, &NothingError{Slot: s.Name, Version: rec.Version, Held: held}
		case r.same(rec) && rec.Outcome == OutcomeInstalled && r.DownloadOnly:
			return false, &NothingError{Slot: s.Name, Version: rec.Version, Held: HeldWaiting}
		case r.same(rec) && rec.Outcome == OutcomeInstalled && candidate.Name == "":
			candidate = s
		}
	}
	if candidate.Name == "" {
		return false, nil
	}
	if err := r.mayLeave(slots); err != nil {
		return false, err
	}
	same, err := r.readsBack(ctx, candidate.Name)
	if same && candidate.Next {
		return false, &NothingError{Slot: candidate.Name, Version: r.release.Version(), Held: HeldNext}
	}
	return same, err
}

func (r *run) same(rec Record) bool { return rec.Release == r.release.Identity() }

// heldBy returns the reason why a slot with a record makes the install unnecessary, "" if it does not.
func (r *run) heldBy(s Slot, rec Record) Held {
	active := s.Booted || s.Next
	switch {
	case rec.Outcome == "" || !active && !r.IfNewer:
	case r.same(rec) && s.Booted && rec.Outcome == OutcomeInstalled:
		return HeldRunning
	case r.same(rec) && (rec.Outcome == OutcomeBad || !s.Bootable):
		if r.IfNewer {
			return HeldFailed
		}
	case r.same(rec) && s.Next:
		return HeldNext
	case r.IfNewer && active && !r.release.Order().Newer(release.Order{RollbackIndex: rec.RollbackIndex, Created: rec.Created}):
		return HeldNewer
	}
	return ""
}

// readsBack reports whether a slot reads back as the release. It leaves its partitions open for an activation, else nothing.
func (r *run) readsBack(ctx context.Context, slot string) (same bool, err error) {
	asked := r.Slot
	defer func() {
		if !same || err != nil {
			r.close()
			r.Slot, r.parts = asked, nil
		}
	}()
	r.Slot = slot
	if err := r.plan(ctx); err != nil {
		return false, err
	}
	for _, p := range r.parts {
		if err := p.openHeld(); err != nil {
			if _, isFile := p.target.(FileTarget); isFile { // it is missing, or another one
				return false, cancelled(ctx)
			}
			return false, err
		}
		bad, err := p.readBackOf().Compare(ctx, p.target)
		if err != nil || len(bad) > 0 {
			return false, cancelled(ctx) // a slot that cannot be read is written
		}
		p.held = p.newHeld(false)
		p.held.found(p.Map.MappedBytes())
	}
	return true, nil
}

// reactivate switches to the slot that held has found.
func (r *run) reactivate(ctx context.Context, err error) (*Result, error) {
	if err != nil {
		return nil, err
	}
	for _, hook := range []func(context.Context, Planned) error{r.PreInstall, r.PostInstall} {
		if err := r.ask(ctx, hook); err != nil {
			return nil, err
		}
	}
	r.phase(PhaseSwitch)
	if err := cancelled(ctx); err != nil {
		return nil, err
	}
	if err := r.activate(context.WithoutCancel(ctx)); err != nil {
		return nil, err
	}
	return r.result(), nil
}
