package install

import (
	"context"
	"errors"
	"fmt"

	"updater/device"
	"updater/device/config"
	"updater/release"
	"updater/source"
	"updater/state"
	"updater/update"
)

// HandedOver reports that the recovery installs the release at the next boot: a device with one slot does not write it while it runs.
type HandedOver struct{ Slot, Version, Source string }

func (e *HandedOver) Error() string {
	return fmt.Sprintf("version %s is accepted; the recovery boots next, once, and installs it into slot %s from %s", e.Version, e.Slot, e.Source)
}

// maxAddress bounds an address in the state store, in bytes.
const maxAddress = 2 << 10

// handOver accepts the documents of a release and has the recovery install it. The error is a [HandedOver] if it succeeded,
// update.NothingError if the slot holds the release.
func (r Request) handOver(ctx context.Context, dev *device.Device, from *Origins) error {
	_, remote, err := source.ParseURL(r.Image)
	if err != nil || !remote || len(r.Image) > maxAddress || r.Partition != "" || r.Documents != (Documents{}) || len(r.Keyring) > 0 {
		return &config.RequestError{
			Err: fmt.Errorf("the device has one slot, which the recovery writes: expected an http:// or https:// address that it can read, "+
				"with the documents beside it, signed by the configured keyring, got %.80q", r.Image),
			Advice: "put the release on a server, or on a stick and run updater recover --reboot",
		}
	}
	rel, err := r.accepted(ctx, dev, from)
	if err != nil {
		return err
	}
	slot := dev.OnlySlot()
	if rec := dev.Release(slot); rec.Release == rel.Identity() && rec.Outcome == update.OutcomeInstalled && !r.Rewrite {
		return &update.NothingError{Slot: slot, Version: rec.Version, Held: update.HeldRunning}
	}
	err = dev.HandOver(ctx, state.Request{Source: r.Image, Identity: rel.Identity(), Version: rel.Version(), Attempt: r.Attempt, At: dev.Now()})
	if errors.Is(err, device.ErrRefused) {
		return &config.RequestError{Err: err, Advice: "set state in the configuration, or put the release on a stick and start the recovery"}
	}
	if err != nil {
		return err
	}
	return &HandedOver{Slot: slot, Version: rel.Version(), Source: ImageName(r.Image)}
}

// accepted checks the documents as an install does. The recovery checks them again.
func (r Request) accepted(ctx context.Context, dev *device.Device, from *Origins) (*release.Release, error) {
	c := update.Conditions{Policy: from.Trust.Policy, Product: r.Config.Product, Require: r.Config.Trust.Required(), Floor: dev.Floor()}
	if document, isRelease := releaseDocument(r.Image); isRelease {
		doc, sig, err := from.Document(ctx, release.TypeRelease, document, "")
		if err != nil {
			return nil, err
		}
		opened, err := update.AcceptRelease(doc, sig, c)
		if err != nil {
			return nil, err
		}
		_, err = opened.Release.ForSlot(dev.OnlySlot(), r.Config.Layout())
		return opened.Release, err
	}
	role, err := r.Config.Role(r.Role)
	if err != nil {
		return nil, err
	}
	files, err := r.Documents.Find(ctx, r.Image, from)
	if err != nil {
		return nil, err
	}
	c.Role = role
	doc, err := update.Accept(files.UnverifiedBmap, files.UnverifiedSig, c)
	if err != nil {
		return nil, err
	}
	return release.Bare(doc.Map, doc.Checksum, role)
}
