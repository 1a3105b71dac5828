package provision

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// newKey makes a private key of a kind, as PKCS #8 in PEM.
func newKey(kind string) ([]byte, error) {
	var key any
	var err error
	if kind == "p256" {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	} else {
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParseKey reads a private key, Ed25519 or P-256, as PKCS #8 in PEM, as openssl genpkey writes it.
func ParseKey(data []byte) (crypto.Signer, error) {
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
		return nil, fmt.Errorf("%T cannot sign", key)
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

func checkPublic(key crypto.PublicKey) error {
	switch key := key.(type) {
	case ed25519.PublicKey:
		return nil
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() {
			return nil
		}
	}
	return fmt.Errorf("key is %T, expected Ed25519 or P-256", key)
}

// Fingerprint names a public key: sha256 of its SubjectPublicKeyInfo, hex.
func Fingerprint(key crypto.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "" // every key that checkPublic lets through can be marshalled
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// certificateRequest asks for a certificate on key whose common name is the serial. It is PEM.
func certificateRequest(key crypto.Signer, serial, organization string) ([]byte, error) {
	name := pkix.Name{CommonName: serial, SerialNumber: serial}
	if organization != "" {
		name.Organization = []string{organization}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: name}, key)
	if err != nil {
		return nil, fmt.Errorf("making the certificate request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// checkCertificate refuses a certificate that is not on this key and for this serial. data may hold the chain behind it.
func checkCertificate(data []byte, key crypto.Signer, serial string) (*x509.Certificate, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("expected a PEM block CERTIFICATE")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	if Fingerprint(cert.PublicKey) != Fingerprint(key.Public()) {
		return nil, errors.New("it is on another key than the device's")
	}
	if cert.Subject.CommonName != serial {
		return nil, fmt.Errorf("it is for %q, the device is %s", cert.Subject.CommonName, serial)
	}
	return cert, nil
}

// certificate gets the certificate for a request: from the CA's URL, or through a folder at the station, where
// SERIAL.csr goes out and SERIAL.crt comes in within patience.
func (k *KeyRule) certificate(ctx context.Context, web *Web, request []byte, serial string, patience time.Duration) ([]byte, error) {
	if k.CA != "" {
		cert, err := web.post(ctx, k.CA, "application/x-pem-file", request, map[string]string{"X-Serial": serial})
		if err != nil {
			return nil, fmt.Errorf("asking for the certificate of %s: %w", serial, err)
		}
		return cert, nil
	}
	if err := writeDurably(filepath.Join(k.Folder, serial+".csr"), request, 0o644); err != nil {
		return nil, err
	}
	name := filepath.Join(k.Folder, serial+".crt")
	for deadline := time.Now().Add(patience); ; {
		cert, err := os.ReadFile(name)
		if err == nil {
			return cert, nil
		}
		if !errors.Is(err, os.ErrNotExist) || time.Now().After(deadline) {
			return nil, fmt.Errorf("waiting for the certificate of %s: %w", serial, err)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
