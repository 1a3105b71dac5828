package verify

import (
	"crypto"
	"fmt"
	"slices"
	"strings"
	"time"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// judgement judges one signature by a key of the keyring. Its steps return a reason if they refuse it.
type judgement struct {
	policy  Policy
	config  *packet.Config
	message message
	sig     *packet.Signature
	cert    *certificate
	entity  *openpgp.Entity
	key     *packet.PublicKey // made the signature
	subkey  *openpgp.Subkey   // the same; nil for the primary key

	// Set by binding: the self-signatures that govern the primary key, the direct one if there is one, and the one that binds the subkey.
	primary, direct, bound *packet.Signature
}

// userID returns the user ID of the newest self-signature, for display only; the policy does not depend on it.
func (j *judgement) userID() string {
	_, id := j.entity.PrimaryIdentity(j.config.Now(), j.config)
	if id == nil {
		return ""
	}
	return printable(id.Name)
}

// form checks the kind of the signature.
func (j *judgement) form() (reason, advice string, err error) {
	want, name := packet.SigTypeBinary, "binary (0x00)"
	if j.message.clearsigned {
		want, name = packet.SigTypeText, "text (0x01)"
	}
	switch {
	case j.sig.SigType == packet.SigTypeText && !j.message.clearsigned:
		return "it is a text-mode signature (0x01), which ignores line endings; expected a binary one",
			"sign with gpg --detach-sign, without --textmode", nil
	case j.sig.SigType != want:
		return fmt.Sprintf("it is of type %#02x, expected %s", int(j.sig.SigType), name), "", nil
	case j.sig.Version != j.key.Version:
		return fmt.Sprintf("it is of version %d, its key of version %d", j.sig.Version, j.key.Version), "", nil
	case !strongHash(j.sig.Hash):
		return fmt.Sprintf("its hash is %s, expected sha256 or stronger", hashID(j.sig.Hash)), "sign with gpg --digest-algo SHA512", nil
	case j.sig.Hash.Size()*8 < j.policy.MinHash:
		reason = fmt.Sprintf("its hash is %s, the policy asks for %d bits or more", hashID(j.sig.Hash), j.policy.MinHash)
		return reason, "sign with gpg --digest-algo SHA512", nil
	case len(j.message.hashes) > 0 && !slices.Contains(j.message.hashes, armorHashName(j.sig.Hash)):
		return fmt.Sprintf("its hash is %s, the document's header says %s", hashID(j.sig.Hash), strings.Join(j.message.hashes, ", ")), "", nil
	}
	for _, n := range j.sig.Notations {
		if n.IsCritical {
			return fmt.Sprintf("it has the unknown critical notation %q", n.Name), "", nil
		}
	}
	return "", "", nil
}

// revocation refuses revoked keys without looking at dates or reasons.
func (j *judgement) revocation() (reason, advice string, err error) {
	advice = "sign with a key that is in use"
	if r, ok := j.cert.revoked[j.cert.primaryID]; ok {
		return fmt.Sprintf("the key %s was revoked on %s (%s)", j.cert.fingerprint, stamp(r.at), r.reason), advice, nil
	}
	if r, ok := j.cert.revoked[j.key.KeyId]; ok {
		return fmt.Sprintf("the subkey was revoked on %s (%s)", stamp(r.at), r.reason), advice, nil
	}
	return "", "", nil
}

// strength checks the primary key, which certifies its subkeys, and the key that signed.
func (j *judgement) strength() (reason, advice string, err error) {
	for _, key := range []*packet.PublicKey{j.entity.PrimaryKey, j.key} {
		if weakness := j.policy.weakness(key); weakness != "" {
			return fmt.Sprintf("key %016X is %s", key.KeyId, weakness), "make a new signing key, ed25519 for example", nil
		}
	}
	return "", "", nil
}

// selfSignatures finds the signatures by the primary key that govern it and, for a subkey, the binding. The newest one
// up to now counts, even if it is younger than the signature: an owner who extends or shortens the life of a key
// replaces the older self-signature, and gpg no longer exports that.
func (j *judgement) selfSignatures() (err error) {
	now := j.config.Now()
	if j.primary, err = j.entity.PrimarySelfSignature(now, j.config); err != nil {
		return fmt.Errorf("it has no valid self-signature: %w", err)
	}
	j.direct, _ = j.entity.LatestValidDirectSignature(now, j.config)
	if j.subkey == nil {
		return nil
	}
	if j.bound, err = j.subkey.LatestValidBindingSignature(now, j.config); err != nil {
		return fmt.Errorf("its subkey is not validly bound to it: %w", err)
	}
	return nil
}

// binding checks that the key may sign, and that a subkey agreed to belong to its primary key.
func (j *judgement) binding() (reason, advice string, err error) {
	if err := j.selfSignatures(); err != nil {
		return "its certificate is not usable", "export the certificate again with gpg --export; self-signatures must use sha256 or stronger", err
	}
	flags := j.primary
	if j.bound != nil {
		flags = j.bound
		// The library checked the cross-certificate of a subkey with the signing flag, but not its hash.
		if e := flags.EmbeddedSignature; flags.FlagSign && (e == nil || !strongHash(e.Hash)) {
			return "the subkey's cross-certificate is missing or too weak", "run gpg --edit-key with cross-certify, and export again", nil
		}
	}
	if !flags.FlagsValid || !flags.FlagSign {
		return "the key may not sign: its signing flag is not set", "sign with a key or subkey made for signing", nil
	}
	return "", "", nil
}

// dates checks key and signature against each other and against the trusted clock.
func (j *judgement) dates() (reason, advice string, err error) {
	made, clock := j.sig.CreationTime, j.policy.Time
	if !j.policy.LowerBound && made.Sub(clock) > MaxClockSkew {
		return fmt.Sprintf("it is from the future: the trusted clock says %s", stamp(clock)), "set the clock of this device, if it is behind", nil
	}
	if j.sig.SigExpired(j.config.Now()) {
		return fmt.Sprintf("it expired; the trusted clock says %s", stamp(clock)), "get a newer file, or set the clock when it is ahead", nil
	}
	reason = j.outlived(made)
	if reason == "" && j.policy.RefuseExpired {
		reason = j.outlived(j.config.Now())
	}
	return reason, "sign again with a valid key", nil
}

// outlived returns the reason why the keys were not valid at a time.
func (j *judgement) outlived(at time.Time) string {
	why := outlived(j.entity.PrimaryKey, at, j.primary, j.direct)
	if why == "" && j.bound != nil {
		if why = outlived(j.key, at, j.bound); why != "" {
			why = "subkey: " + why
		}
	}
	return why
}

// outlived returns the reason why key was not valid at a time, by any of the self-signatures; nil ones are skipped.
func outlived(key *packet.PublicKey, at time.Time, selves ...*packet.Signature) string {
	if at.Before(key.CreationTime) {
		return fmt.Sprintf("it was made before its key, which is of %s", stamp(key.CreationTime))
	}
	for _, s := range selves {
		if s != nil && key.KeyExpired(s, at) {
			end := key.CreationTime.Add(time.Duration(*s.KeyLifetimeSecs) * time.Second)
			return fmt.Sprintf("the key had expired on %s", stamp(end))
		}
	}
	return ""
}

// mathematics verifies the signature over the message.
func (j *judgement) mathematics() (reason, advice string, err error) {
	h, err := j.sig.PrepareVerify()
	if err == nil {
		h.Write(j.message.signed) // a clearsigned text is already canonical
		err = j.key.VerifySignature(h, j.sig)
	}
	if err != nil {
		return "it is not over this document: the document or the signature was changed, or they do not belong together", "", err
	}
	return "", "", nil
}

func strongHash(h crypto.Hash) bool {
	switch h {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512, crypto.SHA3_256, crypto.SHA3_512:
		return true
	}
	return false
}
