package line

import (
	"context"
	"fmt"

	"updater/provision/board"
	"updater/provision/identity"
	"updater/provision/medium"
	"updater/provision/plan"
	"updater/provision/record"
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
	if id := r.Plan.Identity; id != nil {
		if err := r.findEarlier(u); err != nil {
			return err
		}
		if err := r.reserve(ctx, u); err != nil {
			return err
		}
		if u.earlier.Serial != "" {
			keep = id.Partition // so that a power cut does not lose the device's key
		}
	}
	if r.Plan.Image != nil {
		return nil
	}
	u.step("table", 0)
	return u.device().WriteTable(r.Plan.Disk.GUID, keep)
}

// findEarlier reads what the medium holds and refuses a latched device. A medium that does not tell whether it has a latch is not
// written.
func (r *run) findEarlier(u *unit) error {
	if w, ok := u.device().OldWindow(r.Plan.Identity.Partition); ok {
		u.earlier = identity.Read(r.Plan.Identity, w, r.Spool.Witness(u.claim.Unit))
		u.note(func(f *facts) {
			f.held = u.earlier.Claimed
			if u.earlier.Foreign != (identity.Found{}) {
				f.foreign = &u.earlier.Foreign
			}
		})
	}
	if r.Plan.Latch == nil {
		return nil
	}
	if err := u.device().Failed(); err != nil {
		return u.device().Fail("looking for a latch", err)
	}
	gate := record.Gate{
		Station: r.Key.Public(), Factory: r.Factory, Token: r.Token, Now: r.Now,
		Interrupted: func(latch []byte) bool { return r.Spool.Interrupted(latch, u.claim.Unit, r.Now) },
	}
	return gate.Check(u.Name, u.earlier.Latch, u.earlier.Claimed)
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
