package device

import (
	"context"
	"fmt"

	"updater/boot"
	"updater/state"
)

// OnlySlot is the slot of a device that has one slot and a recovery, "" on any other.
func (d *Device) OnlySlot() string {
	if len(d.Config.Slot) != 1 {
		return ""
	}
	return d.Config.Slot[0].Name
}

// HandOver has the recovery install a release into the only slot: the request is durable in the state store before the boot loader is
// asked to start the recovery at the next boot, once. No slot changes. Errors: [StoreError], update.BootError.
func (d *Device) HandOver(ctx context.Context, r state.Request) error {
	return d.locked(func() error {
		if d.store == nil {
			return fmt.Errorf("handing the install to the recovery: %w: no state store is configured, which carries the request", ErrRefused)
		}
		if err := d.change(r.At, func(s *state.State) { s.Request = &r }); err != nil {
			return err
		}
		return bootError("", "requesting the recovery", boot.RequestRecovery(ctx, d.backend))
	})
}

// Pending is the request that the recovery still has to carry out, nil if there is none.
func (k *Known) Pending() *state.Request { return pending(k.State) }

func pending(s state.State) *state.Request {
	r := s.Request
	if r == nil {
		return nil
	}
	for _, slot := range s.Slots {
		for _, image := range slot {
			if image.Release == r.Identity && image.Result.Whole() {
				return nil
			}
		}
	}
	return r
}

// oneSlot are the findings of a device with one slot and a recovery.
func (d *Device) oneSlot(st boot.State) []Finding {
	slot := d.OnlySlot()
	if slot == "" {
		return nil
	}
	found := []Finding{{Severity: Info, Evidence: fmt.Sprintf("slot %s is the only one; without it the recovery boots, which alone writes it", slot)}}
	if r := pending(d.known); r != nil {
		doing := "at its next start"
		if st.Next == "" {
			doing = "again, until it is done"
		}
		found = append(found, Finding{Severity: Info, Evidence: fmt.Sprintf("the recovery is asked to install version %s from %s, %s", r.Version, r.Source, doing)})
	}
	return found
}
