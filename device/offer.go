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
	Documents      map[string][]byte   // the signed documents and the block maps, by their names beside each other
	Images         map[string]*Offered // by the names that the documents have for them, and as ROLE.img
}

// Offered is an image in a slot.
type Offered struct {
	*update.Document // accepted
	Role             string
}

// Offers lists the releases that were marked good in a slot of the device, and whose kept documents are accepted again. The content of the slots
// is not compared. Errors: those of reading the state store and the trusted keys.
func (d *Device) Offers() ([]*Offer, error) {
	trust, err := d.Trust(nil)
	if err != nil {
		return nil, err
	}
	conditions := d.conditions(trust.Policy)
	conditions.Floor = 0 // the other device has its own
	var list []*Offer
	for _, slot := range d.Config.SlotNames() {
		records := d.known.Slots[slot]
		good := len(records) > 0 && d.known.OneRelease(slot, d.Config.Slot[0].Roles()) == nil
		for _, image := range records {
			good = good && image.Result == state.Good && image.Release != ""
		}
		if !good {
			continue
		}
		kept, err := d.Kept(slot)
		if errors.Is(err, state.ErrNoDocument) {
			continue
		}
		if err != nil {
			return nil, err
		}
		o := &Offer{Slot: slot, Documents: map[string][]byte{}, Images: map[string]*Offered{}}
		if err := d.offer(o, kept, conditions); err == nil {
			list = append(list, o)
		}
	}
	return list, nil
}

// offer fills in the documents and images of a slot.
func (d *Device) offer(o *Offer, k Kept, c update.Conditions) error {
	roles := d.Config.Slot[0].Roles()
	o.Identity = d.known.Slots[o.Slot][roles[0]].Release
	document := release.DocumentName
	if k.Maps == nil {
		c.Role = roles[0]
		doc, err := update.Accept(k.Document, k.Signature, c)
		if err != nil {
			return err
		}
		document = c.Role + ".img.bmap"
		o.Images[c.Role+".img"] = &Offered{doc, c.Role}
	} else {
		opened, err := update.AcceptRelease(k.Document, k.Signature, c)
		if err != nil {
			return err
		}
		images, err := opened.Release.ForSlot(o.Slot, d.Config.Layout())
		if err != nil {
			return err
		}
		for _, i := range images {
			m, err := opened.Release.Map(i, k.Maps[i.Role])
			if err != nil {
				return err
			}
			image := &Offered{update.NewDocument(m, i.BmapSHA256, opened.Signers), i.Role}
			o.Images[i.File], o.Images[i.Role+".img"], o.Documents[i.Bmap] = image, image, k.Maps[i.Role]
		}
	}
	o.Documents[document] = k.Document
	if len(k.Signature) > 0 {
		ext := ".sig"
		if k.Signature[0] == '-' { // the armor of RFC 9580, section 6.2
			ext = ".asc"
		}
		o.Documents[document+ext] = k.Signature
	}
	return nil
}

// ReadOffered opens what a slot holds for a role and calls read with it. Errors: those of read, and of opening it.
func (d *Device) ReadOffered(slot, role string, read func(update.ReadBacker) error) (err error) {
	dev, err := d.openHeld(slot, role)
	if err != nil {
		return fmt.Errorf("slot %s: %w", slot, err)
	}
	defer func() { err = errors.Join(err, dev.Close()) }()
	return read(dev)
}
