package verify

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// MaxKeyringSize bounds all certificates of a keyring together, in bytes.
const MaxKeyringSize = 1 << 20

// Keyring is a set of OpenPGP certificates that may sign. It is not empty.
type Keyring struct{ entities openpgp.EntityList }

// LoadKeyring reads certificates, armored or binary, from files, and from every file of folders (not below
// them, and not hidden ones). Copies of one certificate are merged so that a revocation in any of them
// counts. No path, an unreadable or empty file or folder, junk and secret keys are errors that name the path.
func LoadKeyring(paths ...string) (*Keyring, error) {
	if len(paths) == 0 {
		return nil, errors.New("no keyring is named")
	}
	k, room := new(Keyring), int64(MaxKeyringSize)
	for _, path := range paths {
		files, err := keyringFiles(path)
		if err != nil {
			return nil, fmt.Errorf("keyring %s: %w", path, err)
		}
		for _, file := range files {
			data, err := readUpTo(file, room)
			if err != nil {
				return nil, fmt.Errorf("keyring %s: %w", file, err)
			}
			room -= int64(len(data))
			if err := k.add(data); err != nil {
				return nil, fmt.Errorf("keyring %s: %w", file, err)
			}
		}
	}
	return k, nil
}

func keyringFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !e.IsDir() {
			files = append(files, filepath.Join(path, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, errors.New("the folder holds no certificate")
	}
	return files, nil
}

func readUpTo(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("a keyring may have %d bytes at most", int64(MaxKeyringSize))
	}
	return data, err
}

const armorStart = "-----BEGIN PGP "

// add reads the certificates of one file.
func (k *Keyring) add(data []byte) error {
	if !bytes.HasPrefix(bytes.TrimSpace(data), []byte(armorStart)) {
		return k.addBinary(bytes.NewReader(data))
	}
	for rest := bytes.TrimSpace(data); len(rest) > 0; {
		if !bytes.HasPrefix(rest, []byte(armorStart)) {
			return errors.New("holds text outside its armored blocks")
		}
		// The armor reader reads ahead, so that the blocks are cut apart here.
		block := rest
		if next := bytes.Index(rest[1:], []byte(armorStart)); next >= 0 {
			block, rest = rest[:next+1], rest[next+1:]
		} else {
			rest = nil
		}
		b, err := armor.Decode(bytes.NewReader(block))
		if err != nil {
			return fmt.Errorf("armor: %w", err)
		}
		if b.Type != openpgp.PublicKeyType {
			return fmt.Errorf("holds a %q block, expected %q", b.Type, openpgp.PublicKeyType)
		}
		if err := k.addBinary(b.Body); err != nil {
			return err
		}
	}
	return nil
}

func (k *Keyring) addBinary(r io.Reader) error {
	packets, n := packet.NewReader(r), 0
	for ; ; n++ {
		e, err := openpgp.ReadEntity(packets)
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("certificate %d: %w", n+1, err)
		}
		if e.PrivateKey != nil {
			return errors.New("holds a secret key, which must never be on a device; export the public one")
		}
		k.merge(e)
	}
	if n == 0 {
		return errors.New("holds no certificate")
	}
	return nil
}

// merge adds a certificate, or what another copy of it has in addition: a stale copy must not hide a
// revocation.
func (k *Keyring) merge(e *openpgp.Entity) {
	for _, have := range k.entities {
		if !bytes.Equal(have.PrimaryKey.Fingerprint, e.PrimaryKey.Fingerprint) {
			continue
		}
		have.Revocations = append(have.Revocations, e.Revocations...)
		have.DirectSignatures = append(have.DirectSignatures, e.DirectSignatures...)
		for name, id := range e.Identities {
			if old, ok := have.Identities[name]; ok {
				old.SelfCertifications = append(old.SelfCertifications, id.SelfCertifications...)
				old.Revocations = append(old.Revocations, id.Revocations...)
				continue
			}
			id.Primary = have
			have.Identities[name] = id
		}
		for _, sub := range e.Subkeys {
			i := slices.IndexFunc(have.Subkeys, func(s openpgp.Subkey) bool {
				return bytes.Equal(s.PublicKey.Fingerprint, sub.PublicKey.Fingerprint)
			})
			if i < 0 {
				sub.Primary = have
				have.Subkeys = append(have.Subkeys, sub)
				continue
			}
			have.Subkeys[i].Bindings = append(have.Subkeys[i].Bindings, sub.Bindings...)
			have.Subkeys[i].Revocations = append(have.Subkeys[i].Revocations, sub.Revocations...)
		}
		return
	}
	k.entities = append(k.entities, e)
}

// Len is the number of certificates.
func (k *Keyring) Len() int { return len(k.entities) }

// Fingerprints lists the primary keys, in capitals, sorted.
func (k *Keyring) Fingerprints() []string {
	var list []string
	for _, e := range k.entities {
		list = append(list, fingerprint(e.PrimaryKey))
	}
	slices.Sort(list)
	return list
}

func fingerprint(key *packet.PublicKey) string { return fmt.Sprintf("%X", key.Fingerprint) }
