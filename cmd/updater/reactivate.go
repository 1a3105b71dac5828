package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"updater/blockdev"
	"updater/state"
	"updater/update"
	"updater/verify"
)

// slotParts names every partition of every slot, in a fixed order.
func (c *Config) slotParts() []string {
	var parts []string
	for _, s := range c.Slot {
		for _, role := range slices.Sorted(maps.Keys(s.Partitions)) {
			parts = append(parts, s.Name+"/"+role)
		}
	}
	return parts
}

// Reactivate implements initramfs.Device: every slot that still holds exactly what was signed for it becomes bootable
// again, the best one first. It does nothing while the boot loader has a slot that it would boot.
func (d *recoverable) Reactivate(ctx context.Context) (slot string, err error) {
	dev, err := openWaiting(d.config, "")
	if err != nil {
		return "", err
	}
	defer dev.Close()
	st, err := dev.backend.State(ctx)
	if err != nil || st.Next != "" {
		return "", bootError("", "reading it", err)
	}
	trust, err := d.config.policy(nil, dev.state().Time)
	if err != nil {
		return "", err
	}
	var errs []error
	for _, name := range dev.bestLast() {
		if err := dev.intact(ctx, name, trust); err != nil {
			errs = append(errs, fmt.Errorf("slot %s: %w", name, err))
			continue
		}
		said, err := dev.switchTo(ctx, name, dev.tries())
		if err != nil {
			return slot, errors.Join(append(errs, err)...)
		}
		d.say("slot %s holds what was signed for it; %s", name, said)
		slot = name
	}
	return slot, errors.Join(errs...)
}

// bestLast orders the slots by what is remembered of them: those that were marked good last, and of those the newest.
func (d *device) bestLast() []string {
	rank := func(name string) (good int, index, at int64) {
		for _, image := range d.state().Slots[name] {
			if image.Result == state.Good {
				good = 1
			}
			index, at = max(index, image.RollbackIndex), max(at, image.At.Unix())
		}
		return good, index, at
	}
	names := d.config.slotNames()
	slices.SortStableFunc(names, func(a, b string) int {
		goodA, indexA, atA := rank(a)
		goodB, indexB, atB := rank(b)
		return cmp.Or(cmp.Compare(goodA, goodB), cmp.Compare(indexA, indexB), cmp.Compare(atA, atB))
	})
	return names
}

// intact compares all partitions of a slot with the signed documents that are kept of them. Nothing of those is trusted
// before their signature is checked again.
func (d *device) intact(ctx context.Context, slot string, trust verify.Policy) error {
	for _, s := range d.config.Slot {
		if s.Name != slot {
			continue
		}
		for _, role := range slices.Sorted(maps.Keys(s.Partitions)) {
			if err := d.holds(ctx, slot, role, trust); err != nil {
				return fmt.Errorf("%s: %w", role, err)
			}
		}
	}
	return nil
}

func (d *device) holds(ctx context.Context, slot, role string, trust verify.Policy) error {
	unverifiedBmap, unverifiedSig, err := d.maps.Get(slot + "/" + role)
	if err != nil {
		return err
	}
	doc, err := update.Accept(unverifiedBmap, unverifiedSig, update.Conditions{
		Policy: trust, Product: d.config.Product, Role: role, Floor: d.Floor(), Require: d.config.Trust.required(), Held: true,
	})
	if err != nil {
		return err
	}
	doc.Unmapped = cmp.Or(doc.Unmapped, d.config.Disk.Unmapped, update.UnmappedZero)
	p, err := d.slotPartition(slot, role)
	if err != nil {
		return err
	}
	if doc.Map.ImageSize() > p.Size {
		return &update.IncompatibleError{Reason: fmt.Sprintf("the image of %d bytes does not fit %s, which has %d", doc.Map.ImageSize(), p.Path, p.Size)}
	}
	dev, err := p.Open(blockdev.ReadOnly)
	if err != nil {
		return err
	}
	defer dev.Close()
	return update.CheckSlot(ctx, doc, dev, nil)
}
