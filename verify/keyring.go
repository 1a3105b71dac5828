package verify

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// MaxKeyringSize limits the sum of the sizes of the files of a keyring, in bytes.
const MaxKeyringSize = 1 << 20

// Keyring is a set of trusted OpenPGP certificates. It never changes and is safe for concurrent use.
type Keyring struct {
	certificates map[string]*certificate // by fingerprint of the primary key
	byKeyID      map[uint64]*certificate // primary keys and subkeys
	bad          map[string]error        // certificates that are not trusted since a copy of them cannot be read
}

func emptyKeyring() *Keyring {
	return &Keyring{certificates: map[string]*certificate{}, byKeyID: map[uint64]*certificate{}, bad: map[string]error{}}
}

// LoadKeyring reads certificates from files and directories. A file is binary or armored, of one or several blocks, as `gpg --export` writes
// it. In a directory every regular file (or link to one) is read, sorted by name, except hidden ones (.name); subdirectories are not.
//
// Nothing is skipped, because a skipped file could be the one with a revocation: a path that cannot be read, an empty file or directory, a
// secret key, a lone revocation and anything that is not a certificate are errors that name the path. A certificate with an unreadable key
// or revocation is not trusted in any of its copies, and [Keyring.Problems] gives the reason; if no other one is left, it is an error. A
// call without paths is an error too. Copies of one certificate are merged, and a revocation in any of them counts. Keys that are expired,
// revoked or too weak do load; they are refused when used.
func LoadKeyring(paths ...string) (*Keyring, error) {
	if len(paths) == 0 {
		return nil, errors.New("no keyring: no file or directory is configured, so nothing can be trusted")
	}
	k := emptyKeyring()
	room := int64(MaxKeyringSize)
	for _, path := range paths {
		files, err := keyFiles(path)
		if err != nil {
			return nil, fmt.Errorf("reading keyring %s: %w", path, err)
		}
		for _, file := range files {
			data, err := readKeyFile(file, room)
			if err == nil {
				room -= int64(len(data))
				err = k.add(data, "reading keyring "+file+": ")
			}
			if err != nil {
				return nil, fmt.Errorf("reading keyring %s: %w", file, err)
			}
		}
	}
	if err := k.dropBad(); err != nil {
		return nil, err
	}
	return k, nil
}

// dropBad removes the certificates of which a copy cannot be read. The error is that of one of them if no other one is left.
func (k *Keyring) dropBad() error {
	var last error
	for name, err := range k.bad {
		delete(k.certificates, name)
		last = err
	}
	maps.DeleteFunc(k.byKeyID, func(_ uint64, c *certificate) bool { return k.bad[c.fingerprint] != nil })
	if len(k.certificates) > 0 {
		return nil
	}
	return last
}

// Problems lists the certificates that are not trusted because a copy of them cannot be read, each with the reason.
func (k *Keyring) Problems() []string {
	var list []string
	for name, err := range k.bad {
		list = append(list, fmt.Sprintf("key %s is not trusted: %v", name, err))
	}
	slices.Sort(list)
	return list
}

// NewKeyring makes a keyring of blocks, by the rules of [LoadKeyring] for the contents of a file.
func NewKeyring(blocks ...[]byte) (*Keyring, error) {
	k := emptyKeyring()
	for i, block := range blocks {
		if err := k.add(block, ""); err != nil {
			return nil, fmt.Errorf("certificate block %d: %w", i+1, err)
		}
	}
	for _, err := range k.bad { // one document has no copies to choose from
		return nil, err
	}
	if len(k.certificates) == 0 {
		return nil, errors.New("no certificate, so nothing can be trusted")
	}
	return k, nil
}

// Certificate returns a certificate as [NewKeyring] takes it, with all its revocations, by the fingerprint of its primary key; nil if the
// keyring does not have it.
func (k *Keyring) Certificate(fingerprint string) []byte {
	if c := k.certificates[fingerprint]; c != nil {
		return slices.Concat(c.copies...)
	}
	return nil
}

// Knows reports whether a key is in the keyring, by the fingerprint of its primary key, and whether its owner has revoked it.
func (k *Keyring) Knows(fingerprint string) (known, revoked bool) {
	c := k.certificates[fingerprint]
	if c == nil {
		return false, false
	}
	_, revoked = c.revoked[c.primaryID]
	return true, revoked
}

// Len returns the number of distinct primary keys; it is at least 1.
func (k *Keyring) Len() int { return len(k.certificates) }

// Fingerprints returns the fingerprints of the primary keys as upper-case hex, sorted.
func (k *Keyring) Fingerprints() []string { return slices.Sorted(maps.Keys(k.certificates)) }

// Only returns a keyring with the certificates whose primary keys have these fingerprints, full and in hex, and no others. No
// fingerprint, an invalid one, or one that k does not have is an error: a pin without a key is a mistake.
func (k *Keyring) Only(fingerprints ...string) (*Keyring, error) {
	if len(fingerprints) == 0 {
		return nil, errors.New("no fingerprint is pinned, so nothing can be trusted")
	}
	only := emptyKeyring()
	maps.Copy(only.bad, k.bad)
	for _, f := range fingerprints {
		name, err := CleanFingerprint(f)
		if err != nil {
			return nil, err
		}
		c := k.certificates[name]
		switch {
		case c == nil && k.bad[name] != nil:
			continue
		case c == nil:
			return nil, fmt.Errorf("the keyring has no key %s; it has %s", name, strings.Join(k.Fingerprints(), ", "))
		}
		only.certificates[name] = c
		for _, id := range c.keyIDs {
			only.byKeyID[id] = c
		}
	}
	if err := only.dropBad(); err != nil {
		return nil, err
	}
	return only, nil
}

