package provision_test

import (
	"bytes"
	"crypto"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"updater/provision"
	"updater/verify"
)

// opensslKey makes a key with the real tool.
func opensslKey(t *testing.T, args ...string) crypto.Signer {
	t.Helper()
	key, err := provision.ParseKey([]byte(tool(t, "openssl", append([]string{"genpkey", "-quiet"}, args...)...)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func ed25519Key(t *testing.T) crypto.Signer { return opensslKey(t, "-algorithm", "ed25519") }
func p256Key(t *testing.T) crypto.Signer {
	return opensslKey(t, "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
}

func TestSealed(t *testing.T) {
	for name, key := range map[string]crypto.Signer{"ed25519": ed25519Key(t), "p256": p256Key(t)} {
		t.Run(name, func(t *testing.T) {
			token := provision.Token{Kind: "token", Serial: "AG1", Expires: time.Unix(2e9, 0).UTC()}
			line, err := provision.Seal(token, key)
			if err != nil {
				t.Fatal(err)
			}
			var got provision.Token
			if err := provision.Open(line, "token", &got, key.Public()); err != nil || got != token {
				t.Fatalf("Open = %+v, %v", got, err)
			}
			if err := provision.Open(line, "latch", &provision.Latch{}, key.Public()); err == nil {
				t.Error("a token was taken for a latch")
			}
			if err := provision.Open(line, "token", &got, ed25519Key(t).Public()); err == nil || !strings.Contains(err.Error(), "not trusted") {
				t.Errorf("another key: %v", err)
			}
			if err := provision.Open(line, "token", &got); err == nil {
				t.Error("no key opens it")
			}
			end := bytes.Index(line, []byte(`"signature"`))
			for i := range end { // every byte of the document counts
				bad := bytes.Clone(line)
				bad[i] ^= 1
				if err := provision.Open(bad, "token", &got, key.Public()); err == nil {
					t.Fatalf("byte %d was changed, and it opens: %s", i, bad)
				}
			}
			if err := provision.Open(append(line, '{'), "token", &got, key.Public()); err == nil {
				t.Error("something behind it was not noticed")
			}
		})
	}
}

// record is one as a run makes it.
func record(verdict provision.Verdict) *provision.Record {
	r := &provision.Record{
		Time: time.Unix(1.8e9, 0).UTC(), Station: "bench", Operator: "eve", Updater: "1", Run: "provision", Plan: provision.PlanID{Name: "gateway", SHA256: strings.Repeat("a", 64)},
		Verdict: verdict, Unit: provision.Unit{Name: "slot1", Key: "cid:1", Strong: true, Disk: provision.Disk{Path: "/dev/sdb", Size: 1 << 30, Sector: 512, Model: "=cmd()", Health: map[string]string{"life_time": "0x01 0x01"}}},
		Images:   []provision.ImageRecord{{Name: "rootfs.img", Bmap: strings.Repeat("b", 64), ImageBytes: 5, Signers: []verify.Signer{{Fingerprint: strings.Repeat("A", 40), Time: time.Unix(1.7e9, 0).UTC()}}}},
		Identity: &provision.IDRecord{Serial: "AG1", Files: map[string]string{"serial": strings.Repeat("c", 64)}},
		Steps:    []provision.Step{{Name: "write", Seconds: 1.5, Bytes: 15, BytesPerSecond: 10}}, Retries: []provision.Retry{},
	}
	if verdict != provision.Pass {
		r.Code, r.Error = 14, "writing at 4096: input/output error"
	}
	return r
}

func TestSpool(t *testing.T) {
	dir, key := filepath.Join(t.TempDir(), "spool"), ed25519Key(t)
	for _, v := range []provision.Verdict{provision.Pass, provision.Fail, provision.Quarantine} {
		spool, err := provision.OpenSpool(dir, key) // every run opens it again
		if err != nil {
			t.Fatal(err)
		}
		if err := spool.Append(record(v)); err != nil {
			t.Fatal(err)
		}
	}
	var records []*provision.Record
	n, err := provision.VerifySpool(dir, []crypto.PublicKey{key.Public()}, func(r *provision.Record) error { records = append(records, r); return nil })
	if err != nil || n != 3 || records[2].Sequence != 3 || records[0].Previous != "" || len(records[1].Previous) != 64 {
		t.Fatalf("VerifySpool = %d, %v", n, err)
	}
	checkSchema(t, dir)

	var out bytes.Buffer
	if err := provision.ExportCSV(&out, records); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(strings.TrimSpace(out.String()), "\n"); len(lines) != 4 || !strings.Contains(lines[1], "provision,pass,0,AG1,slot1,cid:1,'=cmd(),") {
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
	other, err := provision.Seal(record(provision.Pass), p256Key(t))
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
		if n, err := provision.VerifySpool(dir, []crypto.PublicKey{key.Public()}, nil); err == nil {
			t.Errorf("%s: %d records verified", name, n)
		}
		for n, data := range map[string][]byte{"00000001.json": first, "00000002.json": second} {
			if err := os.WriteFile(filepath.Join(dir, n), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// checkSchema compares every record of a spool with the schema that is checked in, by a validator of others.
func checkSchema(t *testing.T, dir string) {
	t.Helper()
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(provision.RecordSchema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("record.json", parsed); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("record.json")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line, err := range provision.Lines(dir) {
		if err != nil {
			t.Fatal(err)
		}
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(value); err != nil {
			t.Errorf("record %d: %v\n%s", n+1, err, line)
		}
		if n++; n > 1 {
			continue
		}
		// The schema is no rubber stamp.
		for old, bad := range map[string]string{`"station"`: `"stations"`, `"code":0`: `"code":3`, `"verdict":"pass"`: `"verdict":"passed"`, `"sequence":1`: `"sequence":0`} {
			broken := strings.Replace(string(line), old, bad, 1)
			if broken == string(line) {
				continue
			}
			value, err := jsonschema.UnmarshalJSON(strings.NewReader(broken))
			if err != nil {
				t.Fatal(err)
			}
			if schema.Validate(value) == nil {
				t.Errorf("the schema accepts %s", bad)
			}
		}
	}
	if n == 0 {
		t.Error("the spool is empty")
	}
}

func TestDeliver(t *testing.T) {
	dir, key := t.TempDir(), ed25519Key(t)
	spool, err := provision.OpenSpool(dir, key)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := spool.Append(record(provision.Pass)); err != nil {
			t.Fatal(err)
		}
	}
	fail, calls, got := 2, 0, []string{}
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
	web := &provision.Web{Client: server.Client(), Tries: 2, Pause: time.Millisecond}
	if err := spool.Deliver(t.Context(), server.URL, web); err == nil || !strings.Contains(err.Error(), "sending record 1") || len(got) != 0 {
		t.Fatalf("a server that is down: %v", err)
	}
	if err := spool.Deliver(t.Context(), server.URL, web); err != nil || len(got) != 3 {
		t.Fatalf("Deliver: %v, %d records", err, len(got))
	}
	calls = 0
	if err := spool.Deliver(t.Context(), server.URL, web); err != nil || calls != 0 {
		t.Errorf("what was sent is sent again: %v, %d calls", err, calls)
	}
	// What arrived is what is on disk, and can be verified by the server.
	i := 0
	for line := range provision.Lines(dir) {
		var r provision.Record
		if err := provision.Open([]byte(got[i]), "record", &r, key.Public()); err != nil || strings.TrimSpace(string(line)) != got[i] {
			t.Errorf("record %d: %v", i+1, err)
		}
		i++
	}
}

func TestKeysOfOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	if _, err := provision.ParseKey([]byte(tool(t, "openssl", "genpkey", "-quiet", "-algorithm", "RSA"))); err == nil || !strings.Contains(err.Error(), "expected Ed25519 or P-256") {
		t.Errorf("an RSA key: %v", err)
	}
	key := filepath.Join(t.TempDir(), "k.pem")
	tool(t, "openssl", "genpkey", "-quiet", "-algorithm", "ed25519", "-out", key)
	private, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := provision.ParseKey(private)
	if err != nil {
		t.Fatal(err)
	}
	public, err := provision.ParsePublic([]byte(tool(t, "openssl", "pkey", "-in", key, "-pubout")))
	if err != nil || provision.Fingerprint(public) != provision.Fingerprint(signer.Public()) {
		t.Errorf("the public key: %v", err)
	}
}
