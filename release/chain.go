package release

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"updater/verify"
)

// Bounds of a chain of keyrings: links, and bytes of all of them.
const (
	MaxLinks = 16
	MaxChain = 1 << 20
)

// Link is one keyring document of a chain with its signature, which is nil for a clearsigned one. Nothing of it is trusted before
// [Trust.Succeed].
type Link struct {
	Number              int64 // that it claims
	Document, Signature []byte
}

// Succeed opens the keyring that follows keyring number, and returns the trust that it gives. The document must be signed by enough keys that
// may sign keyrings under t, and by enough under its own policy, so no keyring takes effect that could not be replaced. The requirements of
// the configuration for every document, such as MinSigners, stay the minimum. Errors: those of [Trust.OpenKeyring], [verify.SignatureError].
func (t Trust) Succeed(l Link, number int64) (Trust, *Keyring, error) {
	k, _, err := t.OpenKeyring(l.Document, l.Signature)
	if err != nil {
		return t, nil, err
	}
	if got := k.contents.Number; got != number+1 {
		return t, nil, &verify.SignatureError{
			Reason: fmt.Sprintf("the keyring has the number %d, the one trusted here has %d; expected %d", got, number, number+1),
			Advice: "install the keyrings between them, in their order",
		}
	}
	next := t
	if next.Policy, err = k.contents.policy(t.Policy); err != nil {
		return t, nil, err
	}
	if _, _, err := next.OpenKeyring(l.Document, l.Signature); err != nil {
		return t, nil, fmt.Errorf("keyring %d under its own rules: %w", number+1, err)
	}
	return next, k, nil
}

// Follow opens a chain whose first links may be of the sealed keyring or older: those up to number are skipped. It returns the trust of the
// last link and its number, or those before the first link that cannot be trusted, with the error. Errors: those of [Trust.Succeed].
func (t Trust) Follow(chain []Link, number int64) (Trust, int64, error) {
	for _, l := range chain {
		if l.Number <= number {
			continue
		}
		next, k, err := t.Succeed(l, number)
		if err != nil {
			return t, number, err
		}
		t, number = next, k.contents.Number
	}
	return t, number, nil
}

// policy returns the policy of a device with this keyring.
func (c *KeyringContents) policy(base verify.Policy) (verify.Policy, error) {
	refuse := func(err error) (verify.Policy, error) {
		return base, &verify.SignatureError{Reason: fmt.Sprintf("the certificates of keyring %d", c.Number), Err: err, Advice: "make the keyring again"}
	}
	var blocks [][]byte
	for _, cert := range c.Certificates {
		blocks = append(blocks, cert.OpenPGP)
	}
	ring, err := verify.NewKeyring(blocks...)
	if err != nil {
		return refuse(err)
	}
	p := base
	p.Keyring, p.MinSigners = ring, max(base.MinSigners, int(c.MinSigners))
	p.Roles, p.Documents, p.RoleSigners = map[string][]string{}, map[string][]string{}, maps.Clone(base.RoleSigners)
	var named []string
	for _, cert := range c.Certificates {
		named = append(named, cert.Fingerprint)
		if len(cert.Roles) > 0 {
			p.Roles[cert.Fingerprint] = cert.Roles
		}
		if len(cert.Documents) > 0 {
			p.Documents[cert.Fingerprint] = cert.Documents
		}
	}
	if slices.Sort(named); !slices.Equal(named, ring.Fingerprints()) {
		return refuse(fmt.Errorf("they are %v, the document names %v", ring.Fingerprints(), named))
	}
	for _, r := range c.Roles {
		if p.RoleSigners == nil {
			p.RoleSigners = map[string]int{}
		}
		p.RoleSigners[r.Role] = max(p.RoleSigners[r.Role], int(r.MinSigners))
	}
	return p, nil
}

// linkHeader is the number and the lengths of document and signature before each link.
const linkHeader = 16

// EncodeChain packs a chain for the state store. A chain beyond [MaxLinks] or [MaxChain] is an error.
func EncodeChain(chain []Link) ([]byte, error) {
	var b []byte
	for _, l := range chain {
		b = binary.LittleEndian.AppendUint64(b, uint64(l.Number))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(l.Document)))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(l.Signature)))
		b = append(append(b, l.Document...), l.Signature...)
	}
	if len(chain) > MaxLinks || len(b) > MaxChain {
		return nil, &verify.SignatureError{
			Reason: fmt.Sprintf("the chain of keyrings has %d links of %d bytes, expected at most %d of %d bytes", len(chain), len(b), MaxLinks, MaxChain),
			Advice: "install a release whose configuration has the newest keyring and its trust.keyring_number; the chain begins anew there",
		}
	}
	return b, nil
}

// DecodeChain unpacks a chain. It checks nothing but the lengths.
func DecodeChain(b []byte) ([]Link, error) {
	var chain []Link
	for len(b) > 0 {
		if len(b) < linkHeader || len(chain) == MaxLinks {
			return nil, fmt.Errorf("chain of keyrings: %d bytes are left after %d links", len(b), len(chain))
		}
		doc, sig := int64(binary.LittleEndian.Uint32(b[8:])), int64(binary.LittleEndian.Uint32(b[12:]))
		l := Link{Number: int64(binary.LittleEndian.Uint64(b))}
		if b = b[linkHeader:]; doc+sig > int64(len(b)) {
			return nil, fmt.Errorf("chain of keyrings: link %d has %d bytes, but %d are left", len(chain)+1, doc+sig, len(b))
		}
		if l.Document = b[:doc]; sig > 0 {
			l.Signature = b[doc : doc+sig]
		}
		chain, b = append(chain, l), b[doc+sig:]
	}
	return chain, nil
}
