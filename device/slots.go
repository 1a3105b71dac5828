package device

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"updater/boot"
	"updater/device/config"
	"updater/state"
	"updater/update"
)

// Slots implements update.Boot. An install compares its later changes with the state that it saw first.
func (d *Device) Slots(ctx context.Context) ([]update.Slot, error) {
	st, err := d.bootState(ctx)
	if err != nil {
		return nil, err
	}
	if d.seen == nil {
		d.seen = &view{booted: st.Booted, next: st.Next, slots: d.known.Slots}
	}
	slots := make([]update.Slot, len(st.Slots))
	for i, s := range st.Slots {
		slots[i] = update.Slot{Name: s.Name, Booted: s.Name == st.Booted, Next: s.Name == st.Next, Bootable: s.Bootable, Good: s.Good}
	}
	return slots, nil
}

// Invalidate implements update.Boot.
func (d *Device) Invalidate(ctx context.Context, slot string) error {
	return d.locked(func() error {
		if err := d.unchanged(ctx, slot); err != nil {
			return err
		}
		invalidate := d.backend.Invalidate
		if d.recovery && len(d.Config.Slot) == 1 {
			invalidate = func(ctx context.Context, slot string) error { return boot.InvalidateLast(ctx, d.backend, slot) }
		}
		if err := invalidate(ctx, slot); err != nil {
			return err
		}
		st, err := d.backend.State(ctx)
		if d.seen != nil {
			d.seen.next = st.Next
		}
		return err
	})
}

// Activate implements update.Boot.
func (d *Device) Activate(ctx context.Context, slot string, tries int) error {
	return d.locked(func() error {
		if err := d.unchanged(ctx, slot); err != nil {
			return err
		}
		if err := d.onTrial(slot, ""); err != nil {
			return err
		}
		return d.backend.Activate(ctx, slot, tries)
	})
}

// Restoring prepares the repair of a slot: its release may be below the floor, and the install under way sees what the scrub left.
func (d *Device) Restoring(slot string) { d.restoring, d.seen = slot, nil }

// RestoreFallback makes a slot that was repaired and read back the fallback again, with its good mark. The slot that boots next stays.
// Errors: [ChangedError], update.BootError, [state.Error].
func (d *Device) RestoreFallback(ctx context.Context, slot string) error {
	return d.locked(func() error {
		err := d.unchanged(ctx, slot)
		if err == nil {
			err = d.oneRelease(slot)
		}
		if err == nil {
			err = boot.RestoreFallback(ctx, d.backend, slot)
		}
		if err != nil {
			return bootError(slot, "restoring it as the fallback", err)
		}
		now := d.Now()
		return d.change(now, func(s *state.State) { s.Restored(slot, now) })
	})
}

// view is the device as an install knows it: as it was at the start, with the install's own changes since.
type view struct {
	booted, next string
	slots        map[string]state.Slot
}

// ChangedError reports that another process changed the device during an install. No slot was switched.
type ChangedError struct{ What string }

func (e *ChangedError) Error() string { return "the device was changed during the install: " + e.What }

// Hint says what to do next.
func (e *ChangedError) Hint() string { return "see updater status, then run the install again" }

// unchanged compares the device with what the install under way knows of it. The caller holds the boot lock.
func (d *Device) unchanged(ctx context.Context, slot string) error {
	if d.seen == nil {
		return nil
	}
	st, err := d.backend.State(ctx)
	if err != nil {
		return err
	}
	if st.Booted != d.seen.booted {
		return &ChangedError{fmt.Sprintf("%s is running, %s was", orNone(st.Booted), orNone(d.seen.booted))}
	}
	if st.Next != d.seen.next {
		return &ChangedError{fmt.Sprintf("%s boots next, %s did", orNone(st.Next), orNone(d.seen.next))}
	}
	floor := d.Floor()
	for _, image := range d.seen.slots[slot] {
		if image.Result.Whole() || image.Result == state.Writing {
			if image.RollbackIndex < floor && slot != d.restoring {
				return &update.RollbackError{Index: image.RollbackIndex, Floor: floor}
			}
		}
	}
	return nil
}

func orNone(slot string) string {
	if slot == "" {
		return "no slot"
	}
	return "slot " + slot
}

// Tries is how many boots a new slot gets: the configured number, bounded by the most that the backend can count.
func (d *Device) Tries() int { return min(d.Config.Boot.Tries, d.caps.MaxTries) }

