package verify

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// Limits of what is read, in bytes.
const (
	MaxSignatureSize = 64 << 10
	MaxDocumentSize  = 64<<20 + MaxSignatureSize
)

// clockSkew is how far in the future of the trusted clock a signature may have been made. That clock never
// runs ahead of a true one by design, but a signer's may.
const clockSkew = 24 * time.Hour

// defaultRSABits is the shortest RSA key that may sign.
const defaultRSABits = 3072

// Policy says which signatures count. It is safe for concurrent use when its Keyring is not shared with
// another Policy in use.
type Policy struct {
	Keyring    *Keyring
	Time       time.Time // the trusted clock; a zero time is refused, since it would switch expiry off
	MinRSABits int       // 0 is 3072
	MinSigners int       // distinct primary keys that must have signed; 0 is 1
}

// Signer is one key that signed.
type Signer struct {
	Fingerprint string    `json:"fingerprint"` // of the primary key, in capitals
	KeyID       string    `json:"key_id"`      // of the key or subkey that signed
	UserID      string    `json:"user_id"`
	Time        time.Time `json:"time"` // when, as the signer says
	Algorithm   string    `json:"algorithm"`
	Hash        string    `json:"hash"`
}

// The forms of a signed document.
const (
	FormDetached    = "detached"
	FormClearsigned = "clearsigned"
)

// Signed is what trusted keys have signed.
type Signed struct {
	Data    []byte // exactly the signed bytes: parse these and nothing else
	Form    string // FormDetached or FormClearsigned
	Signers []Signer
}

// SignatureError refuses a signature, or the lack of one.
type SignatureError struct {
	Reason string
	Err    error  // may be nil
	hint   string // may be empty
}

func (e *SignatureError) Error() string {
	if e.Err == nil {
		return e.Reason
	}
	return e.Reason + ": " + e.Err.Error()
}
func (e *SignatureError) Unwrap() error { return e.Err }

// Hint says what a person can do about it; "" when there is nothing special.
func (e *SignatureError) Hint() string { return e.hint }

func refuse(err error, format string, a ...any) error {
	return &SignatureError{Reason: fmt.Sprintf(format, a...), Err: err}
}

// Verify checks doc by its detached signature, binary or armored, or, when sig is nil, as a clearsigned
// document. A clearsigned doc beside a detached signature is refused: it would be unclear which counts.
//
// A signature counts when a key of the keyring made it while that key was valid, by a strong algorithm, and
// no copy of the certificate is revoked, whatever the reason and the time. A key that has expired since does
// not invalidate what it signed before. Signatures by unknown keys are passed over as long as MinSigners
// known ones are good, so that keys can be rotated; a bad signature by a known key refuses the document.
func (p Policy) Verify(doc, sig []byte) (*Signed, error) {
	switch {
	case p.Keyring == nil || p.Keyring.Len() == 0:
		return nil, refuse(nil, "there is no keyring, so nothing can be trusted")
	case p.Time.IsZero():
		return nil, refuse(nil, "internal error: the trusted clock is not set")
	case len(doc) > MaxDocumentSize:
		return nil, refuse(nil, "the signed document has %d bytes, at most %d are read", len(doc), MaxDocumentSize)
	case len(sig) > MaxSignatureSize:
		return nil, refuse(nil, "the signature has %d bytes, at most %d are read", len(sig), MaxSignatureSize)
	case sig == nil && !IsClearsigned(doc):
		return nil, refuse(nil, "the document is not signed: there is no signature, and it is not clearsigned")
	case sig != nil && IsClearsigned(doc):
		return nil, refuse(nil, "the document is clearsigned and has a detached signature too; only one may be there")
	}
	if sig == nil {
		return p.verifyClearsigned(doc)
	}
	packets, err := dearmor(sig)
	if err != nil {
		return nil, refuse(err, "reading the signature")
	}
	signers, err := p.signers(doc, packets, packet.SigTypeBinary)
	if err != nil {
		return nil, err
	}
	return &Signed{Data: doc, Form: FormDetached, Signers: signers}, nil
}

// dearmor returns the packets of a signature file. Exactly one armored block is taken, with nothing around it.
func dearmor(sig []byte) ([]byte, error) {
	text := bytes.TrimSpace(sig)
	if !bytes.HasPrefix(text, []byte("-----BEGIN")) {
		return sig, nil
	}
	const end = "-----END PGP SIGNATURE-----"
	if bytes.Count(text, []byte("-----BEGIN")) != 1 || !bytes.HasSuffix(text, []byte(end)) {
		return nil, errors.New("expected exactly one armored signature and nothing else")
	}
	block, err := armor.Decode(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	if block.Type != openpgp.SignatureType {
		return nil, fmt.Errorf("armored %q, expected %q", block.Type, openpgp.SignatureType)
	}
	return io.ReadAll(block.Body)
}

// signers judges every signature packet over data and returns who signed.
func (p Policy) signers(data, packets []byte, want packet.SignatureType) ([]Signer, error) {
	var good []Signer
	unknown := 0
	reader := packet.NewOpaqueReader(bytes.NewReader(packets))
	for n := 1; ; n++ {
		op, err := reader.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, refuse(err, "reading signature %d", n)
		}
		signer, err := p.signer(data, op, want)
		if errors.Is(err, pgperrors.ErrUnknownIssuer) {
			unknown++
			continue
		}
		if err != nil {
			return nil, refuse(explain(err), "signature %d", n)
		}
		if !slices.ContainsFunc(good, func(s Signer) bool { return s.Fingerprint == signer.Fingerprint }) {
			good = append(good, *signer)
		}
	}
	if need := max(p.MinSigners, 1); len(good) < need {
		e := &SignatureError{Reason: fmt.Sprintf("%d trusted keys signed, expected %d or more", len(good), need)}
		if len(good) == 0 && unknown > 0 {
			e.Reason = fmt.Sprintf("signed only by keys that are not in the keyring, which has %v", p.Keyring.Fingerprints())
			e.hint = "sign with a key of the keyring, or install the signer's certificate on the device by a trusted way"
		}
		return nil, e
	}
	return good, nil
}

