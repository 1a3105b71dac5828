package record

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

	"updater/provision/keys"
)

// sealed is a document with a signature over exactly its bytes, as one line of JSON:
//
//	{"document":{...},"signature":{"key":"<fingerprint>","algorithm":"ed25519","value":"<base64>"}}
//
// Records, latches and tokens have this form; their member "kind" keeps one from being taken for another.
type sealed struct {
	Document  json.RawMessage `json:"document"`
	Signature signature       `json:"signature"`
}

// signature is over the bytes of the document: Ed25519 of them, or ECDSA on P-256 of their sha256 (ASN.1).
type signature struct {
	Key       string `json:"key"` // see key.Fingerprint
	Algorithm string `json:"algorithm"`
	Value     []byte `json:"value"`
}

// Seal signs a document with an Ed25519 or P-256 key and returns the line, with its newline.
func Seal(document any, key crypto.Signer) ([]byte, error) {
	raw, err := json.Marshal(document)
	if err != nil {
		return nil, err
	}
	s := sealed{Document: raw, Signature: signature{Key: keys.Fingerprint(key.Public()), Algorithm: "ed25519"}}
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

// errSignature reports a document that the key did not sign.
var errSignature = errors.New("the signature does not match the document")

// Unseal checks the signature of a sealed line by one of the keys and decodes the document strictly. Its kind must be the given one.
func Unseal(line []byte, kind string, document any, trusted ...crypto.PublicKey) error {
	var s sealed
	if err := strict(line, &s); err != nil {
		return fmt.Errorf("reading the signed document: %w", err)
	}
	for _, key := range trusted {
		if keys.Fingerprint(key) != s.Signature.Key {
			continue
		}
		if !signedBy(key, s.Document, s.Signature.Value) {
			return errSignature
		}
		return decode(s.Document, kind, document)
	}
	return fmt.Errorf("it is signed by key %.16s, which is not trusted here", s.Signature.Key)
}

func signedBy(key crypto.PublicKey, message, signature []byte) bool {
	switch key := key.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(key, message, signature)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(message)
		return ecdsa.VerifyASN1(key, sum[:], signature)
	}
	return false
}

func decode(raw []byte, kind string, document any) error {
	var head struct {
		Kind string `json:"kind"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return err
	}
	if head.Kind != kind {
		return fmt.Errorf("its kind is %.20q, expected %q", head.Kind, kind)
	}
	return strict(raw, document)
}

// strict decodes one JSON value and refuses unknown members and trailing data.
func strict(data []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("trailing data after the document")
	}
	return nil
}

// Digest is the sha256 of data, hex.
func Digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
