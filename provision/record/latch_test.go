package record_test

import (
	"crypto"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"updater/provision/provisiontest"
	"updater/provision/record"
)

func TestLatch(t *testing.T) {
	keys := map[string]crypto.Signer{"station": provisiontest.Ed25519Key(t), "factory": provisiontest.P256Key(t),
		"stranger": provisiontest.Ed25519Key(t)}
	seal := func(who string, document any) []byte {
		line, err := record.Seal(document, keys[who])
		if err != nil {
			t.Fatal(err)
		}
		return line
	}
	now := time.Unix(1.8e9, 0)
	latch := seal("station", record.Latch{Kind: "latch", Serial: "AG1"})
	token := func(serial string, expires time.Time) []byte {
		return seal("factory", record.Token{Kind: "token", Serial: serial, Expires: expires})
	}
	for _, c := range []struct {
		name     string
		latch    []byte
		token    []byte
		recorded bool
		want     string
	}{
		{"blank", nil, nil, true, ""},
		{"provisioned", latch, nil, true, "a token of the factory key is required"},
		{"interrupted before its record", latch, nil, false, ""},
		{"token", latch, token("AG1", now.Add(time.Hour)), true, ""},
		{"token with a newline", latch, append(token("AG1", now.Add(time.Hour)), '\n'), true, ""},
		{"token for another", latch, token("AG2", now.Add(time.Hour)), true, "the token is for serial AG2"},
		{"expired", latch, token("AG1", now), true, "the token expired"},
		{"token of a stranger", latch, seal("stranger", record.Token{Kind: "token", Serial: "AG1", Expires: now.Add(time.Hour)}), true, "not trusted"},
		{"token of the station", latch, seal("station", record.Token{Kind: "token", Serial: "AG1", Expires: now.Add(time.Hour)}), true, "not trusted"},
		{"latch as token", latch, latch, true, "checking the token"},
		{"damaged latch", []byte("junk"), nil, false, "was provisioned before"},
		{"empty latch", []byte{}, nil, false, "was provisioned before"},
		{"latch of another station", seal("stranger", record.Latch{Kind: "latch", Serial: "AG1"}), nil, false, "was provisioned before"},
	} {
		t.Run(c.name, func(t *testing.T) {
			gate := record.Gate{
				Station: keys["station"].Public(), Factory: keys["factory"].Public(), Token: c.token, Now: now,
				Interrupted: func([]byte) bool { return !c.recorded },
			}
			err := gate.Check("slot1", c.latch, "AG1")
			if c.want == "" {
				if err != nil {
					t.Errorf("Check = %v; want none", err)
				}
				return
			}
			if latched, ok := errors.AsType[*record.LatchedError](err); !ok || latched.Target != "slot1" || latched.Serial != "AG1" ||
				!strings.Contains(err.Error(), c.want) {
				t.Errorf("Check = %v; want a LatchedError with %q", err, c.want)
			}
		})
	}
}

// TestIntention: only an intention that this station signed for this unit, not long ago, in this chain of records, opens a latch.
func TestIntention(t *testing.T) {
	key, now := provisiontest.Ed25519Key(t), time.Now()
	dir := filepath.Join(t.TempDir(), "spool")
	spool := func(dir string, key crypto.Signer) *record.Spool {
		s, err := record.OpenSpool(dir, key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := spool(dir, key)
	first, second := []byte("first latch"), []byte("second latch")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.Append(&record.Record{Verdict: record.Fail}))
	must(s.Intend(first, "unit1"))
	must(s.Append(&record.Record{Verdict: record.Fail})) // of another unit
	for name, c := range map[string]struct {
		latch []byte
		unit  string
		now   time.Time
		want  bool
	}{
		"interrupted":   {first, "unit1", now.Add(time.Hour), true},
		"another latch": {second, "unit1", now, false},
		"another unit":  {first, "unit2", now, false},
		"long ago":      {first, "unit1", now.Add(8 * 24 * time.Hour), false},
	} {
		if got := s.Interrupted(c.latch, c.unit, c.now); got != c.want {
			t.Errorf("%s: Interrupted = %t", name, got)
		}
	}
	file := filepath.Join(dir, "latching-"+record.Digest(first))
	signed, err := os.ReadFile(file)
	must(err)

	// The spool was put aside, and a fresh one has the intention, or an empty file in its place.
	fresh := filepath.Join(t.TempDir(), "spool")
	f := spool(fresh, key)
	for name, content := range map[string][]byte{"empty": nil, "of another chain": signed} {
		must(os.WriteFile(filepath.Join(fresh, filepath.Base(file)), content, 0o600))
		if f.Interrupted(first, "unit1", now) {
			t.Errorf("an intention that is %s opens a latch", name)
		}
	}
	must(f.Append(&record.Record{Verdict: record.Fail}))
	if f.Interrupted(first, "unit1", now) {
		t.Error("an intention opens a latch in a spool with another first record")
	}
	// A stranger wrote it.
	must(spool(dir, provisiontest.Ed25519Key(t)).Intend(second, "unit1"))
	if s.Interrupted(second, "unit1", now) {
		t.Error("an intention by another key opens a latch")
	}
	// The first intention for another latch.
	must(os.WriteFile(filepath.Join(dir, "latching-"+record.Digest(second)), signed, 0o600))
	if s.Interrupted(second, "unit1", now) {
		t.Error("an intention for one latch opens another")
	}
	must(s.Append(&record.Record{Verdict: record.Pass, Latch: record.Digest(first)}))
	if s.Interrupted(first, "unit1", now) {
		t.Error("a latch whose record was kept is open")
	}
}

// TestWitness: an attestation is for one unit, one serial and one object, by this station.
func TestWitness(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	open := func(key crypto.Signer) *record.Spool {
		s, err := record.OpenSpool(dir, key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s, stranger := open(provisiontest.Ed25519Key(t)), open(provisiontest.P256Key(t))
	sum := record.Digest([]byte("key"))
	if err := errors.Join(s.Witness("unit1").Attest("AG1", sum), s.Witness("unit1").Attest("AG1", sum),
		stranger.Witness("unit2").Attest("AG2", sum)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		unit, serial, sum string
		want              bool
	}{
		"attested":       {"unit1", "AG1", sum, true},
		"another unit":   {"unit3", "AG1", sum, false},
		"another serial": {"unit1", "AG3", sum, false},
		"another object": {"unit1", "AG1", record.Digest(nil), false},
		"serial alone":   {"unit1", "AG1", "", false},
		"by a stranger":  {"unit2", "AG2", sum, false},
	} {
		if got := s.Witness(c.unit).Attested(c.serial, c.sum); got != c.want {
			t.Errorf("%s: Attested = %t", name, got)
		}
	}
	// One attestation in place of another.
	names, err := filepath.Glob(filepath.Join(dir, "attested-*"))
	if err != nil || len(names) != 2 {
		t.Fatalf("attestations are %v, %v", names, err)
	}
	for _, swap := range [][2]string{{names[0], names[1]}, {names[1], names[0]}} {
		line, err := os.ReadFile(swap[0])
		if err == nil {
			err = os.WriteFile(swap[1], line, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if s.Witness("unit2").Attested("AG2", sum) {
			t.Error("an attestation for one unit counts for another")
		}
	}
	if _, err := record.Verify(dir, nil, nil); err != nil {
		t.Errorf("attestations are taken for records: %v", err)
	}
}
