package provision

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Sealed is a document with a signature over exactly its bytes, as one line of JSON:
//
//	{"document":{...},"signature":{"key":"<fingerprint>","algorithm":"ed25519","value":"<base64>"}}
//
// Records, latches and tokens have this form; their member "kind" keeps one from being taken for another.
type Sealed struct {
	Document  json.RawMessage `json:"document"`
	Signature Signature       `json:"signature"`
}

// Signature is over the bytes of the document: Ed25519 of them, or ECDSA on P-256 of their sha256 (ASN.1).
type Signature struct {
	Key       string `json:"key"` // fingerprint, see [Fingerprint]
	Algorithm string `json:"algorithm"`
	Value     []byte `json:"value"`
}

// Seal signs a document and returns the line, with its newline.
func Seal(document any, key crypto.Signer) ([]byte, error) {
	raw, err := json.Marshal(document)
	if err != nil {
		return nil, err
	}
	s := Sealed{Document: raw, Signature: Signature{Key: Fingerprint(key.Public()), Algorithm: "ed25519"}}
	message, hash := raw, crypto.Hash(0)
	if _, isEC := key.Public().(*ecdsa.PublicKey); isEC {
		sum := sha256.Sum256(raw)
		message, hash, s.Signature.Algorithm = sum[:], crypto.SHA256, "ecdsa-p256-sha256"
	}
	if s.Signature.Value, err = key.Sign(rand.Reader, message, hash); err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	line, err := json.Marshal(s)
	return append(line, '\n'), err
}

// errSignature says that a document is not signed by the key.
var errSignature = errors.New("its signature is not good")

// Open checks the signature of a sealed line by one of the keys and decodes the document strictly into it, whose
// kind has to be the given one.
func Open(line []byte, kind string, document any, keys ...crypto.PublicKey) error {
	s, err := parseSealed(line)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if Fingerprint(key) != s.Signature.Key {
			continue
		}
		if !signed(key, s.Document, s.Signature.Value) {
			return errSignature
		}
		return s.decode(kind, document)
	}
	return fmt.Errorf("it is signed by key %.16s, which is not trusted here", s.Signature.Key)
}

func signed(key crypto.PublicKey, message, signature []byte) bool {
	switch key := key.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(key, message, signature)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(message)
		return ecdsa.VerifyASN1(key, sum[:], signature)
	}
	return false
}

func parseSealed(line []byte) (*Sealed, error) {
	s := new(Sealed)
	if err := strict(line, s); err != nil {
		return nil, fmt.Errorf("it is no signed document: %w", err)
	}
	return s, nil
}

func (s *Sealed) decode(kind string, document any) error {
	var head struct {
		Kind string `json:"kind"`
	}
	if err := json.Unmarshal(s.Document, &head); err != nil {
		return err
	}
	if head.Kind != kind {
		return fmt.Errorf("it is a %.20q, expected a %s", head.Kind, kind)
	}
	return strict(s.Document, document)
}

// strict decodes one JSON value with nothing unknown in it and nothing behind it.
func strict(data []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("something follows the document")
	}
	return nil
}

// digest is the hex sha256 of data.
func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
