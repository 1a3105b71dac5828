package device

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"updater/blockdev"
	"updater/device/config"
	"updater/state"
	"updater/update"
)

// Scrubbed is the result of a scrub for a slot.
type Scrubbed struct {
	Slot   string `json:"slot"`
	Result string `json:"result"` // intact, damaged, repaired, or unknown: it cannot be compared
	Detail string `json:"detail,omitempty"`
}

// Scrub compares the slots with the signed documents that are kept of them, past the page cache. A damaged slot that does not run cannot be the
// fallback: it is marked bad, and a report is queued. If it was good before, repair, unless nil, writes it again and makes it the fallback; it may
// use the device, whose install lock is held. No install may run meanwhile. Errors: those of [Open] and of repair, the update.ReadBackErrors of slots
// that stay damaged, those of [Device.MarkBad], the cause of a cancelled context.
func Scrub(ctx context.Context, c *config.Config, repair func(ctx context.Context, d *Device, slot string) error) (list []Scrubbed, err error) {
	d, err := Open(c, Options{Purpose: Install})
	if err != nil {
		return nil, err
	}
	defer d.Close()
	trust, err := d.Trust(nil)
	if err != nil {
		return nil, err
	}
	conditions := d.conditions(trust.Policy)
	conditions.Floor = 0 // the boot loader knows none
	var damaged error
	for _, slot := range c.SlotNames() {
		s, err := d.scrub(ctx, slot, conditions)
		if repair != nil && ctx.Err() == nil {
			err = d.restore(ctx, &s, err, repair)
		}
		if ctx.Err() != nil {
			return list, context.Cause(ctx)
		}
		damaged = errors.Join(damaged, err)
		list = append(list, s)
	}
	return list, damaged
}

// scrub compares one slot and marks it bad if it is damaged; then it returns an error.
func (d *Device) scrub(ctx context.Context, slot string, c update.Conditions) (Scrubbed, error) {
	err := d.comparable(slot)
	if err == nil {
		err = d.compare(ctx, slot, c)
	}
	if err == nil {
		return Scrubbed{Slot: slot, Result: "intact"}, nil
	}
	if _, differs := errors.AsType[*update.ReadBackError](err); differs && ctx.Err() == nil {
		return Scrubbed{slot, "damaged", err.Error()}, errors.Join(fmt.Errorf("slot %s: %w", slot, err), d.damaged(ctx, slot, err))
	}
	return Scrubbed{slot, "unknown", err.Error()}, nil
}

// restore makes a slot that this scrub or an earlier one found damaged the fallback again. A slot that was chosen since needs none: it runs or
// boots next.
func (d *Device) restore(ctx context.Context, s *Scrubbed, damage error, repair func(ctx context.Context, d *Device, slot string) error) error {
	if _, noted := d.known.Damaged[s.Slot]; !noted {
		return damage
	}
	st, err := d.BootState(ctx)
	if err != nil || s.Slot == st.Booted || s.Slot == st.Next {
		return errors.Join(damage, err)
	}
	if s.Result == "intact" {
		err = d.RestoreFallback(ctx, s.Slot)
	} else {
		err = repair(ctx, d, s.Slot)
	}
	if err != nil {
		return errors.Join(damage, fmt.Errorf("repairing slot %s: %w", s.Slot, err))
	}
	s.Result = "repaired"
	return nil
}

// comparable refuses a slot that differs from its documents for a good reason: one that is not whole, or is mounted read-write.
func (d *Device) comparable(slot string) error {
	if err := d.oneRelease(slot); err != nil {
		return err
	}
	for _, role := range d.Config.Slot[0].Roles() {
		if _, isFile := d.Config.FileRole(slot, role); isFile {
			continue
		}
		p, err := d.Partition(slot, role)
		if err != nil {
			return err
		}
		at, err := blockdev.MountPoint(p.Path)
		if err != nil || at == "" {
			continue
		}
		var fs unix.Statfs_t
		if err := unix.Statfs(at, &fs); err == nil && fs.Flags&unix.ST_RDONLY == 0 {
			return fmt.Errorf("its %s is mounted read-write at %s", role, at)
		}
	}
	return nil
}

// damaged marks a slot bad and queues the report.
func (d *Device) damaged(ctx context.Context, slot string, cause error) error {
	rec := d.Release(slot)
	err := d.note(rec, state.Report{Outcome: state.ReportDamaged, Install: d.known.Fleet.Installs, Detail: cause.Error()})
	if slot != d.booted {
		err = errors.Join(err, d.markBad(ctx, slot, (*state.State).Damage))
	}
	return err
}