// signer judges one signature packet.
func (p Policy) signer(data []byte, op *packet.OpaquePacket, want packet.SignatureType) (*Signer, error) {
	parsed, err := op.Parse()
	if err != nil {
		return nil, err
	}
	sig, ok := parsed.(*packet.Signature)
	if !ok {
		return nil, fmt.Errorf("is a packet of type %d, expected a signature", op.Tag)
	}
	if sig.SigType != want {
		return nil, fmt.Errorf("is of type %#02x, expected %#02x; a text-mode signature would fit two different files", byte(sig.SigType), byte(want))
	}
	now := p.Time
	if sig.CreationTime.After(now) {
		if sig.CreationTime.Sub(now) > clockSkew {
			return nil, fmt.Errorf("was made at %s, in the future of the trusted time %s", stamp(sig.CreationTime), stamp(now))
		}
		now = sig.CreationTime
	}
	var one bytes.Buffer
	if err := op.Serialize(&one); err != nil {
		return nil, err
	}
	_, entity, err := openpgp.VerifyDetachedSignature(p.Keyring.entities, bytes.NewReader(data), &one, p.config(now))
	if err != nil {
		return nil, err
	}
	key, err := signingKey(entity, sig)
	if err != nil {
		return nil, err
	}
	s := &Signer{
		Fingerprint: fingerprint(entity.PrimaryKey), KeyID: key.KeyIdString(), Time: sig.CreationTime.UTC(),
		Algorithm: algorithm(key), Hash: sig.Hash.String(),
	}
	if _, id := entity.PrimaryIdentity(sig.CreationTime, p.config(now)); id != nil {
		s.UserID = id.Name
	}
	return s, nil
}

// signingKey finds the key that made sig, and refuses it when it or its primary key is revoked: a
// revocation counts whatever its reason and the time it names.
func signingKey(e *openpgp.Entity, sig *packet.Signature) (*packet.PublicKey, error) {
	for _, r := range e.Revocations {
		if e.PrimaryKey.VerifyRevocationSignature(r.Packet) == nil {
			return nil, pgperrors.ErrKeyRevoked
		}
	}
	if sig.IssuerKeyId == nil {
		return nil, errors.New("names no key")
	}
	if *sig.IssuerKeyId == e.PrimaryKey.KeyId {
		return e.PrimaryKey, nil
	}
	for _, sub := range e.Subkeys {
		if sub.PublicKey.KeyId != *sig.IssuerKeyId {
			continue
		}
		for _, r := range sub.Revocations {
			if e.PrimaryKey.VerifySubkeyRevocationSignature(r.Packet, sub.PublicKey) == nil {
				return nil, pgperrors.ErrKeyRevoked
			}
		}
		return sub.PublicKey, nil
	}
	return nil, pgperrors.ErrUnknownIssuer
}

// config is the strict policy of the OpenPGP library at a time. Its knobs act in the v2 API only.
func (p Policy) config(now time.Time) *packet.Config {
	bits := p.MinRSABits
	if bits == 0 {
		bits = defaultRSABits
	}
	weak := map[crypto.Hash]bool{crypto.MD5: true, crypto.SHA1: true, crypto.RIPEMD160: true, crypto.SHA224: true}
	return &packet.Config{
		Time:       func() time.Time { return now },
		MinRSABits: uint16(bits),
		RejectPublicKeyAlgorithms: map[packet.PublicKeyAlgorithm]bool{
			packet.PubKeyAlgoDSA: true, packet.PubKeyAlgoElGamal: true, packet.PubKeyAlgoRSAEncryptOnly: true,
		},
		RejectHashAlgorithms:        weak,
		RejectMessageHashAlgorithms: weak,
		RejectCurves: map[packet.Curve]bool{
			packet.CurveSecP256k1: true, packet.CurveBrainpoolP256: true, packet.CurveBrainpoolP384: true, packet.CurveBrainpoolP512: true,
		},
	}
}

// explain puts the library's short errors into words that say what to look at.
func explain(err error) error {
	switch {
	case errors.Is(err, pgperrors.ErrSignatureExpired):
		return errors.New("the signature has expired")
	case errors.Is(err, pgperrors.ErrKeyExpired):
		return errors.New("the key had expired when it signed")
	case errors.Is(err, pgperrors.ErrKeyRevoked):
		return errors.New("the key is revoked")
	}
	return err
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func algorithm(key *packet.PublicKey) string {
	bits, _ := key.BitLength()
	switch key.PubKeyAlgo {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly:
		return fmt.Sprintf("RSA-%d", bits)
	case packet.PubKeyAlgoECDSA:
		return fmt.Sprintf("ECDSA-%d", bits)
	case packet.PubKeyAlgoEdDSA, packet.PubKeyAlgoEd25519:
		return "Ed25519"
	}
	return fmt.Sprintf("algorithm %d", key.PubKeyAlgo)
}

// TrustedTime is the trusted clock: the latest of the floors (when the program was built, when the device
// last knew the time) and the system's clock. A board without a clock wakes in 1970; the floors keep what
// had expired before them expired.
func TrustedTime(floors ...time.Time) time.Time {
	t := time.Now()
	for _, f := range floors {
		if f.After(t) {
			t = f
		}
	}
	return t
}
