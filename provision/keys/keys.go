// Package keys reads and makes the signing keys of a factory line: Ed25519 and ECDSA on P-256, as openssl writes them.
package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
)

// New makes a private key, "ed25519" or "p256", and returns it as PKCS #8 in PEM, too.
func New(kind string) (key crypto.Signer, data []byte, err error) {
	if kind == "p256" {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	} else {
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

// Parse reads a private key, Ed25519 or P-256, as PKCS #8 in PEM, as openssl genpkey writes it.
func Parse(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("expected a PEM block PRIVATE KEY (PKCS #8)")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("key is %T, which cannot sign", key)
	}
	return signer, checkPublic(signer.Public())
}

// ParsePublic reads a public key, Ed25519 or P-256, as PEM PUBLIC KEY, as openssl pkey -pubout writes it.
func ParsePublic(data []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, errors.New("expected a PEM block PUBLIC KEY")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	return key, checkPublic(key)
}

// maxFile is the largest key file, in bytes.
const maxFile = 64 << 10

// Load reads a private key from a file that only its owner can read.
func Load(path string) (crypto.Signer, error) {
	if err := Private(path); err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	key, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("reading the key %s: %w", path, err)
	}
	return key, nil
}

// LoadPublic reads a public key from a file.
func LoadPublic(path string) (crypto.PublicKey, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the public key: %w", err)
	}
	key, err := ParsePublic(data)
	if err != nil {
		return nil, fmt.Errorf("reading the public key %s: %w", path, err)
	}
	return key, nil
}

// Private refuses a file with a secret that others than its owner may read or write.
func Private(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s has mode %04o, so others may read it; run chmod 600 on it, and replace it if others had access", path, mode)
	}
	return nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxFile)
	}
	return data, err
}

// Kind is "ed25519" or "p256", as in [New]; "" for any other key.
func Kind(key crypto.PublicKey) string {
	switch key := key.(type) {
	case ed25519.PublicKey:
		return "ed25519"
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() {
			return "p256"
		}
	}
	return ""
}

func checkPublic(key crypto.PublicKey) error {
	if Kind(key) != "" {
		return nil
	}
	return fmt.Errorf("key is %T, expected Ed25519 or P-256", key)
}

// Fingerprint is the sha256 of a public key's SubjectPublicKeyInfo, hex.
func Fingerprint(key crypto.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "" // every key that checkPublic accepts can be marshalled
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}
