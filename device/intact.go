package device

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"updater/release"
	"updater/state"
	"updater/update"
	"updater/verify"
)

// BestLast orders the slots by their records: the ones that were marked good come last, the newest at the very end.
func (d *Device) BestLast() []string {
	rank := func(name string) (good int, index, at int64) {
		for _, image := range d.known.Slots[name] {
			if image.Result == state.Good {
				good = 1
			}
			index, at = max(index, image.RollbackIndex), max(at, image.At.Unix())
		}
		return good, index, at
	}
	names := d.Config.SlotNames()
	slices.SortStableFunc(names, func(a, b string) int {
		goodA, indexA, atA := rank(a)
		goodB, indexB, atB := rank(b)
		return cmp.Or(cmp.Compare(goodA, goodB), cmp.Compare(indexA, indexB), cmp.Compare(atA, atB))
	})
	return names
}

// Intact compares all roles of a slot with the signed documents that are kept of them. None of them is trusted before its signature is
// checked again. It returns nil when all of them match and are of one release. Errors: state.ErrNoDocument, those of update.Accept and of
// update.CheckSlot.
func (d *Device) Intact(ctx context.Context, slot string, trust verify.Policy) error {
	return d.compare(ctx, slot, d.conditions(trust))
}

// conditions are those of a kept document; the role is not set yet.
func (d *Device) conditions(trust verify.Policy) update.Conditions {
	return update.Conditions{Policy: trust, Product: d.Config.Product, Floor: d.Floor(), Require: d.Config.Trust.Required(), Held: true}
}

// compare is Intact under conditions.
func (d *Device) compare(ctx context.Context, slot string, c update.Conditions) error {
	for _, s := range d.Config.Slot {
		if s.Name != slot {
			continue
		}
		first := ""
		for i, role := range s.Roles() {
			c.Role = role
			of, err := d.holds(ctx, slot, c)
			if err != nil {
				return fmt.Errorf("%s: %w", role, err)
			}
			if i == 0 {
				first = of
			}
			if of != first {
				return fmt.Errorf("%w: its %s is of another release than its %s", ErrRefused, role, s.Roles()[0])
			}
		}
	}
	return nil
}

// ActivateIntact activates a slot that [Device.Intact] accepted, whatever the state store says of it.
func (d *Device) ActivateIntact(ctx context.Context, slot string, tries int) error {
	return d.locked(func() error {
		if err := d.onTrial(slot, ""); err != nil {
			return err
		}
		return bootError(slot, "activating it", d.backend.Activate(ctx, slot, tries))
	})
}

// holds compares one role, and returns the identity of its document's release, "" for a bare map.
func (d *Device) holds(ctx context.Context, slot string, c update.Conditions) (identity string, err error) {
	role := c.Role
	var unverifiedBmap, unverifiedSig []byte
	err = d.reading(func() (err error) {
		unverifiedBmap, unverifiedSig, err = d.maps.Get(slot + "/" + role)
		return err
	})
	if err != nil {
		return "", err
	}
	doc, _, identity, err := d.accept(slot, unverifiedBmap, unverifiedSig, c)
	if err != nil {
		return "", err
	}
	doc.Unmapped = cmp.Or(doc.Unmapped, d.Config.Disk.Unmapped, update.UnmappedZero)
	dev, err := d.openHeld(slot, role)
	if err != nil {
		return "", err
	}
	defer dev.Close()
	if _, isFile := d.Config.FileRole(slot, role); doc.Map.ImageSize() > dev.Size() || isFile && doc.Map.ImageSize() < dev.Size() {
		return "", &update.IncompatibleError{Reason: fmt.Sprintf("the image of %d bytes does not fit slot %s, whose %s has %d", doc.Map.ImageSize(), slot, role, dev.Size())}
	}
	return identity, update.CheckSlot(ctx, doc, dev, d.Progress)
}

// accept accepts a kept block map by its own signature, or by the release that pins it. i is the image of the release; it has no files for a
// block map that stands alone.
func (d *Device) accept(slot string, unverifiedBmap, unverifiedSig []byte, c update.Conditions) (_ *update.Document, i release.Image, identity string, err error) {
	fail := func(err error) (*update.Document, release.Image, string, error) { return nil, i, "", err }
	doc, sig, isRelease, err := decodeProof(unverifiedSig)
	if err != nil {
		return fail(err)
	}
	if !isRelease {
		m, err := update.Accept(unverifiedBmap, unverifiedSig, c)
		return m, i, "", err
	}
	opened, err := update.AcceptRelease(doc, sig, c)
	if err != nil {
		return fail(err)
	}
	images, err := opened.Release.ForSlot(slot, d.Config.Layout())
	if err != nil {
		return fail(err)
	}
	for _, i := range images {
		if i.Role == c.Role {
			m, err := opened.Release.Map(i, unverifiedBmap)
			if err != nil {
				return fail(err)
			}
			return update.NewDocument(m, i.BmapSHA256, opened.Signers), i, opened.Release.Identity(), nil
		}
	}
	return fail(fmt.Errorf("the release has no image for role %s", c.Role))
}