// CleanFingerprint returns a fingerprint as [Keyring.Fingerprints] writes it: upper-case hex without spaces. Anything
// but a full fingerprint of a version 4 or 6 key is an error; key IDs can be forged.
func CleanFingerprint(s string) (string, error) {
	clean := strings.ToUpper(strings.ReplaceAll(s, " ", ""))
	if n := len(clean); n != 40 && n != 64 || strings.Trim(clean, "0123456789ABCDEF") != "" {
		return "", fmt.Errorf("%q is not a full fingerprint, expected 40 or 64 hex digits", s)
	}
	return clean, nil
}

// keyFiles returns the file path, or the files of the directory path.
func keyFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path) // sorted
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || e.IsDir() {
			continue
		}
		files = append(files, filepath.Join(path, e.Name()))
	}
	if len(files) == 0 {
		return nil, errors.New("directory contains no key file")
	}
	return files, nil
}

// readKeyFile reads a regular file of at most room bytes.
func readKeyFile(path string, room int64) ([]byte, error) {
	info, err := os.Stat(path) // before opening: opening a FIFO would block
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, room+1))
	if err == nil && int64(len(data)) > room {
		err = fmt.Errorf("keyring is larger than %d bytes", MaxKeyringSize)
	}
	return data, err
}

// add puts every certificate of one file into the keyring. where begins the error of a certificate that cannot be read.
func (k *Keyring) add(data []byte, where string) error {
	blocks, err := keyBlocks(data)
	if err != nil {
		return err
	}
	for _, block := range blocks {
		packets, err := splitPackets(block)
		if err != nil {
			return fmt.Errorf("not an OpenPGP certificate: %w", err)
		}
		copies, err := splitCertificates(packets)
		if err != nil {
			return err
		}
		if len(copies) == 0 {
			return errors.New("it holds no certificate; write a keyring with gpg --export")
		}
		for i, packets := range copies {
			part, err := readCertificate(packets)
			if name := packets[0].fingerprint(); err != nil && name != "" {
				k.bad[name] = fmt.Errorf("%scertificate %d, at byte %d: %w", where, i+1, packets[0].offset, err)
				continue
			}
			if err == nil {
				err = k.addCertificate(part)
			}
			if err != nil {
				return fmt.Errorf("certificate %d, at byte %d: %w", i+1, packets[0].offset, err)
			}
		}
	}
	return nil
}

// keyBlocks returns the binary content of a key file, one block for each armor.
func keyBlocks(data []byte) ([][]byte, error) {
	switch {
	case len(data) == 0:
		return nil, errors.New("file is empty")
	case len(data) >= 12 && string(data[8:12]) == "KBXf":
		return nil, errors.New("file is a GnuPG keybox; write a keyring with gpg --export")
	case !isArmored(data):
		return [][]byte{data}, nil
	}
	var blocks [][]byte
	for rest := data; len(rest) > 0; {
		kind, block, after, err := dearmor(rest)
		switch {
		case err != nil:
			return nil, err
		case kind == armorSecretKey:
			return nil, errSecretKey
		case kind != armorPublicKey:
			return nil, fmt.Errorf("armored block is a %q, expected %q", kind, armorPublicKey)
		}
		blocks, rest = append(blocks, block), after
	}
	return blocks, nil
}

var errSecretKey = errors.New("file holds a secret key, which must not be on a device; write a keyring with gpg --export")

// splitCertificates cuts packets before each primary key, and refuses packets that do not belong to a certificate
// (RFC 9580 section 10.1).
func splitCertificates(packets []rawPacket) ([][]rawPacket, error) {
	var list [][]rawPacket
	for _, p := range packets {
		switch p.tag {
		case tagSecretKey, tagSecretSubkey:
			return nil, errSecretKey
		case tagPublicKey:
			list = append(list, nil)
		case tagSignature, tagUserID, tagUserAttribute, tagPublicSubkey:
		case tagTrust: // gpg's private data in its keyring files
			continue
		default:
			return nil, fmt.Errorf("byte %d: packet of type %d does not belong into a certificate", p.offset, p.tag)
		}
		if len(list) == 0 {
			if p.signatureType() == int(sigKeyRevocation) {
				return nil, errors.New("lone revocation certificate; import it with gpg, then export the revoked key")
			}
			return nil, fmt.Errorf("byte %d: packet of type %d comes before any public key", p.offset, p.tag)
		}
		last := len(list) - 1
		list[last] = append(list[last], p)
	}
	return list, nil
}

// addCertificate adds one copy of a certificate, or merges it with those already there.
func (k *Keyring) addCertificate(part *certificate) error {
	c := k.certificates[part.fingerprint]
	if c == nil {
		c = part
		k.certificates[c.fingerprint] = c
	} else {
		c.merge(part)
	}
	for _, id := range part.keyIDs {
		if other := k.byKeyID[id]; other != nil && other != c {
			return fmt.Errorf("key %016X belongs to two certificates, %s and %s", id, c.fingerprint, other.fingerprint)
		}
		k.byKeyID[id] = c
	}
	return nil
}
