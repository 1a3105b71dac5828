package device

import (
	"errors"
	"fmt"

	"updater/release"
	"updater/state"
	"updater/update"
)

// Offer is a release that a slot holds, for other devices.
type Offer struct {
	Slot, Identity string
	Documents      map[string][]byte  // the signed documents and the block maps, by their names beside each other
	Images         map[string]Offered // by the names that the release has for them, and as ROLE.img
}

// Offered is an image in a slot.
type Offered struct {
	*update.Document // accepted
	Role             string
}

// Offers lists the releases of the slots that were marked good and whose kept documents are accepted again, whatever the floor of this device. The
// content of the slots is not compared. Errors: those of the trusted keys.
func (d *Device) Offers() (list []*Offer, err error) {
	trust, err := d.Trust(nil)
	if err != nil {
		return nil, err
	}
	c := d.conditions(trust.Policy)
	c.Floor = 0
	for _, slot := range d.Config.SlotNames() {
		o := &Offer{Slot: slot, Identity: d.Release(slot).Release, Documents: map[string][]byte{}, Images: map[string]Offered{}}
		good := o.Identity != ""
		for _, image := range d.known.Slots[slot] {
			good = good && image.Result == state.Good
		}
		if good && d.reading(func() error { return d.offer(o, c) }) == nil {
			list = append(list, o)
		}
	}
	return list, nil
}

// offer adds the documents and images of a slot.
func (d *Device) offer(o *Offer, c update.Conditions) error {
	for _, role := range d.Config.Slot[0].Roles() {
		bmap, proof, err := d.maps.Get(o.Slot + "/" + role)
		if err != nil {
			return err
		}
		c.Role = role
		m, i, _, err := d.accept(o.Slot, bmap, proof, c)
		if err != nil {
			return err
		}
		o.Images[role+".img"] = Offered{m, role}
		doc, signature, isRelease, _ := decodeProof(proof) // accepted
		name := release.DocumentName
		if isRelease {
			o.Images[i.File], o.Documents[i.Bmap] = o.Images[role+".img"], bmap
		} else {
			name, doc, signature = role+".img.bmap", bmap, proof
		}
		o.Documents[name] = doc
		switch {
		case len(signature) > 0 && signature[0] == '-': // armored
			o.Documents[name+".asc"] = signature
		case len(signature) > 0:
			o.Documents[name+".sig"] = signature
		}
	}
	return nil
}

// ReadOffered calls read with the content of a slot for a role. Errors: those of read, and of opening it.
func (d *Device) ReadOffered(slot, role string, read func(update.ReadBacker) error) (err error) {
	dev, err := d.openHeld(slot, role)
	if err != nil {
		return fmt.Errorf("slot %s: %w", slot, err)
	}
	defer func() { err = errors.Join(err, dev.Close()) }()
	return read(dev)
}
