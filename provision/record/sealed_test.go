package record_test

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"updater/provision/keys"
	"updater/provision/provisiontest"
	"updater/provision/record"
	"updater/verify"
)

func TestSealed(t *testing.T) {
	for name, key := range map[string]crypto.Signer{"ed25519": provisiontest.Ed25519Key(t), "p256": provisiontest.P256Key(t)} {
		t.Run(name, func(t *testing.T) {
			token := record.Token{Kind: "token", Serial: "AG1", Expires: time.Unix(2e9, 0).UTC()}
			line, err := record.Seal(token, key)
			if err != nil {
				t.Fatal(err)
			}
			var got record.Token
			if err := record.Unseal(line, "token", &got, key.Public()); err != nil || got != token {
				t.Fatalf("Open = %+v, %v", got, err)
			}
			if err := record.Unseal(line, "latch", &record.Latch{}, key.Public()); err == nil {
				t.Error("a token was taken for a latch")
			}
			if err := record.Unseal(line, "token", &got, provisiontest.Ed25519Key(t).Public()); err == nil || !strings.Contains(err.Error(), "not trusted") {
				t.Errorf("another key: %v", err)
			}
			if err := record.Unseal(line, "token", &got); err == nil {
				t.Error("no key opens it")
			}
			end := bytes.Index(line, []byte(`"signature"`))
			for i := range end { // every byte of the document counts
				bad := bytes.Clone(line)
				bad[i] ^= 1
				if err := record.Unseal(bad, "token", &got, key.Public()); err == nil {
					t.Fatalf("byte %d was changed, and it opens: %s", i, bad)
				}
			}
			if err := record.Unseal(append(line, '{'), "token", &got, key.Public()); err == nil {
				t.Error("something behind it was not noticed")
			}
		})
	}
}

// sample is a record as a run makes it.
func sample(verdict record.Verdict) *record.Record {
	r := &record.Record{
		Time: time.Unix(1.8e9, 0).UTC(), Station: "bench", Operator: "eve", Updater: "1", Run: "provision", Plan: record.Plan{Name: "gateway",
			SHA256: strings.Repeat("a", 64)},
		Verdict: verdict, Unit: record.Unit{Name: "slot1", Key: "cid:1", Strong: true, Disk: record.Disk{Path: "/dev/sdb", Size: 1 << 30, Sector: 512,
			Model: "=cmd()", Health: map[string]string{"life_time": "0x01 0x01"}}},
		Images: []record.Image{{Name: "rootfs.img", Bmap: strings.Repeat("b", 64), ImageBytes: 5,
			Signers: []verify.Signer{{Fingerprint: strings.Repeat("A", 40), Time: time.Unix(1.7e9, 0).UTC()}}}},
		Identity: &record.Identity{Serial: "AG1", Files: map[string]string{"serial": strings.Repeat("c", 64)}},
		Steps:    []record.Step{{Name: "write", Seconds: 1.5, Bytes: 15, BytesPerSecond: 10}}, Retries: []record.Retry{},
	}
	if verdict != record.Pass {
		r.Code, r.Error = 14, "writing at 4096: input/output error"
	}
	return r
}

