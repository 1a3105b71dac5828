package provision

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"updater/blockdev"
)

// lineCA is a certification authority as a line server has one. It counts what it signs.
func lineCA(t *testing.T) (url string, signed *int) {
	t.Helper()
	pemKey, err := newKey("p256")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParseKey(pemKey)
	if err != nil {
		t.Fatal(err)
	}
	signed = new(int)
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
		der, err := x509.CreateCertificate(nil, cert, cert, request.PublicKey, key)
		if err != nil {
			t.Error(err)
		}
		_ = pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}))
	t.Cleanup(server.Close)
	return server.URL, signed
}

// window makes a partition of size bytes in a disk image file full of old data.
func window(t *testing.T, size int64) (string, Window) {
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
	return path, Window{Medium: d, Offset: 1 << 20, Length: size}
}

func TestIdentity(t *testing.T) {
	for _, size := range []int64{33 << 20, 48 << 20, 64 << 20, 100 << 20} {
		t.Run(fmt.Sprintf("%d MiB", size>>20), func(t *testing.T) { identity(t, size) })
	}
}

func identity(t *testing.T, size int64) {
	path, w := window(t, size)
	ca, signed := lineCA(t)
	id := &IdentityRule{
		Partition: "identity", Variables: map[string]string{"batch": "7"},
		Key:  &KeyRule{Type: "p256", File: "device.key", Request: "device.csr", Certificate: "device.crt", CA: ca, Subject: "Acme"},
		File: []FileRule{{Path: "hostname", Content: "gw-{serial}\n"}, {Path: "mac", Content: "{mac} {batch}"}, {Path: "long-name_of.a-file", Content: strings.Repeat("x", 9000)}},
	}
	web := &Web{Client: http.DefaultClient}
	r := Reservation{Serial: "AG1", Variables: map[string]string{"mac": "02:00:00:00:00:01"}}
	first, err := id.write(t.Context(), web, w, r, id.readHeld(w))
	if err != nil {
		t.Fatal(err)
	}
	if *signed != 1 || first.Certificate != "3e9" || len(first.Key) != 64 || string(first.Files["hostname"]) != "gw-AG1\n" || first.Variables["mac"] == "" {
		t.Fatalf("identity is %+v after %d certificates", first, *signed)
	}
	fsck(t, path, w)
	// What an outside reader finds is what was planned.
	got := runTool(t, "mtype", "-i", cutOut(t, path, w), "::/mac")
	if got != "02:00:00:00:00:01 7" {
		t.Errorf("mac is %q", got)
	}

	// A second run keeps key and certificate, and asks nobody.
	again, err := id.write(t.Context(), web, w, r, id.readHeld(w))
	if err != nil {
		t.Fatal(err)
	}
	if *signed != 1 || again.Key != first.Key || !bytes.Equal(again.Files["device.crt"], first.Files["device.crt"]) {
		t.Errorf("the second run made a new identity, after %d certificates", *signed)
	}
	fsck(t, path, w)
	// Another serial gets another key.
	other, err := id.write(t.Context(), web, w, Reservation{Serial: "AG2", Variables: r.Variables}, id.readHeld(w))
	if err != nil || other.Key == first.Key || *signed != 2 {
		t.Errorf("another unit: %+v, %v after %d certificates", other, err, *signed)
	}
}

// fsck checks the window by the tool of the file system.
func fsck(t *testing.T, path string, w Window) {
	t.Helper()
	runTool(t, "fsck.vfat", "-n", "-v", cutOut(t, path, w))
}

