package record_test

import (
	"crypto"
	"errors"
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
