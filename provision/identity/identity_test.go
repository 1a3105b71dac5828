package identity_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"updater/blockdev"
	"updater/provision/fat"
	"updater/provision/identity"
	"updater/provision/keys"
	"updater/provision/plan"
	"updater/provision/provisiontest"
)

// witness remembers what it attests.
type witness map[string]bool

func (w witness) Attest(serial, sum string) error  { w[serial+sum] = true; return nil }
func (w witness) Attested(serial, sum string) bool { return w[serial+sum] }

// strangerKey makes a key that no device has, and its PEM form.
func strangerKey(t *testing.T) ([]byte, crypto.Signer) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), key
}

// lineCA is a certification authority as a line server has one. It counts what it signs.
func lineCA(t *testing.T) (url string, signed *int, issuer *x509.Certificate) {
	t.Helper()
	_, key := strangerKey(t)
	signed, issuer = new(int), authority(t, key)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		block, _ := pem.Decode(body)
		if err != nil || block == nil {
			http.Error(w, "no request", http.StatusBadRequest)
			return
		}
		request, err := x509.ParseCertificateRequest(block.Bytes)
		if err == nil {
			err = request.CheckSignature()
		}
		if err != nil || request.Subject.CommonName != r.Header.Get("X-Serial") {
			http.Error(w, fmt.Sprint(err), http.StatusBadRequest)
			return
		}
		*signed++
		cert := &x509.Certificate{SerialNumber: big.NewInt(int64(1000 + *signed)), Subject: request.Subject, NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(nil, cert, issuer, request.PublicKey, key)
		if err != nil {
			t.Error(err)
		}
		_ = pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}))
	t.Cleanup(server.Close)
	return server.URL, signed, issuer
}

// authority makes the certificate of an authority.
func authority(t *testing.T, key crypto.Signer) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	template.Subject.CommonName = "line"
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// TestCertificate: a certificate counts if the issuers of the plan made it for this key and serial, and for now.
func TestCertificate(t *testing.T) {
	_, w := window(t, 40<<20)
	_, lineKey := strangerKey(t)
	line := authority(t, lineKey)
	_, otherKey := strangerKey(t)
	other := authority(t, otherKey)
	now := time.Now()
	for name, c := range map[string]struct {
		change  func(*x509.Certificate)
		issuers []*x509.Certificate
		want    string
	}{
		"good":            {func(*x509.Certificate) {}, []*x509.Certificate{other, line}, ""},
		"from now on":     {func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) }, []*x509.Certificate{line}, ""},
		"of nobody":       {func(*x509.Certificate) {}, []*x509.Certificate{other}, "unknown authority"},
		"expired":         {func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }, []*x509.Certificate{line}, "expired"},
		"not yet valid":   {func(c *x509.Certificate) { c.NotBefore = now.Add(47 * time.Hour) }, []*x509.Certificate{line}, "not yet valid"},
		"of an authority": {func(c *x509.Certificate) { c.IsCA = true }, []*x509.Certificate{line}, "expected a device's"},
		"another serial":  {func(c *x509.Certificate) { c.Subject.CommonName = "AG2" }, []*x509.Certificate{line}, "common name"},
	} {
		t.Run(name, func(t *testing.T) {
			pemKey, key := strangerKey(t)
			cert := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(48 * time.Hour), BasicConstraintsValid: true}
			cert.Subject.CommonName = "AG1"
			c.change(cert)
			der, err := x509.CreateCertificate(nil, cert, line, key.Public(), lineKey)
			if err != nil {
				t.Fatal(err)
			}
			server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				_ = pem.Encode(rw, &pem.Block{Type: "CERTIFICATE", Bytes: der})
			}))
			defer server.Close()
			_, err = identity.Write(t.Context(), identity.Spec{
				Rule:   &plan.Identity{Key: &plan.Key{Type: "ed25519", File: "k", Certificate: "c", CA: server.URL}},
				Window: w, Reservation: identity.Reservation{Serial: "AG1"}, Witness: witness{}, Web: web(t),
				Before: identity.Held{Serial: "AG1", Key: pemKey}, Issuers: c.issuers, Now: now,
			})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("Write = %v; want %q", err, c.want)
			}
		})
	}
}

// window makes a partition of size bytes in a disk image file full of old data.
func window(t *testing.T, size int64) (string, fat.Window) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, bytes.Repeat([]byte("old data"), int(size+3<<20)/8), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := blockdev.OpenPath(path, 0, 0, blockdev.Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return path, fat.Window{Medium: d, Offset: 1 << 20, Length: size}
}