func runTool(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(args[0]); err != nil {
		t.Skipf("%s is not installed", args[0])
	}
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

// cutOut copies the window into a file of its own.
func cutOut(t *testing.T, path string, w Window) string {
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

// TestIdentityRefuses holds that a wrong certificate never gets onto a device.
func TestIdentityRefuses(t *testing.T) {
	_, w := window(t, 40<<20)
	id := &IdentityRule{Key: &KeyRule{Type: "ed25519", File: "k", Certificate: "c"}}
	stranger, err := newKey("ed25519")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParseKey(stranger)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	template.Subject.CommonName = "AG1"
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	for answer, want := range map[string]string{
		"no": "expected a PEM block CERTIFICATE",
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})): "on another key",
	} {
		server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, answer) }))
		id.Key.CA = server.URL
		_, err := id.write(t.Context(), &Web{Client: http.DefaultClient}, w, Reservation{Serial: "AG1"}, held{})
		server.Close()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v; want %q", err, want)
		}
		// The key that was made is kept for the next try.
		if got := id.readHeld(w); got.Serial != "AG1" || len(got.Key) == 0 {
			t.Errorf("after the refusal the medium holds %q", got.Serial)
		}
	}
	// Through a folder of the station.
	dir := t.TempDir()
	id.Key.CA, id.Key.Folder = "", dir
	if err := os.WriteFile(filepath.Join(dir, "AG1.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := id.write(t.Context(), nil, w, Reservation{Serial: "AG1"}, held{Serial: "AG1", Key: stranger, Files: map[string][]byte{}})
	if err != nil || out.Certificate != "1" {
		t.Errorf("through a folder: %+v, %v", out, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "AG1.csr")); err != nil {
		t.Error(err)
	}
	ctx, stop := context.WithCancelCause(t.Context())
	stop(io.ErrClosedPipe)
	if _, err := id.Key.certificate(ctx, nil, nil, "AG9", time.Minute); err != io.ErrClosedPipe {
		t.Errorf("cancelled: %v", err)
	}
}

func TestLatch(t *testing.T) {
	keys := map[string][]byte{}
	for _, who := range []string{"station", "factory", "stranger"} {
		k, err := newKey("ed25519")
		if err != nil {
			t.Fatal(err)
		}
		keys[who] = k
	}
	seal := func(who string, document any) []byte {
		key, err := ParseKey(keys[who])
		if err != nil {
			t.Fatal(err)
		}
		line, err := Seal(document, key)
		if err != nil {
			t.Fatal(err)
		}
		return line
	}
	public := func(who string) any {
		key, err := ParseKey(keys[who])
		if err != nil {
			t.Fatal(err)
		}
		return key.Public()
	}
	now := time.Unix(1.8e9, 0)
	latch := seal("station", Latch{Kind: "latch", Serial: "AG1"})
	token := func(serial string, expires time.Time) []byte {
		return seal("factory", Token{Kind: "token", Serial: serial, Expires: expires})
	}
	p := &Plan{Latch: &LatchRule{FactoryKey: "x"}}
	for _, c := range []struct {
		name     string
		latch    []byte
		token    []byte
		recorded bool
		want     string
	}{
		{"blank", nil, nil, true, ""},
		{"provisioned", latch, nil, true, "a token of the factory key is needed"},
		{"interrupted before its record", latch, nil, false, ""},
		{"token", latch, token("AG1", now.Add(time.Hour)), true, ""},
		{"token with a newline", latch, append(token("AG1", now.Add(time.Hour)), '\n'), true, ""},
		{"token for another", latch, token("AG2", now.Add(time.Hour)), true, "the token is for serial AG2"},
		{"expired", latch, token("AG1", now), true, "the token expired"},
		{"token of a stranger", latch, seal("stranger", Token{Kind: "token", Serial: "AG1", Expires: now.Add(time.Hour)}), true, "not trusted"},
		{"token of the station", latch, seal("station", Token{Kind: "token", Serial: "AG1", Expires: now.Add(time.Hour)}), true, "not trusted"},
		{"latch as token", latch, latch, true, "the token does not allow it"},
		{"damaged latch", []byte("junk"), nil, false, "was provisioned before"},
		{"latch of another station", seal("stranger", Latch{Kind: "latch", Serial: "AG1"}), nil, false, "was provisioned before"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := p.latch("slot1", held{Serial: "AG1", Latch: c.latch}, c.token, public("factory"), public("station"), now, func(string) bool { return !c.recorded })
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("latch: %v; want %q", err, c.want)
			}
		})
	}
}

func TestExpand(t *testing.T) {
	vars := map[string]string{"serial": "AG1", "x": "{serial}"}
	for text, want := range map[string]string{"": "", "a{serial}b{serial}": "aAG1bAG1", "{{serial}": "{serial}", "{x}": "{serial}", "}": "}", "{y}": "error", "{serial": "error", "{}": "error"} {
		got, err := expand(text, maps.Clone(vars))
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("expand(%q) = %q, %v; want %q", text, got, err, want)
		}
	}
}
