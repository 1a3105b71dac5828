package release_test

import (
	"bytes"
	"crypto"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"updater/release"
	"updater/verify"
)

// imageFile makes a file of size bytes that are not zero, and opens it.
func imageFile(t testing.TB, name string, size int) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, bytes.Repeat([]byte{'x'}, size), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// lab makes keys and signs with them.
type lab struct {
	t    testing.TB
	keys map[string]*openpgp.Entity
	ids  map[string]string // fingerprints
	ring *verify.Keyring
}

// signedAt is the time when the lab signs.
var signedAt = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func labConfig() *packet.Config {
	return &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, DefaultHash: crypto.SHA512, Time: func() time.Time { return signedAt }}
}

// newLab makes a keyring of keys with these names.
func newLab(t testing.TB, names ...string) *lab {
	t.Helper()
	l := &lab{t: t, keys: map[string]*openpgp.Entity{}, ids: map[string]string{}}
	dir := t.TempDir()
	for _, name := range names {
		e := l.key(name)
		var cert bytes.Buffer
		if err := e.Serialize(&cert); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), cert.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ring, err := verify.LoadKeyring(dir)
	if err != nil {
		t.Fatal(err)
	}
	l.ring = ring
	return l
}

// key makes a key that the keyring does not have.
func (l *lab) key(name string) *openpgp.Entity {
	l.t.Helper()
	e, err := openpgp.NewEntity(name, "", name+"@example.com", labConfig())
	if err != nil {
		l.t.Fatal(err)
	}
	l.keys[name], l.ids[name] = e, fmt.Sprintf("%X", e.PrimaryKey.Fingerprint)
	return e
}

// sign makes one binary file of detached signatures.
func (l *lab) sign(doc []byte, names ...string) []byte {
	l.t.Helper()
	var sigs bytes.Buffer
	for _, name := range names {
		if err := openpgp.DetachSign(&sigs, []*openpgp.Entity{l.keys[name]}, bytes.NewReader(doc), labConfig()); err != nil {
			l.t.Fatal(err)
		}
	}
	return sigs.Bytes()
}

// clearsign signs doc without its final newline, because the encoder adds one.
func (l *lab) clearsign(doc []byte, name string) []byte {
	l.t.Helper()
	key, ok := l.keys[name].SigningKey(signedAt, labConfig())
	if !ok {
		l.t.Fatal("no signing key")
	}
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, key.PrivateKey, labConfig())
	if err != nil {
		l.t.Fatal(err)
	}
	if _, err := w.Write(bytes.TrimSuffix(doc, []byte("\n"))); err != nil {
		l.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		l.t.Fatal(err)
	}
	return append(b.Bytes(), '\n')
}

// trust is a policy of the lab's keyring, half a year later.
func (l *lab) trust() release.Trust {
	return release.Trust{Policy: verify.Policy{Keyring: l.ring, Time: signedAt.AddDate(0, 6, 0)}}
}