func TestIdentity(t *testing.T) {
	for _, size := range []int64{33 << 20, 48 << 20, 64 << 20, 100 << 20} {
		t.Run(fmt.Sprintf("%d MiB", size>>20), func(t *testing.T) { testIdentity(t, size) })
	}
}

func testIdentity(t *testing.T, size int64) {
	path, w := window(t, size)
	ca, signed, issuer := lineCA(t)
	rule := &plan.Identity{
		Partition: "identity", Variables: map[string]string{"batch": "7"},
		Key: &plan.Key{Type: "p256", File: "device.key", Request: "device.csr", Certificate: "device.crt", CA: ca, Subject: "Acme"},
		File: []plan.File{{Path: "hostname", Content: "gw-{serial}\n"}, {Path: "mac", Content: "{mac} {batch}"}, {Path: "long-name_of.a-file",
			Content: strings.Repeat("x", 9000)}},
	}
	r := identity.Reservation{Serial: "AG1", Variables: map[string]string{"mac": "02:00:00:00:00:01"}}
	seen := witness{}
	write := func(r identity.Reservation) (*identity.Identity, error) {
		return identity.Write(t.Context(), identity.Spec{Rule: rule, Window: w, Reservation: r, Before: identity.Read(rule, w, seen),
			Witness: seen, Web: web(t), Issuers: []*x509.Certificate{issuer}, Now: time.Now()})
	}
	first, err := write(r)
	if err != nil {
		t.Fatal(err)
	}
	if *signed != 1 || first.Certificate != "3e9" || len(first.Key) != 64 || string(first.Files["hostname"]) != "gw-AG1\n" ||
		first.Variables["mac"] == "" {
		t.Fatalf("identity is %+v after %d certificates", first, *signed)
	}
	fsck(t, path, w)
	// An outside reader finds the planned content.
	got := provisiontest.Tool(t, "mtype", "-i", cutOut(t, path, w), "::/mac")
	if got != "02:00:00:00:00:01 7" {
		t.Errorf("mac is %q", got)
	}

	// A second run keeps key and certificate and requests nothing.
	again, err := write(r)
	if err != nil {
		t.Fatal(err)
	}
	if *signed != 1 || again.Key != first.Key || !bytes.Equal(again.Files["device.crt"], first.Files["device.crt"]) {
		t.Errorf("the second run made a new identity, after %d certificates", *signed)
	}
	fsck(t, path, w)
	// Another serial gets another key.
	other, err := write(identity.Reservation{Serial: "AG2", Variables: r.Variables})
	if err != nil || other.Key == first.Key || *signed != 2 {
		t.Errorf("another unit: %+v, %v after %d certificates", other, err, *signed)
	}
}

// fsck checks the window by the tool of the file system.
func fsck(t *testing.T, path string, w fat.Window) {
	t.Helper()
	provisiontest.Tool(t, "fsck.vfat", "-n", "-v", cutOut(t, path, w))
}

// cutOut copies the window into a file of its own.
func cutOut(t *testing.T, path string, w fat.Window) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	part := filepath.Join(t.TempDir(), "part")
	out, err := os.Create(part)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, io.NewSectionReader(f, w.Offset, w.Length)); err != nil {
		t.Fatal(err)
	}
	return part
}

// TestIdentityRefuses: a wrong certificate never gets onto a device.
func TestIdentityRefuses(t *testing.T) {
	_, w := window(t, 40<<20)
	seen := witness{}
	rule := &plan.Identity{Key: &plan.Key{Type: "ed25519", File: "k", Certificate: "c"}}
	stranger, key := strangerKey(t)
	r := identity.Reservation{Serial: "AG1"}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	template.Subject.CommonName = "AG1"
	_, lineKey := strangerKey(t)
	issuer := authority(t, lineKey)
	der, err := x509.CreateCertificate(nil, template, issuer, key.Public(), lineKey)
	if err != nil {
		t.Fatal(err)
	}
	for answer, want := range map[string]string{
		"no": "expected a PEM block CERTIFICATE",
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})): "for another key",
	} {
		server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, answer) }))
		rule.Key.CA = server.URL
		_, err := identity.Write(t.Context(), identity.Spec{Rule: rule, Window: w, Reservation: r, Witness: seen, Web: web(t)})
		server.Close()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v; want %q", err, want)
		}
		// The key that was made is kept for the next try.
		if got := identity.Read(rule, w, seen); got.Serial != "AG1" || len(got.Key) == 0 {
			t.Errorf("after the refusal the medium holds %q", got.Serial)
		}
	}
	// Through a folder of the station.
	dir := t.TempDir()
	rule.Key.CA, rule.Key.Folder = "", dir
	if err := os.WriteFile(filepath.Join(dir, "AG1.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	spec := identity.Spec{Rule: rule, Window: w, Reservation: r, Before: identity.Held{Serial: "AG1", Key: stranger}, Witness: seen,
		Issuers: []*x509.Certificate{issuer}, Now: time.Now()}
	out, err := identity.Write(t.Context(), spec)
	if err != nil || out.Certificate != "1" {
		t.Errorf("through a folder: %+v, %v", out, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "AG1.csr")); err != nil {
		t.Error(err)
	}
	ctx, stop := context.WithCancelCause(t.Context())
	stop(io.ErrClosedPipe)
	spec.Before = identity.Held{} // the key was lost: the certificate for it does not serve the next one
	if _, err := identity.Write(ctx, spec); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("with the certificate of an earlier key: %v", err)
	}
	spec.Reservation.Serial = "AG9"
	if _, err := identity.Write(ctx, spec); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestLatchIsRead: a latch that is empty, or that cannot be read, is not the same as none.
