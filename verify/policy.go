package verify

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// MaxSignatureSize limits a signature, detached or inside a clearsigned document, in bytes.
	MaxSignatureSize = 64 << 10

	// MaxDocumentSize limits a document, in bytes. A clearsigned one may be larger by MaxSignatureSize for its armor.
	MaxDocumentSize = 64 << 20

	// DefaultMinRSABits is the smallest RSA key that is accepted without an explicit Policy.MinRSABits.
	DefaultMinRSABits = 3072

	minRSABits    = 2048  // lowest value of a policy
	maxRSABits    = 16384 // the largest key gpg and the library handle
	maxSignatures = 16    // in one document: a bound on the time to judge it
)

// Policy decides which signatures are accepted. It is a value; Verify is safe for concurrent use.
type Policy struct {
	Keyring    *Keyring  // trusted certificates; required
	Time       time.Time // the trusted clock, see TrustedClock; required, the zero time is refused
	LowerBound bool      // the current time is Time or later (the clock was never set): signatures of any later time are accepted
	MinRSABits int       // smallest RSA key in bits, 2048 to 16384; 0 = DefaultMinRSABits
	MinHash    int       // smallest digest in bits: 256, 384 or 512; 0 = 256
	MinSigners int       // distinct primary keys that must have signed; 0 = 1

	// RefuseExpired refuses every key that has expired by now, for earlier signatures too.
	RefuseExpired bool

	// Roles limits what a key may sign for, by fingerprint as in Keyring.Fingerprints. A key without an entry may sign
	// for every role. See Policy.Permit.
	Roles map[string][]string

	// RoleSigners raises MinSigners for a role. See Policy.Permit.
	RoleSigners map[string]int

	// Documents limits which types of document a key may sign, by fingerprint. A key without an entry may sign those of
	// DefaultDocuments. See Policy.PermitDocument.
	Documents map[string][]string
}

// DocumentTypes lists the types of document that Policy.Documents may name.
func DocumentTypes() []string { return []string{"release", "bmap", "channel", "keyring", "plan"} }

// DefaultDocuments lists the types of document that a key may sign unless Policy.Documents names others. A channel's key
// is online, and a keyring changes the set of trusted keys, so both must be named.
func DefaultDocuments() []string { return []string{"release", "bmap"} }

// Signer is one primary key that signed a document.
type Signer struct {
	Fingerprint string    `json:"fingerprint"` // of the primary key, upper-case hex
	KeyID       string    `json:"key_id"`      // of the primary key or subkey that made the signature, upper-case hex
	UserID      string    `json:"user_id"`     // primary user ID of the certificate, unprintable characters replaced; may be empty
	Time        time.Time `json:"time"`        // creation time that the signature claims, UTC
	Hash        string    `json:"hash"`        // such as "sha512"
	Algorithm   string    `json:"algorithm"`   // such as "ed25519", "rsa3072", "nistp256"
}

// Signed is a document whose signatures were accepted.
type Signed struct {
	Data    []byte   // exactly the bytes that were signed: parse these and nothing else
	Form    string   // "detached" or "clearsigned"
	Signers []Signer // one for each distinct primary key, in the order of the signatures; at least Policy.MinSigners
}

// Verify checks the signatures of a document. With sig it is a detached signature, armored or binary, over doc as it is;
// sig == nil means that doc is clearsigned. A clearsigned document beside a detached signature is refused, because two
// readers could disagree on the signed bytes.
//
// For a detached signature Signed.Data is doc itself, so the caller must not change doc before it is parsed. For a
// clearsigned document Data is the text, each line ended by LF, including the last one.
//
// Every error is a [*SignatureError]. The result is nil unless all checks passed.
func (p Policy) Verify(doc, sig []byte) (*Signed, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	if sig == nil {
		return p.verifyClearsigned(doc)
	}
	return p.verifyDetached(doc, sig)
}

