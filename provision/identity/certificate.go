package identity

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"updater/internal/atomicfile"
	"updater/provision/keys"
	"updater/source"
)

// certificatePatience is how long a run waits for a certificate to appear in the folder of the station.
const certificatePatience = 60 * time.Second

// certificateSkew is how far the clock of the authority may be ahead, which also covers the time of a run.
const certificateSkew = 24 * time.Hour

// keepCertificate keeps a certificate that an earlier run got, if it fits; it reports whether none has to be requested.
func (w *writer) keepCertificate() bool {
	if w.key == nil || w.Rule.Key.Certificate == "" {
		return true
	}
	return w.takeCertificate(w.Before.cert) == nil
}

func (w *writer) takeCertificate(pem []byte) error {
	cert, err := w.check(pem)
	if err != nil {
		return err
	}
	w.id.Certificate, w.id.Files[w.Rule.Key.Certificate] = cert.SerialNumber.Text(16), pem
	return nil
}

// certify gets a certificate.
func (w *writer) certify(ctx context.Context) error {
	request, err := certificateRequest(w.key, w.id.Serial, w.Rule.Key.Subject)
	if err != nil {
		return err
	}
	var pem []byte
	if url := w.Rule.Key.CA; url != "" {
		pem, err = w.Web.Post(ctx, source.Message{
			URL: url, Type: "application/x-pem-file", Body: request, Header: map[string]string{"X-Serial": w.id.Serial},
		})
	} else {
		pem, err = w.exchange(ctx, w.Rule.Key.Folder, request)
	}
	if err != nil {
		return fmt.Errorf("requesting the certificate of %s: %w", w.id.Serial, err)
	}
	if err := w.takeCertificate(pem); err != nil {
		return fmt.Errorf("checking the certificate of %s: %w", w.id.Serial, err)
	}
	if err := w.Witness.Attest(w.id.Serial, digest(pem)); err != nil {
		return fmt.Errorf("attesting the certificate: %w", err)
	}
	return nil
}

// exchange puts SERIAL.csr into the folder and waits for SERIAL.crt. A certificate that lies there for an earlier key of this serial is removed.
func (w *writer) exchange(ctx context.Context, folder string, request []byte) ([]byte, error) {
	name := filepath.Join(folder, w.id.Serial)
	if old, err := os.ReadFile(name + ".crt"); err == nil {
		if _, err := w.check(old); err != nil {
			if err := os.Remove(name + ".crt"); err != nil {
				return nil, err
			}
		}
	}
	if err := atomicfile.Write(name+".csr", request, 0o644); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(certificatePatience)
	for {
		cert, err := os.ReadFile(name + ".crt")
		if !errors.Is(err, os.ErrNotExist) || time.Now().After(deadline) {
			return cert, err
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// certificateRequest makes a PEM request for a certificate whose common name is the serial.
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

// check refuses a certificate for another key or another serial, and one that the plan's issuers did not issue, or not for now. Its chain may
// follow it in data.
func (w *writer) check(data []byte) (*x509.Certificate, error) {
	chain, err := certificates(data)
	if err != nil {
		return nil, err
	}
	cert := chain[0]
	if got, want := keys.Fingerprint(cert.PublicKey), keys.Fingerprint(w.key.Public()); got != want {
		return nil, fmt.Errorf("it is for another key, %.16s, expected the device's, %.16s", got, want)
	}
	if cert.Subject.CommonName != w.id.Serial {
		return nil, fmt.Errorf("its common name is %q, expected %s", cert.Subject.CommonName, w.id.Serial)
	}
	if cert.IsCA {
		return nil, errors.New("it is a certificate authority's, expected a device's")
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, issuer := range w.Issuers {
		roots.AddCert(issuer)
	}
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	at := w.Now
	if cert.NotBefore.After(at) && cert.NotBefore.Before(at.Add(certificateSkew)) {
		at = cert.NotBefore
	}
	_, err = cert.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return cert, err
}

// maxChain bounds the certificates of a file.
const maxChain = 16

// certificates parses one or more PEM certificates.
func certificates(data []byte) (list []*x509.Certificate, err error) {
	for len(list) < maxChain {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("found a PEM block %q, expected CERTIFICATE", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		list = append(list, cert)
	}
	if len(list) == 0 {
		return nil, errors.New("expected a PEM block CERTIFICATE")
	}
	return list, nil
}

// Issuers reads the certificates that the plan names as issuer.
func Issuers(path string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	var list []*x509.Certificate
	if err == nil {
		list, err = certificates(data)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the issuer %s: %w", path, err)
	}
	return list, nil
}
