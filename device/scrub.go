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

// Scrubbed is what a scrub found of a slot.
type Scrubbed struct {
	Slot   string `json:"slot"`
	Result string `json:"result"` // intact, damaged, or unknown: it cannot be compared
	Detail string `json:"detail,omitempty"`
}

// Scrub compares the slots with the signed documents that are kept of them, past the page cache. A damaged slot that does not run is no release to
// fall back to: it is marked bad, and a report is queued. No install may run meanwhile. Errors: those of [Open], the update.ReadBackErrors of
// damaged slots, those of [Device.MarkBad], the cause of a cancelled context.
func Scrub(ctx context.Context, c *config.Config) (list []Scrubbed, err error) {
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
		s := Scrubbed{Slot: slot, Result: "intact"}
		err := d.comparable(slot)
		if err == nil {
			err = d.compare(ctx, slot, conditions)
		}
		if ctx.Err() != nil {
			return list, context.Cause(ctx)
		}
		if err != nil {
			s.Result, s.Detail = "unknown", err.Error()
		}
		if _, differs := errors.AsType[*update.ReadBackError](err); differs {
			s.Result = "damaged"
			damaged = errors.Join(damaged, fmt.Errorf("slot %s: %w", slot, err), d.damaged(ctx, slot, err))
		}
		list = append(list, s)
	}
	return list, damaged
}

// comparable refuses a slot that differs from its documents for good reason: one that is not whole, or is mounted read-write.
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

// damaged takes a slot out of the choice and queues the report.
func (d *Device) damaged(ctx context.Context, slot string, cause error) error {
	rec := d.Release(slot)
	err := d.note(rec, state.Report{Outcome: state.ReportDamaged, Install: d.known.Fleet.Installs, Detail: cause.Error()})
	if slot != d.booted {
		err = errors.Join(err, d.MarkBad(ctx, slot))
	}
	return err
}
