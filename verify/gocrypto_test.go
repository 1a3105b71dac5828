package verify_test

import (
	"bytes"
	"crypto"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"updater/verify"
)

// goKey makes a key pair with go-crypto, of 2024-01-01.
func goKey(t testing.TB, config packet.Config) *openpgp.Entity {
	t.Helper()
	config.Time = func() time.Time { return time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC) }
	e, err := openpgp.NewEntity("car\x1bol", "", "carol@example.com", &config)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func goConfig() *packet.Config {
	return &packet.Config{
		DefaultHash: crypto.SHA512, Time: func() time.Time { return date(2025, 1) },
		NonDeterministicSignaturesViaNotation: new(bool), // its salt refuses SHA-1
	}
}

func goExport(t testing.TB, e *openpgp.Entity) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := e.Serialize(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func goSign(t testing.TB, e *openpgp.Entity, doc []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := openpgp.DetachSign(&b, []*openpgp.Entity{e}, bytes.NewReader(doc), goConfig()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// goClearsign signs doc without its final newline, because the encoder adds one.
func goClearsign(t testing.TB, e *openpgp.Entity, doc []byte) []byte {
	t.Helper()
	key, ok := e.SigningKey(goConfig().Now(), goConfig())
	if !ok {
		t.Fatal("no signing key")
	}
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, key.PrivateKey, goConfig())
	if err != nil {
		t.Fatal(err)
	}
	w.Write(bytes.TrimSuffix(doc, []byte("\n")))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b.WriteByte('\n')
	return b.Bytes()
}

func TestGoCrypto(t *testing.T) {
	for name, config := range map[string]packet.Config{
		"ed25519 v4": {Algorithm: packet.PubKeyAlgoEdDSA}, "ed25519 v6": {Algorithm: packet.PubKeyAlgoEd25519, V6Keys: true},
		"ed448 v4": {Algorithm: packet.PubKeyAlgoEdDSA, Curve: packet.Curve448}, "ed448 v6": {Algorithm: packet.PubKeyAlgoEd448, V6Keys: true},
		"nistp384": {Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveNistP384},
		"nistp521": {Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveNistP521},
	} {
		t.Run(name, func(t *testing.T) {
			e := goKey(t, config)
			p := verify.Policy{Keyring: ring(t, goExport(t, e)), Time: now2025}
			sig := goSign(t, e, testDoc)
			got, err := p.Verify(testDoc, sig)
			checkVerdict(t, got, err, testDoc, "")
			if s := got.Signers[0]; s.Algorithm != strings.Fields(name)[0] || s.UserID != "car\ufffdol <carol@example.com>" {
				t.Errorf("the signer is %+v", s)
			}
			if only, err := p.Keyring.Only(p.Keyring.Fingerprints()...); err != nil || only.Len() != 1 {
				t.Errorf("Only() = %v, %v", only, err)
			}
			got, err = p.Verify(testDoc, armored(t, sig))
			checkVerdict(t, got, err, testDoc, "")
			got, err = p.Verify(goClearsign(t, e, testDoc), nil)
			checkVerdict(t, got, err, testDoc, "")
			got, err = p.Verify(testDoc[1:], sig)
			checkVerdict(t, got, err, nil, "not over this document")
		})
	}
}

func armored(t testing.TB, sig []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := armor.Encode(&b, "PGP SIGNATURE", map[string]string{"Comment": "a test"})
	if err != nil {
		t.Fatal(err)
	}
	w.Write(sig)
	w.Close()
	return b.Bytes()
}

// signBy makes a detached signature of testDoc by any key at any time, as the holder of the secret key can.
func signBy(t testing.TB, key *packet.PrivateKey, made time.Time) []byte {
	t.Helper()
	return signAs(t, key, &packet.Signature{SigType: packet.SigTypeBinary, Hash: crypto.SHA512, CreationTime: made}, testDoc)
}

func signAs(t testing.TB, key *packet.PrivateKey, sig *packet.Signature, doc []byte) []byte {
	t.Helper()
	id := key.KeyId
	sig.Version, sig.PubKeyAlgo, sig.IssuerKeyId = key.Version, key.PubKeyAlgo, &id
	h := sig.Hash.New()
	h.Write(doc)
	var b bytes.Buffer
	if err := errors.Join(sig.Sign(h, key, goConfig()), sig.Serialize(&b)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestSignedWhileInvalid: gpg refuses to make these signatures; the holder of the key can.
func TestSignedWhileInvalid(t *testing.T) {
	at := func(year int) func() time.Time {
		return func() time.Time { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC) }
	}
	month := uint32(30 * 24 * 3600)
	tests := []struct {
		name     string
		lifetime uint32
		flags    func(*packet.Signature)
		made     int
		want     string
	}{
		{name: "before the key", made: 2023, want: "made before its key, which is of 2024-01-01"},
		{name: "after it expired", lifetime: month, made: 2025, want: "the key had expired on 2024-01-31"},
		{name: "without the signing flag", flags: func(s *packet.Signature) { s.FlagSign = false }, made: 2025, want: "signing flag"},
		{name: "without any flags", flags: func(s *packet.Signature) { s.FlagsValid = false }, made: 2025, want: "signing flag"},
		{name: "good", made: 2025},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			config := packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, KeyLifetimeSecs: tc.lifetime, Time: at(2024)}
			e := goKey(t, config)
			for _, id := range e.Identities {
				self := id.SelfCertifications[0].Packet
				if tc.flags != nil {
					tc.flags(self)
				}
				if err := self.SignUserId(id.Name, e.PrimaryKey, e.PrivateKey, &config); err != nil {
					t.Fatal(err)
				}
			}
			sig := signBy(t, e.PrivateKey, at(tc.made)())
			got, err := verify.Policy{Keyring: ring(t, goExport(t, e)), Time: now2025}.Verify(testDoc, sig)
			checkVerdict(t, got, err, testDoc, tc.want)
		})
	}
}
