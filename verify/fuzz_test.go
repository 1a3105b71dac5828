package verify_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"updater/verify"
)

// FuzzDetached checks that only the document that was signed is accepted, and that nothing panics.
func FuzzDetached(f *testing.F) {
	e := goKey(f, packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	other := goKey(f, packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	good := goSign(f, e, testDoc)
	f.Add(good)
	f.Add(armored(f, good))
	f.Add(append(bytes.Clone(good), good...))
	f.Add(append(goSign(f, other, testDoc), good...))
	f.Add(goExport(f, e))
	f.Add(goClearsign(f, e, testDoc))
	f.Add([]byte{})
	p := verify.Policy{Keyring: ring(f, goExport(f, e)), Time: now2025}
	changed := append(bytes.Clone(testDoc), '\n')
	f.Fuzz(func(t *testing.T, sig []byte) {
		if sig == nil {
			sig = []byte{}
		}
		got, err := p.Verify(testDoc, sig)
		switch {
		case err != nil:
			if _, ok := errors.AsType[*verify.SignatureError](err); !ok || got != nil {
				t.Fatalf("Verify() = %v, %T %v", got, err, err)
			}
		case len(got.Signers) != 1 || got.Signers[0].Fingerprint != p.Keyring.Fingerprints()[0]:
			t.Fatalf("Verify() = %+v", got)
		}
		if _, err := p.Verify(changed, sig); err == nil {
			t.Fatal("a changed document was accepted")
		}
	})
}

// FuzzClearsigned checks that an accepted document has the text that was signed, as another reader sees it too.
func FuzzClearsigned(f *testing.F) {
	e := goKey(f, packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	doc := []byte("a\n- b\n\n-- c\nFrom d\n")
	good := goClearsign(f, e, doc)
	f.Add(good)
	f.Add(append(bytes.Clone(good), good...))
	f.Add(bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n")))
	f.Add(bytes.Replace(good, []byte("a\n"), []byte("a \n"), 1))
	f.Add(bytes.Replace(good, []byte("Hash: SHA512\n"), nil, 1))
	f.Add(goSign(f, e, doc))
	p := verify.Policy{Keyring: ring(f, goExport(f, e)), Time: now2025}
	f.Fuzz(func(t *testing.T, signed []byte) {
		got, err := p.Verify(signed, nil)
		if err != nil {
			if _, ok := errors.AsType[*verify.SignatureError](err); !ok || got != nil {
				t.Fatalf("Verify() = %v, %T %v", got, err, err)
			}
			return
		}
		block, rest := clearsign.Decode(signed)
		if !bytes.Equal(got.Data, doc) || block == nil || len(rest) > 0 || string(block.Plaintext)+"\n" != string(doc) {
			t.Fatalf("Verify() accepted %q", got.Data)
		}
	})
}

// FuzzKeyring checks that no keyring file panics, and that every keyring that loads has a key.
func FuzzKeyring(f *testing.F) {
	e := goKey(f, packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	sig := goSign(f, e, testDoc)
	f.Add(goExport(f, e))
	if err := e.Revoke(packet.KeySuperseded, "", goConfig()); err != nil {
		f.Fatal(err)
	}
	f.Add(goExport(f, e))
	f.Add([]byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "ring")
		writeFile(t, path, data)
		k, err := verify.LoadKeyring(path)
		if err != nil {
			return
		}
		if k.Len() == 0 || len(k.Fingerprints()) != k.Len() {
			t.Fatal("keyring is empty")
		}
		if _, err := (verify.Policy{Keyring: k, Time: now2025}).Verify(append(bytes.Clone(testDoc), 'x'), sig); err == nil {
			t.Fatal("a changed document was accepted")
		}
	})
}
