package verify_test

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"updater/verify"
)

// signer makes a key, and the detached signature of a document by it, as gpg --detach-sign does.
func signer(doc []byte) (key *openpgp.Entity, signature []byte) {
	key, err := openpgp.NewEntity("release", "", "release@example.com", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	if err != nil {
		log.Fatal(err)
	}
	var sig bytes.Buffer
	if err := openpgp.DetachSign(&sig, []*openpgp.Entity{key}, bytes.NewReader(doc), nil); err != nil {
		log.Fatal(err)
	}
	return key, sig.Bytes()
}

// A document is acted on only after Verify has accepted it, and only on the bytes that Verify returns.
func Example() {
	doc := []byte("version = \"2026.11.1\"\n")
	key, signature := signer(doc)

	dir, err := os.MkdirTemp("", "keyring")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	var exported bytes.Buffer
	if err := errors.Join(key.Serialize(&exported), os.WriteFile(filepath.Join(dir, "release.gpg"), exported.Bytes(), 0o600)); err != nil {
		log.Fatal(err)
	}

	keyring, err := verify.LoadKeyring(dir)
	if err != nil {
		log.Fatal(err)
	}
	policy := verify.Policy{Keyring: keyring, Time: time.Now()}
	signed, err := policy.Verify(doc, signature)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, signed by %s: %s", signed.Form, signed.Signers[0].UserID, signed.Data)

	doc[0] = 'V'
	_, err = policy.Verify(doc, signature)
	_, refused := errors.AsType[*verify.SignatureError](err)
	fmt.Println("changed document refused:", refused)
	// Output:
	// detached, signed by release <release@example.com>: version = "2026.11.1"
	// changed document refused: true
}
