package device

import (
	"fmt"
	"strings"

	"updater/device/config"
	"updater/release"
)

// Trust holds the keys that a device trusts: its configured keyring, and the keyrings that followed it in the field.
type Trust struct {
	release.Trust
	Number  int64  // of the keyring that counts; 0 is a configured one without a number
	Warning string // why a certificate, or a keyring of the state store, does not count; "" when all do
}

// TrustOf follows the kept keyrings from the configured one. One that does not follow adds a warning: the state store may be of another
// configuration, and without it only the configured keyring counts. A keyring that is given instead of the configured one has no
// followers. Errors: those of [config.Config.Policy].
func TrustOf(c *config.Config, given []string, known Known) (Trust, error) {
	policy, err := c.Policy(given, known.Time)
	t := Trust{Trust: release.Trust{Policy: policy, MaxMap: int64(c.Source.MaxBmap)}, Number: c.Trust.KeyringNumber}
	if err != nil {
		return t, err
	}
	t.Warning = strings.Join(policy.Keyring.Problems(), "; ")
	if len(given) > 0 {
		return t, nil
	}
	if t.Trust, t.Number, err = t.Follow(known.Keyrings, t.Number); err != nil {
		t.Warning = fmt.Sprintf("the keyring kept after number %d does not count, so a revocation may be lost: %v", t.Number, err)
	}
	return t, nil
}

// Trust is the trust of the device, as it was read last. Errors: those of [config.Config.Policy].
func (d *Device) Trust(given []string) (Trust, error) {
	return TrustOf(d.Config, given, Known{State: d.known, Keyrings: d.keyrings})
}

// InstallKeyring makes the next keyring count from now on, and keeps it for the recovery. It is durable when it returns nil. A keyring that
// counts already changes nothing; installed is false then. Errors: those of [release.Trust.Succeed], [state.Error].
func (d *Device) InstallKeyring(doc, signature []byte) (now Trust, installed bool, err error) {
	err = d.locked(func() error {
		if now, err = d.Trust(nil); err != nil {
			return err
		}
		if k, _, err := now.OpenKeyring(doc, signature); err == nil && k.Contents().Number == now.Number {
			return nil
		}
		next, k, err := now.Succeed(release.Link{Document: doc, Signature: signature}, now.Number)
		if err != nil {
			return err
		}
		var chain []release.Link
		for _, l := range d.keyrings { // those that count
			if l.Number > d.Config.Trust.KeyringNumber && l.Number <= now.Number {
				chain = append(chain, l)
			}
		}
		chain = append(chain, release.Link{Number: k.Contents().Number, Document: doc, Signature: signature})
		packed, err := release.EncodeChain(chain)
		if err == nil {
			err = d.chain.Put(packed)
		}
		if err != nil {
			return err
		}
		d.keyrings, installed = chain, true
		now = Trust{Trust: next, Number: k.Contents().Number}
		return nil
	})
	return now, installed, err
}

// signersStand refuses a slot whose image was signed only by keys that are revoked, or that a later keyring has dropped. Such a slot keeps
// booting; it is not chosen again.
func (d *Device) signersStand(slot string) error {
	trust, err := d.Trust(nil)
	if err != nil {
		return nil // without a keyring no key is known to be revoked
	}
	for role, image := range d.known.Slots[slot] {
		signers := strings.FieldsFunc(image.Signer, func(r rune) bool { return r == ' ' || r == ',' })
		stands := len(signers) == 0
		for _, s := range signers {
			known, revoked := trust.Policy.Keyring.Knows(s)
			dropped := !known && trust.Number > d.Config.Trust.KeyringNumber
			stands = stands || !revoked && !dropped
		}
		if !stands {
			return fmt.Errorf("%w: its %s was signed only by keys that are revoked: %s", ErrRefused, role, image.Signer)
		}
	}
	return nil
}
