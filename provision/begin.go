package provision

import (
	"context"
	"errors"
	"fmt"

	"github.com/diskfs/go-diskfs/partition/gpt"
)

// begin is what comes before the first byte of an image: open, fit, latch, reserve, and the partition table of a
// layout. Up to the table nothing on the disk changes.
func (r *run) begin(ctx context.Context, u *unit) error {
	u.fresh = false
	u.step("prepare", 0)
	if err := u.open(ctx, r.Open); err != nil {
		if u.again {
			return u.medium("opening it again", err)
		}
		return &RefusedError{Target: u.Name, Reason: err.Error(), Err: err}
	}
	if err := r.fit(u); err != nil {
		return err
	}
	if r.Check {
		return nil
	}
	if err := r.lookBefore(u); err != nil {
		return err
	}
	if err := r.reserve(ctx, u); err != nil {
		return err
	}
	if r.Plan.Image != nil {
		return nil
	}
	u.step("table", 0)
	return u.medium("partition table", WriteTable(u.device(), r.Plan.Disk, u.parts, u.disk.Sector, r.keeps(u)))
}

// fit lays the plan out on the disk, and refuses images that do not fit.
func (r *run) fit(u *unit) error {
	if size := u.device().Size(); size != u.disk.Size {
		return &RefusedError{Target: u.Name, Reason: fmt.Sprintf("it has %d bytes now, %d when it was looked at", size, u.disk.Size)}
	}
	var err error
	switch {
	case r.Plan.Image == nil:
		u.parts, err = r.Plan.Place(u.Name, u.disk.Size)
	case r.Check:
		u.parts, err = partitions(u.device(), u.disk.Sector)
	default:
		err = r.Plan.Disk.admits(u.Name, u.disk.Size)
	}
	if err != nil {
		return err
	}
	for _, pl := range r.Payloads {
		if err := pl.fits(u); err != nil {
			return err
		}
	}
	return nil
}

// lookBefore reads what an earlier run left, and refuses a latched device.
func (r *run) lookBefore(u *unit) error {
	if r.Plan.Identity == nil {
		return nil
	}
	if old := r.oldIdentity(u); old != nil {
		u.before = r.Plan.Identity.readHeld(Window{Medium: u.device(), Offset: old.Offset, Length: old.Length})
	}
	return r.Plan.latch(u.Name, u.before, r.Token, r.Factory, r.Station.Public(), r.Now, r.Spool.interrupted)
}

// oldIdentity is the identity partition of the table that is on the disk; nil is none.
func (r *run) oldIdentity(u *unit) *Placed {
	parts, err := partitions(u.device(), u.disk.Sector)
	if err != nil {
		return nil // a blank disk
	}
	for _, p := range parts {
		if p.Name == r.Plan.Identity.Partition {
			return &p
		}
	}
	return nil
}

// keeps names the identity partition when it stays where it is, so that a power cut does not cost the device's key.
func (r *run) keeps(u *unit) string {
	if r.Plan.Identity == nil || u.before.Serial == "" {
		return ""
	}
	old := r.oldIdentity(u)
	for _, p := range u.parts {
		if old != nil && p.Name == old.Name && p.Offset == old.Offset && p.Length == old.Length {
			return p.Name
		}
	}
	return ""
}

// partitions reads the table that is on a disk.
func partitions(m Medium, sector int) (parts []Placed, err error) {
	defer guard(&err)
	table, err := gpt.Read(tableFile{m}, sector, sector)
	if err != nil {
		return nil, err
	}
	for _, p := range table.Partitions {
		q := Placed{
			PartitionRule: PartitionRule{Name: p.Name, Type: string(p.Type), GUID: p.GUID, Attributes: p.Attributes},
			Number:        p.Index, Offset: int64(p.Start) * int64(sector), Length: int64(p.End-p.Start+1) * int64(sector),
		}
		if q.Offset <= 0 || q.Length <= 0 || q.Offset > m.Size()-q.Length {
			return nil, fmt.Errorf("partition %d is not inside the disk", p.Index)
		}
		parts = append(parts, q)
	}
	return parts, nil
}

// claim is how the unit asks for its serial.
func (u *unit) claim() Claim { return Claim{Unit: u.key, Strong: u.strong, Held: u.before.Serial} }

// reserve gets the serial, bound to the hardware.
func (r *run) reserve(ctx context.Context, u *unit) error {
	if r.Plan.Identity == nil || u.got != nil {
		return nil
	}
	got, err := r.Allocator.Reserve(ctx, u.claim())
	if err != nil {
		return fmt.Errorf("%s: serial: %w", u.Name, err)
	}
	u.set(func() { u.got = &got })
	if err := r.Plan.Identity.Serial.Check(got.Serial); err != nil {
		return fmt.Errorf("%s: %w", u.Name, err)
	}
	if !r.once(got.Serial, u) {
		return fmt.Errorf("%s: serial %s was given to another unit of this run", u.Name, got.Serial)
	}
	u.board.set(u.tile, func(t *Tile) { t.Serial = got.Serial })
	return nil
}

// once holds that no two units of a run get one serial, wherever it comes from.
func (r *run) once(serial string, u *unit) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.serials == nil {
		r.serials = map[string]*unit{}
	}
	if other := r.serials[serial]; other != nil && other != u {
		return false
	}
	r.serials[serial] = u
	return true
}

var errMend = errors.New("some ranges have to be written again")
