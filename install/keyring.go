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

// Keyring installs a keyring document, a path or an address, as the next one that the device trusts. installed is false if it
// counts already. Errors: those of [device.Device.InstallKeyring] and of fetching it.
func Keyring(ctx context.Context, dev *device.Device, path, signature string, in Inputs) (now device.Trust, installed bool, err error) {
	if now, err = dev.Trust(nil); err != nil {
		return now, false, err
	}
	from := NewOrigins(dev.Config, in, dev.State().Time)
	defer from.Close()
	from.Trust = now.Trust
	doc, sig, err := from.Document(ctx, release.TypeKeyring, path, signature)
	if err != nil {
		return now, false, err
	}
	return dev.InstallKeyring(doc, sig)
}

// followKeyring follows the keyring of a release, which must satisfy that keyring too. Nothing is fetched for a release that is not accepted before.
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
	if _, err := FollowKeyring(ctx, dev, from, document, opened.Release.Keyring()); err != nil {
		return err
	}
	job.Policy = from.Trust.Policy
	return nil
}

// FollowKeyring installs the keyring that a signed document was published with, if the device has an older one, and makes from trust it.
// The caller then opens the document again. document is its path or address. Errors: those of [Keyring], verify.SignatureError.
func FollowKeyring(ctx context.Context, dev *device.Device, from *Origins, document string, ref release.KeyringRef) (followed bool, err error) {
	trust, err := dev.Trust(nil)
	switch {
	case err != nil || ref.Number <= trust.Number:
		return false, err
	case !dev.Remembers():
		from.in.Warn("the document was published with keyring %d; without a state store nothing keeps it", ref.Number)
		return false, nil
	}
	doc, sig, err := from.Document(ctx, release.TypeKeyring, Beside(document, ref.Path), "")
	if err != nil {
		return false, err
	}
	if sum := sha256.Sum256(doc); hex.EncodeToString(sum[:]) != ref.SHA256 {
		return false, &verify.SignatureError{Reason: fmt.Sprintf("keyring %s has the sha256 %x, the document says %s", ref.Path, sum, ref.SHA256)}
	}
	now, _, err := dev.InstallKeyring(doc, sig)
	if err != nil {
		return false, fmt.Errorf("keyring %d: %w", ref.Number, err)
	}
	from.Trust = now.Trust
	return true, nil
}
