package station_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"updater/device/config"
	"updater/install"
	"updater/provision/board"
	"updater/provision/station"
	"updater/release"
	"updater/update"
	"updater/verify"
)

const planText = `name = "gateway"
keyring = ["release.asc"]
[[partition]]
name = "rootfs_a"
size = "10M"
[identity]
partition = "identity"
serial = { from = "prompt" }
[[partition]]
name = "identity"
size = "34M"
[record]
spool = "spool"
station = "bench 1"
key = "station.pem"
`

// bench is a folder with a plan, a keyring and the station's key.
type bench struct {
	t      *testing.T
	dir    string
	entity *openpgp.Entity
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir()}
	var err error
	if b.entity, err = openpgp.NewEntity("release", "", "release@example.com", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA}); err != nil {
		t.Fatal(err)
	}
	var cert bytes.Buffer
	w, err := armor.Encode(&cert, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.entity.Serialize(w), w.Close()); err != nil {
		t.Fatal(err)
	}
	b.write("release.asc", cert.String())
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	b.write("station.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	b.write("plan.toml", planText)
	return b
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

func (b *bench) write(name, text string) {
	b.t.Helper()
	if err := os.WriteFile(b.path(name), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// sign puts a detached signature beside a file.
func (b *bench) sign(name string) {
	b.t.Helper()
	data, err := os.ReadFile(b.path(name))
	if err != nil {
		b.t.Fatal(err)
	}
	var sig bytes.Buffer
	if err := openpgp.DetachSign(&sig, []*openpgp.Entity{b.entity}, bytes.NewReader(data), nil); err != nil {
		b.t.Fatal(err)
	}
	b.write(name+".sig", sig.String())
}

func (b *bench) options() station.Options {
	return station.Options{
		Plan: b.path("plan.toml"), Code: func(error) int { return 1 }, LEDs: b.dir,
		Inputs: install.Inputs{Stdin: strings.NewReader(""), Warn: b.t.Logf},
	}
}

// configured signs plans with the keyring of the bench.
func (b *bench) configured() *config.Config {
	c := new(config.Config)
	c.Keyring, c.Product = []string{b.path("release.asc")}, "gw"
	c.Trust.Key = []config.Key{{
		Fingerprint: strings.ToUpper(hex.EncodeToString(b.entity.PrimaryKey.Fingerprint)), Documents: []string{"release", "bmap", "plan"},
	}}
	return c
}

func as[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// TestTrust: a plan from this machine needs no signature, every other one does, and nothing beside a signed plan is used.
func TestTrust(t *testing.T) {
	b := newBench(t)
	server := httptest.NewServer(http.FileServer(http.Dir(b.dir)))
	defer server.Close()
	head := "type = \"plan\"\nproduct = \"gw\"\nrollback_index = 3\ncreated = 2020-01-01T00:00:00Z\nexpires = 2099-01-01T00:00:00Z\n"
	absolute := strings.NewReplacer(`keyring = ["release.asc"]`, "", `"spool"`, `"`+b.path("spool")+`"`, `"station.pem"`, `"`+b.path("station.pem")+`"`)
	signed := head + absolute.Replace(planText)
	without := func(line string) string { return strings.Replace(signed, line+"\n", "", 1) }
	configure := func(o *station.Options) { o.Config = b.configured() }
	for _, c := range []struct {
		name   string
		text   string
		sign   bool
		change func(*station.Options)
		is     func(error) bool // nil if it opens
		want   string
	}{
		{"local", planText, false, func(*station.Options) {}, nil, ""},
		{"unknown key", planText + "[surprise]\n", false, func(*station.Options) {}, as[*config.RequestError], `unknown key "surprise"`},
		{"no keyring", strings.Replace(planText, `keyring = ["release.asc"]`, "", 1), false, func(*station.Options) {}, as[*verify.SignatureError],
			"no keyring"},
		{"no key", strings.Replace(planText, "station.pem", "none.pem", 1), false, func(*station.Options) {}, as[*fs.PathError], "reading the key"},
		{"with a configuration", planText, false, func(o *station.Options) { o.Config = b.configured() }, as[*verify.SignatureError],
			"the plan is not signed"},
		{"from an address", planText, false, func(o *station.Options) {
			o.Config, o.Plan = b.configured(), server.URL+"/plan.toml"
		}, as[*verify.SignatureError], "the plan is not signed"},
		{"relative path", head + planText, true, func(o *station.Options) { o.Config = b.configured() }, as[*config.RequestError], "expected an absolute path"},
		{"keyring in a signed plan", strings.Replace(signed, "name = \"gateway\"", "name = \"gateway\"\nkeyring = [\"/r.asc\"]", 1), true,
			func(o *station.Options) { o.Config = b.configured() }, as[*config.RequestError], "keyring is set"},
		{"no type", without(`type = "plan"`), true, configure, as[*release.TypeError], "expected"},
		{"release as a plan", strings.Replace(signed, `"plan"`, `"release"`, 1), true, configure, as[*release.TypeError], "release"},
		{"no product", without(`product = "gw"`), true, configure, as[*config.RequestError], "product is missing"},
		{"no index", without("rollback_index = 3"), true, configure, as[*config.RequestError], "rollback_index is missing"},
		{"no created", without("created = 2020-01-01T00:00:00Z"), true, configure, as[*config.RequestError], "created is missing"},
		{"no expires", without("expires = 2099-01-01T00:00:00Z"), true, configure, as[*config.RequestError], "expires is missing"},
		{"expired", strings.Replace(signed, "2099", "2021", 1), true, configure, as[*update.ExpiredError], "expired"},
		{"created later", strings.Replace(signed, "2020", "2098", 1), true, configure, as[*config.RequestError], "after the signature"},
		{"other product", strings.Replace(signed, `"gw"`, `"gw-a"`, 1), true, configure, as[*update.IncompatibleError], `for product "gw-a"`},
		{"key of releases only", signed, true, func(o *station.Options) {
			configure(o)
			o.Config.Trust.Key = nil
		}, as[*verify.SignatureError], "plan"},
		{"signed", signed, true, func(o *station.Options) { o.Config = b.configured() }, nil, ""},
		{"signed at an address", signed, true, func(o *station.Options) {
			o.Config, o.Plan = b.configured(), server.URL+"/plan.toml"
		}, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.write("plan.toml", c.text)
			_ = os.Remove(b.path("plan.toml.sig"))
			if c.sign {
				b.sign("plan.toml")
			}
			o := b.options()
			c.change(&o)
			s, err := station.Open(t.Context(), o)
			if err == nil {
				defer s.Close()
			}
			if c.is == nil {
				if err != nil {
					t.Errorf("Open = %v", err)
				}
				return
			}
			if err == nil || !c.is(err) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Open = %T %v; want %q", err, err, c.want)
			}
		})
	}
}

// TestPrivateKey: a key of the station that others can read signs nothing.
func TestPrivateKey(t *testing.T) {
	b := newBench(t)
	if err := os.Chmod(b.path("station.pem"), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := station.Open(t.Context(), b.options()); err == nil || !strings.Contains(err.Error(), "mode 0640, so others may read it") {
		t.Errorf("Open = %v", err)
	}
}

// TestNetwork: the network comes up only for sources that need it.
func TestNetwork(t *testing.T) {
	b := newBench(t)
	for url, want := range map[string]int{"": 0, "url = \"https://line.example/records\"\n": 1} {
		b.write("plan.toml", planText+url)
		o, ups := b.options(), 0
		o.Network = func(context.Context) error { ups++; return nil }
		s, err := station.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		if ups != want {
			t.Errorf("with %q the network came up %d times, want %d", url, ups, want)
		}
	}
}

// TestJob: without a target there is no run, nothing is asked for a target that may not be written, and a person is asked before the run.
func TestJob(t *testing.T) {
	b := newBench(t)
	s, err := station.Open(t.Context(), b.options())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Job(t.Context(), new(board.Board)); !as[*config.RequestError](err) {
		t.Errorf("Job without a target = %v; want a RequestError", err)
	}
	if err := s.Send(t.Context()); !as[*config.RequestError](err) {
		t.Errorf("Send without an address = %v; want a RequestError", err)
	}
	if err := s.Deliver(t.Context()); err != nil {
		t.Errorf("Deliver without an address = %v", err)
	}
	o := b.options()
	o.Targets = []string{"/dev/null"}
	o.Ask = func(context.Context, string) (string, error) { t.Error("asked for a refused target"); return "", nil }
	refused, err := station.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer refused.Close()
	job, err := refused.Job(t.Context(), new(board.Board))
	if err != nil {
		t.Fatal(err)
	}
	results, err := job.Run(t.Context())
	if err != nil || len(results) != 1 || results[0].Verdict != "refused" || results[0].Record != 1 {
		t.Errorf("Run = %+v, %v; want one that is refused and recorded", results, err)
	}
}