func TestSpool(t *testing.T) {
	dir, key := filepath.Join(t.TempDir(), "spool"), provisiontest.Ed25519Key(t)
	for _, v := range []record.Verdict{record.Pass, record.Fail, record.Quarantine} {
		spool, err := record.OpenSpool(dir, key) // every run opens it again
		if err != nil {
			t.Fatal(err)
		}
		if err := spool.Append(sample(v)); err != nil {
			t.Fatal(err)
		}
	}
	var records []*record.Record
	n, err := record.Verify(dir, []crypto.PublicKey{key.Public()}, func(r *record.Record) error { records = append(records, r); return nil })
	if err != nil || n != 3 || records[2].Sequence != 3 || records[0].Previous != "" || len(records[1].Previous) != 64 {
		t.Fatalf("VerifySpool = %d, %v", n, err)
	}
	provisiontest.CheckSchema(t, dir)

	var out bytes.Buffer
	if err := record.ExportCSV(&out, records); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(strings.TrimSpace(out.String()), "\n"); len(lines) != 4 ||
		!strings.Contains(lines[1], "provision,pass,0,AG1,slot1,cid:1,'=cmd(),") {
		t.Errorf("CSV is\n%s", out.String())
	}

	// Every change of the history is found: a byte, a record left out, two exchanged, one signed by another key.
	read := func(n string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, n))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	first, second := read("00000001.json"), read("00000002.json")
	other, err := record.Seal(sample(record.Pass), provisiontest.P256Key(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, files := range map[string]map[string][]byte{
		"changed":     {"00000001.json": bytes.Replace(first, []byte("eve"), []byte("bob"), 1)},
		"exchanged":   {"00000001.json": second, "00000002.json": first},
		"repeated":    {"00000002.json": first},
		"other key":   {"00000002.json": other},
		"reformatted": {"00000002.json": bytes.Replace(second, []byte(`,"time"`), []byte(`, "time"`), 1)},
		"left out":    {"00000002.json": nil},
	} {
		for n, data := range files {
			if data == nil {
				os.Remove(filepath.Join(dir, n))
			} else if err := os.WriteFile(filepath.Join(dir, n), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		n, err := record.Verify(dir, []crypto.PublicKey{key.Public()}, nil)
		if broken, ok := errors.AsType[*record.ChainError](err); !ok || broken.Good != n {
			t.Errorf("%s: Verify = %d, %v; want a ChainError", name, n, err)
		}
		for n, data := range map[string][]byte{"00000001.json": first, "00000002.json": second} {
			if err := os.WriteFile(filepath.Join(dir, n), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestDeliver(t *testing.T) {
	dir, key := t.TempDir(), provisiontest.Ed25519Key(t)
	spool, err := record.OpenSpool(dir, key)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := spool.Append(sample(record.Pass)); err != nil {
			t.Fatal(err)
		}
	}
	fail, calls, got := 1, 0, []string{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		if fail > 0 {
			fail--
			http.Error(w, "down", http.StatusBadGateway)
			return
		}
		var line json.RawMessage
		if err := json.NewDecoder(r.Body).Decode(&line); err != nil {
			t.Error(err)
		}
		got = append(got, string(line))
	}))
	defer server.Close()
	send := func(ctx context.Context, line []byte, key string) error {
		if key != record.Digest(line) {
			t.Errorf("key is %s", key)
		}
		resp, err := http.Post(server.URL, "application/json", bytes.NewReader(line))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	}
	if err := spool.Deliver(t.Context(), send); err == nil || !strings.Contains(err.Error(), "sending record 1") || len(got) != 0 {
		t.Fatalf("a server that is down: %v", err)
	}
	if err := spool.Deliver(t.Context(), send); err != nil || len(got) != 3 {
		t.Fatalf("Deliver: %v, %d records", err, len(got))
	}
	calls = 0
	if err := spool.Deliver(t.Context(), send); err != nil || calls != 0 {
		t.Errorf("sent records are sent again: %v, %d calls", err, calls)
	}
	// The lines that arrived are those on disk, and the server can verify them.
	i := 0
	for line := range record.Lines(dir) {
		var r record.Record
		if err := record.Unseal([]byte(got[i]), "record", &r, key.Public()); err != nil || strings.TrimSpace(string(line)) != got[i] {
			t.Errorf("record %d: %v", i+1, err)
		}
		i++
	}
}

func TestKeysOfOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	if _, err := keys.Parse([]byte(provisiontest.Tool(t, "openssl", "genpkey", "-quiet", "-algorithm", "RSA"))); err == nil ||
		!strings.Contains(err.Error(), "expected Ed25519 or P-256") {
		t.Errorf("an RSA key: %v", err)
	}
	key := filepath.Join(t.TempDir(), "k.pem")
	provisiontest.Tool(t, "openssl", "genpkey", "-quiet", "-algorithm", "ed25519", "-out", key)
	private, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := keys.Parse(private)
	if err != nil {
		t.Fatal(err)
	}
	public, err := keys.ParsePublic([]byte(provisiontest.Tool(t, "openssl", "pkey", "-in", key, "-pubout")))
	if err != nil || keys.Fingerprint(public) != keys.Fingerprint(signer.Public()) {
		t.Errorf("the public key: %v", err)
	}
}

// TestInterruptedSpool: files that a power cut leaves behind in the folder are not records, and the next record follows.
func TestInterruptedSpool(t *testing.T) {
	dir, key := t.TempDir(), provisiontest.Ed25519Key(t)
	spool, err := record.OpenSpool(dir, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := spool.Append(sample(record.Pass)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".00000002.json.123"), []byte(`{"document"`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := spool.Append(sample(record.Pass)); err != nil {
		t.Fatal(err)
	}
	if n, err := record.Verify(dir, []crypto.PublicKey{key.Public()}, nil); err != nil || n != 2 {
		t.Errorf("Verify = %d, %v; want 2", n, err)
	}
	if spool.Passed("AG1") == nil || spool.Passed("AG2") != nil {
		t.Error("Passed finds another serial, or not its own")
	}
}
