package line

import (
	"context"
	"fmt"
	"time"

	"updater/provision/identity"
	"updater/provision/medium"
	"updater/provision/plan"
	"updater/provision/record"
)

// verify flushes the disk and compares all images with the medium. A unit without mismatches is completed at once.
func (r *run) verify(ctx context.Context, u *unit) error {
	if r.Check {
		return r.finishCheck(ctx, u)
	}
	u.step("flush", 0)
	if err := u.device().Flush(); err != nil {
		return err
	}
	u.step("readback", medium.ReadBackBytes(r.Payloads))
	bad, err := u.device().Compare(ctx, r.Payloads, func(n int64) { u.slot.Done().Add(n) })
	if err != nil {
		return err
	}
	if bad == nil {
		return r.complete(ctx, u)
	}
	for _, image := range bad {
		for _, m := range image {
			u.retry("readback", m.Offset, m.Err)
		}
	}
	u.bad = bad
	u.enter(repairing)
	return nil
}

// repair rewrites the ranges that differ and reads them back.
func (r *run) repair(ctx context.Context, u *unit) error {
	u.step("repair", 0)
	if err := u.device().Repair(ctx, r.Payloads, u.bad); err != nil {
		return err
	}
	u.enter(completing)
	return nil
}

// complete is everything after the images, up to the verdict.
func (r *run) complete(ctx context.Context, u *unit) error {
	if err := r.fill(ctx, u); err != nil {
		return u.device().Blame("writing", err)
	}
	if err := u.close(); err != nil {
		return err
	}
	u.step("kernel", 0)
	if err := r.Host.Boot(ctx, u.Disk, u.parts, u.floor); err != nil {
		return fmt.Errorf("%s: %w", u.Name, err)
	}
	if err := r.steps(ctx, u, plan.After); err != nil {
		return err
	}
	if r.Plan.Latch != nil {
		if err := r.latch(ctx, u); err != nil {
			return err
		}
	}
	return r.pass(ctx, u)
}

// fill writes the parts that are in no image: the table of a whole-disk image, empty file systems, the identity.
func (r *run) fill(ctx context.Context, u *unit) error {
	dev := u.device()
	if r.Plan.Image != nil {
		u.step("table", 0)
		if err := dev.FitTable(r.Plan.Image.Grow); err != nil {
			return err
		}
	}
	if err := dev.Format(func() { u.step("filesystem", 0) }); err != nil {
		return err
	}
	if r.Plan.Identity == nil {
		return nil
	}
	u.step("identity", 0)
	w, err := dev.Window(r.Plan.Identity.Partition)
	if err != nil {
		return err
	}
	id, err := identity.Write(ctx, identity.Spec{
		Rule: r.Plan.Identity, Window: w, Reservation: *u.got, Before: u.earlier, Witness: r.Spool.Witness(u.claim.Unit), Web: r.Web,
		Issuers: r.Issuers, Now: r.Now,
	})
	if err != nil {
		return fmt.Errorf("%s: writing the identity: %w", u.Name, err)
	}
	u.note(func(f *facts) { f.id = id })
	return nil
}

// latch writes the latch to the device. It is the last change of the medium.
func (r *run) latch(ctx context.Context, u *unit) error {
	u.step("latch", 0)
	line, err := record.Seal(record.Latch{
		Kind: "latch", Serial: u.got.Serial, Unit: u.claim.Unit, Station: r.Plan.Record.Station, Plan: r.Plan.Sum, Time: time.Now().UTC(),
	}, r.Key)
	if err != nil {
		return err
	}
	if err := u.open(ctx, r.Host); err != nil {
		return err
	}
	w, err := u.device().Window(r.Plan.Identity.Partition)
	if err != nil {
		return err
	}
	if err := r.Spool.Intend(line, u.claim.Unit); err != nil {
		return err
	}
	if err := identity.WriteLatch(w, line, u.id); err != nil {
		return u.device().Fail("writing the latch", err)
	}
	u.note(func(f *facts) { f.latch = line })
	return u.close()
}

// finishCheck compares the parts that are in no image: the partition table, and the identity with the record of the pass.
func (r *run) finishCheck(ctx context.Context, u *unit) error {
	u.step("identity", 0)
	err := u.device().CheckTable(r.Plan)
	if err == nil && r.Plan.Identity != nil {
		err = r.checkIdentity(u)
	}
	if err != nil {
		return u.device().Fail("checking", err)
	}
	return r.pass(ctx, u)
}

// checkIdentity finds the record of this unit's pass and compares every file that it lists.
func (r *run) checkIdentity(u *unit) error {
	w, err := u.device().Window(r.Plan.Identity.Partition)
	if err != nil {
		return err
	}
	serial, err := identity.ReadSerial(w)
	if err != nil {
		return err
	}
	rec := r.Spool.Passed(serial)
	if rec == nil {
		return fmt.Errorf("the spool has no record of a pass of serial %.80q", serial)
	}
	u.note(func(f *facts) { f.held = serial })
	return identity.Check(w, rec.Identity.Files, rec.Latch)
}