// Permit checks that enough of the signers may sign for a role, such as "rootfs", and returns those: MinSigners or
// RoleSigners, whichever is more. Verify cannot decide it: the role is named in the document. With role "" only keys
// without a limit count. The error is a [*SignatureError].
func (p Policy) Permit(signers []Signer, role string) ([]Signer, error) {
	what := "for this role, which the document does not name"
	if role != "" {
		what = fmt.Sprintf("for this role, which is %q here", role)
	}
	return permit(signers, max(p.MinSigners, p.RoleSigners[role], 1), what, func(fingerprint string) ([]string, bool) {
		roles, limited := p.Roles[fingerprint]
		return roles, !limited || role != "" && slices.Contains(roles, role)
	})
}

// PermitDocument checks that enough of the signers may sign a type of document, such as "release", and returns those. The
// error is a [*SignatureError].
func (p Policy) PermitDocument(signers []Signer, kind string) ([]Signer, error) {
	what := fmt.Sprintf("a document of type %q", kind)
	return permit(signers, max(p.MinSigners, 1), what, func(fingerprint string) ([]string, bool) {
		kinds, named := p.Documents[fingerprint]
		if !named {
			kinds = DefaultDocuments()
		}
		return kinds, slices.Contains(kinds, kind)
	})
}

// permit returns the signers that may sign; allowed returns the uses that a key may sign for, and whether this one is included.
func permit(signers []Signer, need int, what string, allowed func(fingerprint string) (list []string, ok bool)) ([]Signer, error) {
	var may []Signer
	var refused []string
	for _, s := range signers {
		list, ok := allowed(s.Fingerprint)
		if ok {
			may = append(may, s)
			continue
		}
		refused = append(refused, fmt.Sprintf("key %s may sign only for %s", s.Fingerprint, strings.Join(list, ", ")))
	}
	if len(may) >= need {
		return may, nil
	}
	reason := fmt.Sprintf("%d of the keys that signed may sign %s; %d must", len(may), what, need)
	if len(refused) > 0 {
		reason += ": " + strings.Join(refused, "; ")
	}
	return nil, &SignatureError{Reason: reason, Advice: "have it signed by keys that may sign this"}
}

// check refuses an incomplete policy.
func (p Policy) check() error {
	switch {
	case p.Keyring == nil || p.Keyring.Len() == 0:
		return &SignatureError{Reason: "no key is trusted: the keyring is empty", Advice: "name a keyring in the configuration"}
	case p.Time.IsZero():
		// To the library a zero time means "do not check expiry".
		return &SignatureError{Reason: "no trusted time is set, so expiry cannot be checked", Advice: "set the clock"}
	case p.MinRSABits != 0 && (p.MinRSABits < minRSABits || p.MinRSABits > maxRSABits):
		return &SignatureError{Reason: fmt.Sprintf("the policy asks for RSA keys of %d bits, expected %d to %d", p.MinRSABits, minRSABits, maxRSABits),
			Advice: "correct the configuration"}
	case !slices.Contains([]int{0, 256, 384, 512}, p.MinHash):
		return &SignatureError{Reason: fmt.Sprintf("the policy asks for digests of %d bits, expected 256, 384 or 512", p.MinHash),
			Advice: "correct the configuration"}
	case p.MinSigners < 0 || p.MinSigners > p.Keyring.Len():
		return &SignatureError{Reason: fmt.Sprintf("the policy asks for %d signers, but the keyring has %d", p.MinSigners, p.Keyring.Len()),
			Advice: "correct the configuration or the keyring"}
	}
	for role, n := range p.RoleSigners {
		if n < 0 || n > p.Keyring.Len() {
			return &SignatureError{
				Reason: fmt.Sprintf("the policy asks for %d signers of role %q, but the keyring has %d", n, role, p.Keyring.Len()),
				Advice: "correct the configuration or the keyring",
			}
		}
	}
	return nil
}

func (p Policy) rsaBits() int {
	if p.MinRSABits == 0 {
		return DefaultMinRSABits
	}
	return p.MinRSABits
}

