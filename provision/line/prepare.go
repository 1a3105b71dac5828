package line

import (
	"cmp"
	"context"
	"fmt"

	"updater/provision/board"
	"updater/provision/identity"
	"updater/provision/medium"
	"updater/provision/plan"
	"updater/provision/record"
	"updater/provision/target"
)

// prepare is everything before the first byte of an image: open, fit, latch, reserve, and the partition table of a layout. Until the
// table nothing on the disk changes.
func (r *run) prepare(ctx context.Context, u *unit) error {
	u.step("prepare", 0)
	if err := u.open(ctx, r.Host); err != nil {
		if u.attempt > 0 {
			return &medium.Error{Unit: u.Name, Step: "opening it again", Err: err}
		}
		return &plan.RefusedError{Target: u.Name, Reason: err.Error(), Err: err}
	}
	dev := u.device()
	if size := dev.Size(); size != u.Disk.Size {
		return &plan.RefusedError{Target: u.Name, Reason: fmt.Sprintf("it has %d bytes, expected %d as when it was selected", size, u.Disk.Size)}
	}
	if err := dev.Fit(r.Plan, r.Payloads, r.Check); err != nil {
		return err
	}
	if !r.Check {
		if err := r.begin(ctx, u); err != nil {
			return err
		}
	}
	r.advance(u, 0)
	return nil
}

// begin decides whether the unit may be written, reserves its serial and writes the partition table of a layout.
func (r *run) begin(ctx context.Context, u *unit) error {
	keep := ""
	if err := r.findEarlier(u); err != nil {
		return err
	}
	if id := r.Plan.Identity; id != nil {
		if err := r.reserve(ctx, u); err != nil {
			return err
		}
		if u.earlier.Serial != "" {
			keep = id.Partition // so that a power cut does not lose the device's key
		}
	}
	if err := r.steps(ctx, u, plan.Before); err != nil {
		return err
	}
	if err := r.Spool.Begin(u.claim.Unit, u.table, u.floor); err != nil {
		return fmt.Errorf("%s: noting in the spool that it is written: %w", u.Name, err)
	}
	if r.Plan.Image != nil {
		return nil
	}
	u.step("table", 0)
	return u.device().WriteTable(cmp.Or(r.Plan.Disk.GUID, u.table), keep)
}

// findEarlier reads the content of the medium and refuses a device that was provisioned before. A medium on which this cannot be determined is
// not written.
func (r *run) findEarlier(u *unit) error {
	old, table := u.device().Old()
	floor, begun := r.Spool.Begun(u.claim.Unit, u.claim.Strong, table, r.Now)
	was, err := r.Host.Earlier(u.device(), old, max(floor, u.floor))
	if err != nil {
		return &plan.RefusedError{Target: u.Name, Reason: err.Error(), Err: err}
	}
	u.floor = max(was.Floor, floor, u.floor)
	if u.table == "" && r.Plan.Image == nil && r.Plan.Disk.GUID == "" {
		u.table = target.NewGUID()
	}
	r.findIdentity(u)
	if err := u.device().Failed(); err != nil && (r.Plan.Latch != nil || r.Plan.Config != "") {
		return u.device().Fail("looking for a latch", err)
	}
	gate := record.Gate{
		Station: r.Key.Public(), Factory: r.Factory, Token: r.Token, Now: r.Now, Device: was.Device && !begun,
		Interrupted: func(latch []byte) bool { return r.Spool.Interrupted(latch, u.claim.Unit, r.Now) },
	}
	latch := u.earlier.Latch
	if r.Plan.Latch == nil {
		latch = nil
	}
	return gate.Check(u.Name, latch, u.earlier.Claimed)
}

// findIdentity reads the identity that the medium holds.
func (r *run) findIdentity(u *unit) {
	id := r.Plan.Identity
	if id == nil {
		return
	}
	if w, ok := u.device().OldWindow(id.Partition); ok {
		u.earlier = identity.Read(id, w, r.Spool.Witness(u.claim.Unit))
		u.note(func(f *facts) {
			f.held = u.earlier.Claimed
			if u.earlier.Foreign != (identity.Found{}) {
				f.foreign = &u.earlier.Foreign
			}
		})
	}
}

// reserve gets the serial, bound to the hardware. A second attempt keeps it.
func (r *run) reserve(ctx context.Context, u *unit) error {
	if u.got != nil {
		return nil
	}
	claim := u.claim
	claim.Held = u.earlier.Serial
	got, err := r.Allocator.Reserve(ctx, claim)
	if err != nil {
		return fmt.Errorf("%s: reserving a serial: %w", u.Name, err)
	}
	u.note(func(f *facts) { f.got = &got })
	if err := r.Plan.Identity.Serial.Check(got.Serial); err != nil {
		return fmt.Errorf("%s: %w", u.Name, err)
	}
	if other, _ := r.serials.LoadOrStore(got.Serial, u); other != u {
		return fmt.Errorf("%s: serial %s was reserved for %s in this run already", u.Name, got.Serial, other.(*unit).Name)
	}
	u.slot.Set(func(t *board.Tile) { t.Serial = got.Serial })
	return nil
}
