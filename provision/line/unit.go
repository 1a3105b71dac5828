package line

import (
	"context"
	"fmt"
	"time"

	"updater/provision/board"
	"updater/provision/fan"
	"updater/provision/identity"
	"updater/provision/medium"
	"updater/provision/plan"
	"updater/provision/target"
)

// unit is one target on its way. Its fields belong to the goroutine that works on it, except its life, which is guarded.
type unit struct {
	target.Target
	life
	slot  *board.Slot
	claim identity.Claim // without Held

	parts   []plan.Placed
	earlier identity.Held     // identity that an earlier run left
	table   string            // GUID of the partition table that it gets; "" is one that others have too
	floor   int64             // of the device that it was
	payload int               // the image that it needs next
	at      int64             // in that image
	out     *fan.Out          // of the fan that it left
	bad     medium.Mismatches // to be repaired
}

func newUnit(t target.Target, b *board.Board) *unit {
	u := &unit{Target: t, slot: b.Add(t.Name, fmt.Sprintf("%s %d MB", t.Disk.Model, t.Disk.Size/1e6))}
	u.claim.Unit, u.claim.Strong = t.Disk.Key(t.Name)
	return u
}

// step ends the current step and begins the next one, of total bytes.
func (u *unit) step(name string, total int64) {
	var began time.Time
	done := u.slot.Done().Swap(0)
	u.note(func(f *facts) { began = f.log.Begin(name, done) })
	u.slot.Set(func(t *board.Tile) { t.Step, t.Total, t.Began = name, total, began })
}

// open opens the disk exclusively.
func (u *unit) open(ctx context.Context, host Host) error {
	dev, err := host.Open(ctx, u.Disk)
	if err != nil {
		return err
	}
	u.note(func(f *facts) { f.dev = medium.New(u.Name, u.Disk, dev, u.parts) })
	return nil
}

// close closes the disk, if it is open.
func (u *unit) close() error {
	dev := u.device()
	if dev == nil {
		return nil
	}
	u.note(func(f *facts) { f.dev = nil })
	u.parts = dev.Parts()
	return dev.Fail("closing", dev.Close())
}
