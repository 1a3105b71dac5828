package install

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"updater/device"
	"updater/release"
	"updater/update"
	"updater/verify"
)

// Keyring installs a keyring document, a path or an address, as the next one that the device trusts. installed is false when it
// counts already. Errors: those of [device.Device.InstallKeyring] and of fetching it.
func Keyring(ctx context.Context, dev *device.Device, path, signature string, in Inputs) (now device.Trust, installed bool, err error) {
	if now, err = dev.Trust(nil); err != nil {
		return now, false, err
	}
	from := NewOrigins(dev.Config, in, dev.State().Time)
	defer from.Close()
	from.Trust = now.Trust
	doc, sig, err := from.signedDocument(ctx, release.TypeKeyring, path, signature)
	if err != nil {
		return now, false, err
	}
	return dev.InstallKeyring(doc, sig)
}

// followKeyring installs the keyring that a release was published with, when the device has an older one: the release must satisfy that
// one too. Nothing is fetched for a release that is not accepted before.
func followKeyring(ctx context.Context, dev *device.Device, from *Origins, document string, job *update.Job) error {
	trust, err := dev.Trust(nil)
	if err != nil {
		return err
	}
	opened, err := update.AcceptRelease(job.Document, job.Signature, update.Conditions{
		Policy: trust.Policy, Product: job.Product, Hardware: job.Hardware, Floor: dev.Floor(),
	})
	if err != nil {
		return err
	}
	ref := opened.Release.Keyring()
	switch {
	case ref.Number <= trust.Number:
		return nil
	case !dev.Remembers():
		from.in.Warn("the release was published with keyring %d; without a state store nothing keeps it", ref.Number)
		return nil
	}
	doc, sig, err := from.signedDocument(ctx, release.TypeKeyring, beside(document, ref.Path), "")
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(doc); hex.EncodeToString(sum[:]) != ref.SHA256 {
		return &verify.SignatureError{Reason: fmt.Sprintf("keyring %s has the sha256 %x, the release says %s", ref.Path, sum, ref.SHA256)}
	}
	now, _, err := dev.InstallKeyring(doc, sig)
	if err != nil {
		return fmt.Errorf("keyring %d of the release: %w", ref.Number, err)
	}
	job.Policy, from.Trust = now.Policy, now.Trust
	return nil
}
