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

// message is the signed data that the signatures of one document share.
type message struct {
	signed      []byte
	clearsigned bool
	hashes      []string // named by a clearsigned document; none allows all
}

// readSignatures reads all signatures before the first one is judged.
func readSignatures(packets []rawPacket) ([]*packet.Signature, error) {
	switch n := len(packets); {
	case n == 0:
		return nil, &SignatureError{Reason: "document has no signature"}
	case n > maxSignatures:
		return nil, &SignatureError{Reason: fmt.Sprintf("document has %d signatures, at most %d are allowed", n, maxSignatures)}
	}
	var sigs []*packet.Signature
	for i, raw := range packets {
		sig, err := raw.signature()
		if err != nil {
			return nil, &SignatureError{Reason: fmt.Sprintf("reading signature %d of %d", i+1, len(packets)), Err: err}
		}
		sigs = append(sigs, sig)
	}
	return sigs, nil
}

// Claimed returns the keys of the keyring that a detached signature names, one for each distinct primary key. Only
// Fingerprint and KeyID are set. Nothing is proven: anybody can name a key. It refuses a signature that Verify would refuse
// whatever the document is, so that a large document need not be fetched. The error is a [*SignatureError].
func (p Policy) Claimed(sig []byte) ([]Signer, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	packets, err := detachedPackets(sig)
	if err != nil {
		return nil, err
	}
	sigs, err := readSignatures(packets)
	if err != nil {
		return nil, err
	}
	var claimed []Signer
	var unknown []string
	for _, s := range sigs {
		c := p.Keyring.byKeyID[*s.IssuerKeyId]
		switch {
		case c == nil:
			unknown = append(unknown, keyIDString(*s.IssuerKeyId))
		case !slices.ContainsFunc(claimed, func(o Signer) bool { return o.Fingerprint == c.fingerprint }):
			claimed = append(claimed, Signer{Fingerprint: c.fingerprint, KeyID: keyIDString(*s.IssuerKeyId)})
		}
	}
	if need := max(p.MinSigners, 1); len(claimed) < need {
		return nil, p.tooFew(sigs, claimed, unknown, need)
	}
	return claimed, nil
}

// judge checks every signature and returns the distinct signers.
func (p Policy) judge(packets []rawPacket, m message) ([]Signer, error) {
	sigs, err := readSignatures(packets)
	if err != nil {
		return nil, err
	}
	var signers []Signer
	var unknown []string
	for _, sig := range sigs {
		s, err := p.judgeOne(sig, m)
		switch {
		case err != nil:
			return nil, err
		case s == nil:
			unknown = append(unknown, keyIDString(*sig.IssuerKeyId))
		case !slices.ContainsFunc(signers, func(o Signer) bool { return o.Fingerprint == s.Fingerprint }):
			signers = append(signers, *s)
		}
	}
	if need := max(p.MinSigners, 1); len(signers) < need {
		return nil, p.tooFew(sigs, signers, unknown, need)
	}
	return signers, nil
}

// tooFew explains a document without enough signers.
func (p Policy) tooFew(sigs []*packet.Signature, signers []Signer, unknown []string, need int) error {
	trusted := "trusted keys: " + strings.Join(p.Keyring.Fingerprints(), ", ")
	if len(signers) > 0 {
		return &SignatureError{Reason: fmt.Sprintf("%d of the trusted keys signed, %d must", len(signers), need), Advice: trusted}
	}
	e := &SignatureError{Reason: "the key is not in the keyring", KeyID: unknown[0], Time: sigs[0].CreationTime.UTC(), Advice: trusted}
	if len(unknown) > 1 {
		e = &SignatureError{Reason: fmt.Sprintf("none of the keys that signed (%s) is in the keyring", strings.Join(unknown, ", ")), Advice: trusted}
	}
	return e
}

func keyIDString(id uint64) string { return fmt.Sprintf("%016X", id) }

// judgeOne checks one signature. It returns nil without an error when the key is not in the keyring.
func (p Policy) judgeOne(sig *packet.Signature, m message) (*Signer, error) {
	c := p.Keyring.byKeyID[*sig.IssuerKeyId]
	if c == nil {
		return nil, nil
	}
	refuse := &SignatureError{KeyID: keyIDString(*sig.IssuerKeyId), Time: sig.CreationTime.UTC()}
	entity, err := c.entity()
	if err != nil {
		refuse.Reason, refuse.Err = "reading its certificate", err
		return nil, refuse
	}
	key, subkey := findKey(entity, *sig.IssuerKeyId)
	if key == nil || !sig.CheckKeyIdOrFingerprint(key) {
		return nil, nil // only the short key ID is that of one of our keys
	}
	j := judgement{policy: p, sig: sig, cert: c, entity: entity, key: key, subkey: subkey, message: m}
	j.config = p.config(sig)
	refuse.UserID = j.userID()
	for _, step := range []func() (reason, advice string, err error){j.form, j.revocation, j.strength, j.binding, j.dates, j.mathematics} {
		if reason, advice, err := step(); reason != "" {
			refuse.Reason, refuse.Advice, refuse.Err = reason, advice, err
			return nil, refuse
		}
	}
	return &Signer{
		Fingerprint: c.fingerprint, KeyID: refuse.KeyID, UserID: refuse.UserID, Time: refuse.Time,
		Hash: hashID(sig.Hash), Algorithm: algorithmName(key),
	}, nil
}

// findKey returns the key with that ID, and its subkey unless it is the primary key.
func findKey(e *openpgp.Entity, id uint64) (*packet.PublicKey, *openpgp.Subkey) {
	if e.PrimaryKey.KeyId == id {
		return e.PrimaryKey, nil
	}
	for i := range e.Subkeys {
		if s := &e.Subkeys[i]; s.PublicKey.KeyId == id {
			return s.PublicKey, s
		}
	}
	return nil, nil
}

// effectiveTime is the moment at which sig is judged. Only the holder of the secret key can choose its creation time.
func (p Policy) effectiveTime(sig *packet.Signature) time.Time {
	if sig.CreationTime.After(p.Time) {
		return sig.CreationTime
	}
	return p.Time
}

// config returns the settings by which the library judges self-signatures: the time, and the refused hashes. It knows no
// notation, so a critical one makes a self-signature invalid. Keys are judged by weakness.
func (p Policy) config(sig *packet.Signature) *packet.Config {
	weak := map[crypto.Hash]bool{crypto.MD5: true, crypto.SHA1: true, crypto.RIPEMD160: true, crypto.SHA224: true}
	return &packet.Config{
		Time:                 func() time.Time { return p.effectiveTime(sig) },
		RejectHashAlgorithms: weak,
	}
}