func (p Policy) verifyDetached(doc, sig []byte) (*Signed, error) {
	switch {
	case IsClearsigned(doc):
		return nil, &SignatureError{Reason: "document is clearsigned and also has a detached signature", Advice: "use one of both"}
	case len(doc) > MaxDocumentSize:
		return nil, &SignatureError{Reason: fmt.Sprintf("document has %d bytes, at most %d are allowed", len(doc), MaxDocumentSize)}
	case len(doc) == 0:
		return nil, &SignatureError{Reason: "document is empty"}
	}
	packets, err := detachedPackets(sig)
	if err != nil {
		return nil, err
	}
	signers, err := p.judge(packets, message{signed: doc})
	if err != nil {
		return nil, err
	}
	return &Signed{Data: doc, Form: "detached", Signers: signers}, nil
}

// detachedPackets unpacks a detached signature.
func detachedPackets(sig []byte) ([]rawPacket, error) {
	switch {
	case len(sig) == 0:
		return nil, &SignatureError{Reason: "signature file is empty"}
	case len(sig) > MaxSignatureSize:
		return nil, &SignatureError{Reason: fmt.Sprintf("signature has %d bytes, at most %d are allowed", len(sig), MaxSignatureSize)}
	case IsClearsigned(sig):
		return nil, &SignatureError{Reason: "signature file is a clearsigned document",
			Advice: "sign with gpg --detach-sign, or give the clearsigned file as the document"}
	}
	if isArmored(sig) {
		kind, data, rest, err := dearmor(sig)
		switch {
		case err != nil:
			return nil, &SignatureError{Reason: "reading the signature", Err: err}
		case kind != armorSignature:
			return nil, &SignatureError{Reason: fmt.Sprintf("signature file holds a %q, expected %q", kind, armorSignature),
				Advice: "sign with gpg --detach-sign --armor"}
		case isArmored(rest):
			return nil, &SignatureError{Reason: "signature file holds several armored blocks, expected one",
				Advice: "sign once with several keys (gpg -u KEY1 -u KEY2 --detach-sign), or join binary signatures"}
		case len(rest) > 0:
			return nil, &SignatureError{Reason: fmt.Sprintf("%d bytes follow the armored signature", len(rest))}
		}
		sig = data
	}
	packets, err := splitPackets(sig)
	if err != nil {
		return nil, &SignatureError{Reason: "reading the signature", Err: err}
	}
	return packets, nil
}

func (p Policy) verifyClearsigned(doc []byte) (*Signed, error) {
	switch {
	case !IsClearsigned(doc):
		return nil, &SignatureError{Reason: "document is not signed: it is not clearsigned, and no detached signature is given",
			Advice: "sign it with gpg --detach-sign and keep the .sig or .asc file beside it"}
	case len(doc) > MaxDocumentSize+MaxSignatureSize:
		return nil, &SignatureError{Reason: fmt.Sprintf("document has %d bytes, at most %d are allowed", len(doc), MaxDocumentSize)}
	}
	c, err := parseClearsigned(doc)
	if err != nil {
		return nil, &SignatureError{Reason: "reading the clearsigned document", Err: err,
			Advice: "sign it again with gpg --clearsign, or better with gpg --detach-sign"}
	}
	if len(c.sig) > MaxSignatureSize {
		return nil, &SignatureError{Reason: fmt.Sprintf("signature has %d bytes, at most %d are allowed", len(c.sig), MaxSignatureSize)}
	}
	packets, err := splitPackets(c.sig)
	if err != nil {
		return nil, &SignatureError{Reason: "reading the signature of the clearsigned document", Err: err}
	}
	signers, err := p.judge(packets, message{signed: c.signed, clearsigned: true, hashes: c.hashes})
	if err != nil {
		return nil, err
	}
	return &Signed{Data: c.text, Form: "clearsigned", Signers: signers}, nil
}