// MaxTries is the most tries that the boot loader can count.
func (d *Device) MaxTries() int { return d.caps.MaxTries }

// IsFile reports whether the disk is a disk image file.
func (d *Device) IsFile() bool { return d.disk.IsFile() }

// VolatileTry reports whether the boot loader forgets an activation when the power fails.
func (d *Device) VolatileTry() bool { return d.caps.VolatileTry }

// Booted is the running slot, "" outside every slot.
func (d *Device) Booted() string { return d.booted }

// SlotOrBooted is the slot asked for, or the running one when slot is "". Errors: [config.RequestError].
func (d *Device) SlotOrBooted(slot string) (string, error) {
	if slot != "" {
		return slot, d.Known(slot)
	}
	if d.booted == "" {
		return "", config.Requestf("no slot is running by the kernel command line; name one, or use --booted")
	}
	return d.booted, nil
}

// Known returns nil when the slot is configured. Errors: [config.RequestError].
func (d *Device) Known(slot string) error {
	if slices.Contains(d.Config.SlotNames(), slot) {
		return nil
	}
	return d.Config.UnknownSlot(slot)
}

// check is the only check before a slot may boot: by the state store it holds one whole release, at or above the floor. Errors
// wrap [ErrRefused] or are an update.RollbackError.
func (d *Device) check(slot string) error {
	if err := d.oneRelease(slot); err != nil {
		return err
	}
	for _, image := range d.known.Slots[slot] {
		if image.RollbackIndex < d.known.Floor {
			return fmt.Errorf("slot %s: %w", slot, &update.RollbackError{Index: image.RollbackIndex, Floor: d.known.Floor})
		}
	}
	return nil
}

// oneRelease refuses a slot that does not hold one whole release by its records: a role whose install did not end, or roles of different
// releases. A slot without records passes when it is running, or has one role, which other means may have filled.
func (d *Device) oneRelease(slot string) error {
	records, roles := d.known.Slots[slot], d.Config.Slot[0].Roles()
	switch {
	case len(records) > 0:
	case slot == d.booted || len(roles) == 1:
		return nil
	default:
		return fmt.Errorf("%w: by the state store it was never written", ErrRefused)
	}
	if err := d.known.OneRelease(slot, roles); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return nil
}

// MarkGood marks a slot good and raises the rollback floor to its release. The floor follows the boot state, so that a power cut between
// them never leaves a floor without a good slot; the next call completes it. Idempotent. A slot below the floor is not refused: the boot
// loader has fallen back to it, and without a mark it would run out of tries. Errors: update.BootError, [state.Error].
func (d *Device) MarkGood(ctx context.Context, slot string) error {
	return d.locked(func() error {
		if err := d.oneRelease(slot); err != nil && len(d.Config.Slot[0].Roles()) > 1 {
			return bootError(slot, "marking it good", err)
		}
		if err := d.backend.MarkGood(ctx, slot); err != nil {
			return bootError(slot, "marking it good", err)
		}
		now := d.Now()
		return d.change(now, func(s *state.State) {
			d.proved(s, now, slot)
			s.MarkGood(slot, now)
		})
	})
}

// MarkBad marks a slot bad: the boot loader no longer chooses it. It refuses the last bootable slot. Errors: update.BootError, [state.Error].
func (d *Device) MarkBad(ctx context.Context, slot string) error {
	return d.markBad(ctx, slot, (*state.State).MarkBad)
}

func (d *Device) markBad(ctx context.Context, slot string, record func(s *state.State, slot string, at time.Time)) error {
	return d.locked(func() error {
		if err := d.backend.MarkBad(ctx, slot); err != nil {
			return bootError(slot, "marking it bad", err)
		}
		now := d.Now()
		if err := d.change(now, func(s *state.State) { record(s, slot, now) }); err != nil {
			return err
		}
		return d.settle(ctx)
	})
}

// SwitchTo makes a slot the next choice for tries boots, at the request of a person. A slot that does not hold one whole release, or one
// below the floor, is refused. Errors: update.BootError, update.RollbackError.
func (d *Device) SwitchTo(ctx context.Context, slot string, tries int) error {
	return d.switchTo(ctx, slot, tries, "")
}

// switchTo is SwitchTo; the release of the slot that is left by a rollback is not retried automatically.
func (d *Device) switchTo(ctx context.Context, slot string, tries int, left string) error {
	return d.locked(func() error {
		err := d.check(slot)
		if err == nil {
			err = d.signersStand(slot)
		}
		if err != nil {
			return refused(slot, "activating it", err)
		}
		if err := d.onTrial(slot, left); err != nil {
			return err
		}
		if err := d.backend.Activate(ctx, slot, tries); err != nil || left == "" || !d.follows() {
			return bootError(slot, "activating it", err)
		}
		return d.rolledBack(true)
	})
}

