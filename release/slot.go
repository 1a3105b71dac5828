package release

import "slices"

// Layout is the slots of a device and the roles that each of them has.
type Layout struct {
	Slots, Roles []string
}

// ForSlot returns the images for one slot, one for each role, in the order of the document. A release must name every role of the layout and no
// other, and a role with variants must have one for every slot of the layout and no other; anything else is a [SlotError] that names every fault.
func (r *Release) ForSlot(slot string, l Layout) ([]Image, error) {
	e := &SlotError{Slot: slot, NoSlot: !slices.Contains(l.Slots, slot)}
	var images []Image
	slots := map[string][]string{} // by role
	for _, i := range r.contents.Images {
		switch {
		case !slices.Contains(l.Roles, i.Role):
			if !slices.Contains(e.Unknown, i.Role) {
				e.Unknown = append(e.Unknown, i.Role)
			}
		case i.Slot != "" && !slices.Contains(l.Slots, i.Slot):
			e.Variants = append(e.Variants, imageLabel(i))
		case i.Slot == "" || i.Slot == slot:
			images = append(images, i)
		}
		slots[i.Role] = append(slots[i.Role], i.Slot)
	}
	for _, role := range l.Roles {
		have := slots[role]
		if len(have) == 0 {
			e.Missing = append(e.Missing, role)
		}
		for _, s := range l.Slots {
			if len(have) > 0 && have[0] != "" && !slices.Contains(have, s) {
				e.Missing = append(e.Missing, imageLabel(Image{Role: role, Slot: s}))
			}
		}
	}
	if e.NoSlot || len(e.Missing)+len(e.Unknown)+len(e.Variants) > 0 {
		return nil, e
	}
	return images, nil
}
