package install

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"

	"updater/bmap"
	"updater/pack"
	"updater/release"
	"updater/verify"
)

// ParseUnverified reads a document of at most the size that one of its type may have, and parses its signed bytes. It does not check the
// signature, and is for a publisher's machine.
func ParseUnverified[T any](path string, kind release.Type, parse func([]byte) (T, error)) (parsed T, err error) {
	text, err := ReadDocument(path, kind)
	if err == nil && verify.IsClearsigned(text) {
		text, err = verify.UnverifiedText(text)
	}
	if err != nil {
		return parsed, err
	}
	if parsed, err = parse(text); err != nil {
		return parsed, fmt.Errorf("%s: %w", path, err)
	}
	return parsed, nil
}

// UnverifiedMap is a block map whose signature was not checked.
type UnverifiedMap struct {
	*bmap.Map
	Text        []byte // the signed bytes
	Clearsigned bool
}

// ReadUnverifiedMap reads a block map without checking its signature.
func ReadUnverifiedMap(path string) (m UnverifiedMap, err error) {
	if m.Text, err = ReadFile(path, verify.MaxDocumentSize+verify.MaxSignatureSize); err != nil {
		return m, fmt.Errorf("reading the bmap: %w", err)
	}
	if m.Clearsigned = verify.IsClearsigned(m.Text); m.Clearsigned {
		m.Text, err = verify.UnverifiedText(m.Text)
	}
	if err == nil {
		m.Map, err = bmap.Parse(m.Text)
	}
	if err != nil {
		return m, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// PackRanges are the ranges of a map as packages pack and delta take them.
func PackRanges(m *bmap.Map) []pack.Range {
	ranges := make([]pack.Range, 0, m.Len())
	for _, r := range m.Ranges() {
		ranges = append(ranges, pack.Range{Offset: r.Offset, Length: r.Length})
	}
	return ranges
}

// RefToKeyring refers to the keyring document at path from another document.
func RefToKeyring(document, path string) (ref release.KeyringRef, err error) {
	k, err := ParseUnverified(path, release.TypeKeyring, release.ParseKeyring)
	if err != nil {
		return ref, err
	}
	data, err := ReadDocument(path, release.TypeKeyring)
	if err != nil {
		return ref, err
	}
	sum := sha256.Sum256(data)
	ref = release.KeyringRef{Number: k.Contents().Number, SHA256: hex.EncodeToString(sum[:])}
	ref.Path, err = release.Relative(filepath.Dir(document), path)
	return ref, err
}

// Certificates reads the certificates of a file for a keyring document. may limits the roles and documents that each may sign.
func Certificates(path string, may release.Certificate) ([]release.Certificate, error) {
	ring, err := verify.LoadKeyring(path)
	if err != nil {
		return nil, err
	}
	var certs []release.Certificate
	for _, fingerprint := range ring.Fingerprints() {
		may.Fingerprint, may.OpenPGP = fingerprint, ring.Certificate(fingerprint)
		certs = append(certs, may)
	}
	return certs, nil
}