// refused is the error of a slot that check does not pass.
func refused(slot, doing string, err error) error {
	if _, old := errors.AsType[*update.RollbackError](err); old {
		return err
	}
	return bootError(slot, doing, err)
}

// Rollback switches to another bootable slot than the running one and returns it. Errors: update.BootError, update.RollbackError.
func (d *Device) Rollback(ctx context.Context) (slot string, err error) {
	st, err := d.BootState(ctx)
	if err != nil {
		return "", err
	}
	for _, s := range st.Slots {
		if s.Bootable && s.Name != st.Booted && (s.Name != st.Next || st.Booted != "") {
			left := st.Booted
			if s.Name == st.Next {
				left = "" // it was the next choice before
			}
			return s.Name, d.switchTo(ctx, s.Name, d.Tries(), left)
		}
	}
	return "", bootError("", "rolling back", errors.New("no other slot is bootable"))
}

// Repair restores the redundancy of the boot state and of the disk's partition table. It makes a slot that does not hold one whole
// release unbootable, unless it is the last one. All copies are whole when it returns nil. Errors: update.BootError.
func (d *Device) Repair(ctx context.Context) error {
	return d.locked(func() error {
		err := d.backend.Repair(ctx)
		_, bad := d.disk.RepairTable()
		if err == nil {
			err = d.dropPartial(ctx)
		}
		return bootError("", "repairing it", errors.Join(err, bad))
	})
}

// FirstState makes the slot that is running, or runs by [Options.Booted], the choice of a boot loader without one, and marks every other
// slot bad. A state in which a slot boots next is left as it is. Errors: [config.RequestError], update.BootError.
func (d *Device) FirstState(ctx context.Context) error {
	st, err := d.bootState(ctx)
	if err == nil && st.Next != "" {
		return &config.RequestError{
			Err:    fmt.Errorf("the boot loader has a state already: slot %s boots next; nothing was changed", st.Next),
			Advice: "updater mark and updater activate change it",
		}
	}
	if err != nil {
		if err := d.Repair(ctx); err != nil {
			return err
		}
	}
	err = d.MarkGood(ctx, d.booted)
	for _, name := range d.Config.SlotNames() {
		if err == nil && name != d.booted {
			err = d.MarkBad(ctx, name)
		}
	}
	return err
}

// dropPartial marks bootable slots that do not hold one whole release bad.
func (d *Device) dropPartial(ctx context.Context) error {
	st, err := d.backend.State(ctx)
	if err != nil {
		return err
	}
	for _, s := range st.Slots {
		if !s.Bootable || s.Name == d.booted || d.oneRelease(s.Name) == nil {
			continue
		}
		if err := d.backend.Invalidate(ctx, s.Name); err != nil && !errors.Is(err, boot.ErrRefused) {
			return err
		}
	}
	return nil
}

// RequestRecovery has the boot loader start the recovery once, at the next boot. Errors: update.BootError.
func (d *Device) RequestRecovery(ctx context.Context) error {
	return d.locked(func() error { return bootError("", "requesting the recovery", boot.RequestRecovery(ctx, d.backend)) })
}

// SpendTry takes one try from a slot, as the boot loader would when it starts it. It refuses what SwitchTo refuses. Errors:
// update.BootError, update.RollbackError.
func (d *Device) SpendTry(ctx context.Context, slot string) error {
	return d.locked(func() error {
		if err := d.check(slot); err != nil {
			return refused(slot, "starting it", err)
		}
		return bootError(slot, "spending its try", boot.SpendTry(ctx, d.backend, slot))
	})
}

// BootState is the boot loader's state as it is now. Errors: update.BootError.
func (d *Device) BootState(ctx context.Context) (st boot.State, err error) {
	st, err = d.bootState(ctx)
	return st, bootError("", "reading it", err)
}

func (d *Device) bootState(ctx context.Context) (st boot.State, err error) {
	err = d.reading(func() (err error) { st, err = d.backend.State(ctx); return err })
	return st, err
}

func bootError(slot, doing string, err error) error {
	if err == nil {
		return nil
	}
	return &update.BootError{Slot: slot, Doing: doing, Err: err}
}
