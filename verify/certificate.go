package verify

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

const (
	sigKeyRevocation    = packet.SigTypeKeyRevocation
	sigSubkeyRevocation = packet.SigTypeSubkeyRevocation
	sigUserIDRevocation = packet.SigTypeCertificationRevocation
)

// certificate is one primary key with its user IDs and subkeys, from one or more copies. The packets are kept, not the
// library's parsed form: that caches verdicts which depend on time and policy, and is not safe for concurrent use.
type certificate struct {
	fingerprint string                // of the primary key, upper-case hex
	keyIDs      []uint64              // of the primary key and the subkeys
	copies      [][]byte              // packets of each distinct copy
	revoked     map[uint64]revocation // by key ID; a revoked primary key revokes all
	primaryID   uint64
}

// revocation is the date and reason that the owner of a key gave for revoking it.
type revocation struct {
	at     time.Time
	reason string
}

// readCertificate reads one copy: a primary key packet and all packets up to the next one.
func readCertificate(packets []rawPacket) (*certificate, error) {
	var raw []byte
	for _, p := range packets {
		raw = append(raw, p.bytes...)
	}
	entity, err := parseEntity(raw)
	if err != nil {
		return nil, fmt.Errorf("byte %d: reading the certificate: %w", packets[0].offset, err)
	}
	c := &certificate{
		fingerprint: fmt.Sprintf("%X", entity.PrimaryKey.Fingerprint),
		copies:      [][]byte{raw},
		primaryID:   entity.PrimaryKey.KeyId,
		keyIDs:      []uint64{entity.PrimaryKey.KeyId},
		revoked:     map[uint64]revocation{},
	}
	for _, s := range entity.Subkeys {
		c.keyIDs = append(c.keyIDs, s.PublicKey.KeyId)
	}
	if err := c.readRevocations(entity.PrimaryKey, packets); err != nil {
		return nil, fmt.Errorf("certificate %s: %w", c.fingerprint, err)
	}
	return c, nil
}

// fingerprint returns the fingerprint of a public key packet, "" if it cannot be read.
func (p rawPacket) fingerprint() string {
	parsed, _ := p.parse()
	if key, ok := parsed.(*packet.PublicKey); ok {
		return fmt.Sprintf("%X", key.Fingerprint)
	}
	return ""
}

// parseEntity parses one certificate; raw holds no other, see splitCertificates.
func parseEntity(raw []byte) (*openpgp.Entity, error) {
	return openpgp.ReadEntity(packet.NewReader(bytes.NewReader(raw)))
}

// readRevocations collects all revocations, because the library misses those in unusual places and weighs their dates. Here a
// revocation counts in any place, for ever, with any hash. A revocation that cannot be verified makes the certificate
// unusable: it may mean that the owner has given up the key.
func (c *certificate) readRevocations(primary *packet.PublicKey, packets []rawPacket) error {
	var subkey *packet.PublicKey // the last subkey; nil for none and for an unknown kind
	var inSubkey bool
	for _, p := range packets {
		if p.tag == tagPublicSubkey {
			parsed, _ := p.parse()
			subkey, _ = parsed.(*packet.PublicKey)
			inSubkey = true
			continue
		}
		kind := packet.SignatureType(max(p.signatureType(), 0))
		revokes := kind == sigKeyRevocation || kind == sigSubkeyRevocation || kind == sigUserIDRevocation
		if unknown := kind == sigSubkeyRevocation && inSubkey && subkey == nil; !revokes || unknown {
			continue
		}
		sig, err := p.signature()
		id := c.primaryID
		switch {
		case err != nil:
		case kind == sigKeyRevocation:
			err = primary.VerifyRevocationSignature(sig)
		case kind == sigSubkeyRevocation && subkey == nil:
			err = errors.New("it follows no subkey")
		case kind == sigSubkeyRevocation:
			id = subkey.KeyId
			err = primary.VerifySubkeyRevocationSignature(sig, subkey)
		default:
			continue // a readable one of a user ID: the library judges it
		}
		if err != nil {
			return fmt.Errorf("byte %d: a revocation cannot be checked: %w", p.offset, err)
		}
		c.revoked[id] = revocation{at: sig.CreationTime, reason: reasonOf(sig)}
	}
	return nil
}

func reasonOf(sig *packet.Signature) string {
	if sig.RevocationReason == nil {
		return "no reason given"
	}
	switch *sig.RevocationReason {
	case packet.NoReason:
		return "no reason given"
	case packet.KeySuperseded:
		return "superseded by another key"
	case packet.KeyCompromised:
		return "the secret key is compromised"
	case packet.KeyRetired:
		return "no longer used"
	}
	return "unknown reason"
}

// merge adds another copy of the same certificate.
func (c *certificate) merge(other *certificate) {
	for _, raw := range other.copies {
		if !slices.ContainsFunc(c.copies, func(b []byte) bool { return bytes.Equal(b, raw) }) {
			c.copies = append(c.copies, raw)
		}
	}
	maps.Copy(c.revoked, other.revoked)
	for _, id := range other.keyIDs {
		if !slices.Contains(c.keyIDs, id) {
			c.keyIDs = append(c.keyIDs, id)
		}
	}
}

// entity parses all copies and joins them: every user ID, subkey and self-signature that is in any of them.
func (c *certificate) entity() (*openpgp.Entity, error) {
	var all *openpgp.Entity
	for _, raw := range c.copies {
		e, err := parseEntity(raw)
		if err != nil {
			return nil, fmt.Errorf("internal error: certificate %s was readable once: %w", c.fingerprint, err)
		}
		if all == nil {
			all = e
			continue
		}
		join(all, e)
	}
	return all, nil
}

func join(all, e *openpgp.Entity) {
	all.DirectSignatures = append(all.DirectSignatures, e.DirectSignatures...)
	for name, id := range e.Identities {
		if have := all.Identities[name]; have != nil {
			have.SelfCertifications = append(have.SelfCertifications, id.SelfCertifications...)
			have.Revocations = append(have.Revocations, id.Revocations...)
			continue
		}
		all.Identities[name] = id
	}
	for _, s := range e.Subkeys {
		i := slices.IndexFunc(all.Subkeys, func(have openpgp.Subkey) bool {
			return bytes.Equal(have.PublicKey.Fingerprint, s.PublicKey.Fingerprint)
		})
		if i < 0 {
			all.Subkeys = append(all.Subkeys, s)
			continue
		}
		all.Subkeys[i].Bindings = append(all.Subkeys[i].Bindings, s.Bindings...)
	}
}