func TestLatchIsRead(t *testing.T) {
	rule := &plan.Identity{Partition: "identity"}
	latch := func(change func(disk []byte), files ...fat.File) []byte {
		path, w := window(t, 40<<20)
		if err := errors.Join(fat.Write(w, "IDENTITY", files), w.Medium.Sync()); err != nil {
			t.Fatal(err)
		}
		disk, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		change(disk[w.Offset:])
		if _, err := w.Medium.WriteAt(disk, 0); err != nil {
			t.Fatal(err)
		}
		return identity.Read(rule, w, witness{}).Latch
	}
	none := func([]byte) {}
	loop := func(part []byte) { // the chain of the file, in cluster 3, or of the root directory, in cluster 2
		copy(part[32*512+4*2:], []byte{2, 0, 0, 0, 3, 0, 0, 0})
	}
	file := fat.File{Name: plan.LatchFile, Data: []byte("latch")}
	if got := latch(none); got != nil {
		t.Errorf("without a latch: %q", got)
	}
	if got := latch(none, file); string(got) != "latch" {
		t.Errorf("a latch: %q", got)
	}
	if got := latch(none, fat.File{Name: plan.LatchFile, Data: []byte{}}); got == nil {
		t.Error("an empty latch is none")
	}
	file.Data = bytes.Repeat([]byte("latch"), 1000)
	if got := latch(loop, file); got == nil || len(got) != 0 {
		t.Errorf("an unreadable latch: %q", got)
	}
}

// TestRead: the content of a medium counts as far as the witness attests it.
func TestRead(t *testing.T) {
	_, w := window(t, 40<<20)
	rule := &plan.Identity{Key: &plan.Key{Type: "ed25519", File: "k", Certificate: "c"}}
	pem, key := strangerKey(t)
	if err := errors.Join(fat.Write(w, "IDENTITY", []fat.File{
		{Name: plan.SerialFile, Data: []byte("AG1")}, {Name: "k", Data: pem}, {Name: "c", Data: []byte("cert")},
	}), w.Medium.Sync()); err != nil {
		t.Fatal(err)
	}
	fingerprint := keys.Fingerprint(key.Public())
	const cert = "06298432e8066b29e2223bcc23aa9504b56ae508fabf3435508869b9c3190e22" // sha256 of cert
	all := identity.Found{Serial: "AG1", Key: fingerprint, Certificate: cert}
	for name, c := range map[string]struct {
		seen    witness
		serial  string
		foreign identity.Found
	}{
		"nothing attested":             {witness{}, "", all},
		"certificate alone":            {witness{"AG1" + cert: true}, "", all},
		"serial without its key":       {witness{"AG1": true}, "", all},
		"key with another serial":      {witness{"AG2" + fingerprint: true}, "", all},
		"key, but not the certificate": {witness{"AG1" + fingerprint: true}, "AG1", identity.Found{Certificate: cert}},
		"all":                          {witness{"AG1" + fingerprint: true, "AG1" + cert: true}, "AG1", identity.Found{}},
	} {
		got := identity.Read(rule, w, c.seen)
		if got.Serial != c.serial || (got.Key != nil) != (c.serial != "") || got.Foreign != c.foreign || got.Claimed != "AG1" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	rule.Key = nil
	if got := identity.Read(rule, w, witness{"AG1" + fingerprint: true}); got.Serial != "" {
		t.Errorf("a serial alone counts without its attestation: %+v", got)
	}
	if got := identity.Read(rule, w, witness{"AG1": true}); got.Serial != "AG1" {
		t.Errorf("an attested serial alone: %+v", got)
	}
}
