package verify_test

import (
	"bytes"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"updater/verify"
)

// revocation returns, armored, the revocation certificate that gpg made with the key.
func (l *lab) revocation(t testing.TB, name string) []byte {
	t.Helper()
	text := read(t, filepath.Join(l.home, "openpgp-revocs.d", l.fpr[name]+".rev"))
	return text[bytes.Index(text, []byte(":-----BEGIN"))+1:] // the colon keeps it from being imported by mistake
}

// interact runs gpg --edit-key or the like, answering its questions.
func (l *lab) interact(t testing.TB, at string, answers []string, args ...string) []byte {
	t.Helper()
	args = append([]string{"--no-batch", "--command-fd", "0", "--expert"}, args...)
	return l.gpg(t, at, []byte(strings.Join(answers, "\n")+"\n"), args...)
}

func TestRevoked(t *testing.T) {
	l := newLab(t)
	for _, name := range []string{"hard", "soft", "misplaced", "foreign"} {
		l.newKey(t, name, "ed25519", "sign", "never")
	}
	l.newKey(t, "sub", "ed25519", "cert", "never")
	l.gpg(t, jan2024, nil, "--quick-add-key", l.fpr["sub"], "ed25519", "sign", "never")
	stale := l.export(t, "hard")
	sigs := map[string][]byte{}
	for _, name := range []string{"hard", "soft", "sub", "misplaced"} {
		sigs[name] = l.sign(t, name, mar2024, testDoc)
	}
	misplaced := l.export(t, "misplaced")
	l.gpg(t, jul2024, l.revocation(t, "hard"), "--import")
	soft := l.interact(t, jul2024, []string{"y", "2", "", "y"}, "--armor", "--gen-revoke", l.fpr["soft"])
	l.gpg(t, jul2024, soft, "--import")
	l.interact(t, jul2024, []string{"key 1", "revkey", "y", "2", "", "y", "save"}, "--edit-key", l.fpr["sub"])
	dearmored := func(b []byte) []byte { return l.gpg(t, jan2025, b, "--dearmor") }

	tests := []struct {
		name  string
		ring  [][]byte // files of the keyring
		sig   string
		want  string
		gpgv  string
		noKey string // part of the error of LoadKeyring
	}{
		{name: "no reason", ring: [][]byte{l.export(t, "hard")}, sig: "hard", gpgv: "REVKEYSIG", want: "was revoked on 2024-01-01"},
		{name: "superseded after the signature", ring: [][]byte{l.export(t, "soft")}, sig: "soft", gpgv: "REVKEYSIG",
			want: "was revoked on 2024-07-01 00:00:00 UTC (superseded"},
		{name: "subkey", ring: [][]byte{l.export(t, "sub")}, sig: "sub", gpgv: "REVKEYSIG", want: "subkey was revoked on 2024-07-01"},
		{name: "stale copy alone", ring: [][]byte{stale}, sig: "hard"},
		{name: "stale copy first", ring: [][]byte{stale, l.export(t, "hard")}, sig: "hard", want: "was revoked"},
		{name: "stale copy last", ring: [][]byte{l.export(t, "hard"), stale}, sig: "hard", want: "was revoked"},
		{name: "both copies in one file", ring: [][]byte{append(bytes.Clone(stale), l.export(t, "hard")...)}, sig: "hard", want: "was revoked"},
		{name: "revocation at the end", ring: [][]byte{append(bytes.Clone(misplaced), dearmored(l.revocation(t, "misplaced"))...)}, sig: "misplaced",
			want: "was revoked"},
		{name: "revocation of another key", ring: [][]byte{append(bytes.Clone(misplaced), dearmored(l.revocation(t, "foreign"))...)},
			noKey: "a revocation cannot be checked"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			for i, data := range tc.ring {
				writeFile(t, filepath.Join(dir, string(rune('a'+i))), data)
			}
			k, err := verify.LoadKeyring(dir)
			if tc.noKey != "" {
				if err == nil || !strings.Contains(err.Error(), tc.noKey) {
					t.Fatalf("LoadKeyring() = %v; want %q", err, tc.noKey)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if tc.gpgv != "" {
				if got := l.gpgv(t, tc.ring[0], testDoc, sigs[tc.sig]); got != tc.gpgv {
					t.Errorf("gpgv says %s; want %s", got, tc.gpgv)
				}
			}
			got, err := verify.Policy{Keyring: k, Time: now2025}.Verify(testDoc, sigs[tc.sig])
			checkVerdict(t, got, err, testDoc, tc.want)
		})
	}
}

// TestExtendedKey: gpg exports only the newest self-signature, which is younger than older signatures.
func TestExtendedKey(t *testing.T) {
	l := newLab(t)
	l.newKey(t, "short", "ed25519", "sign", "20240601T000000")
	sig := l.sign(t, "short", mar2024, testDoc)
	l.gpg(t, "20240501T000000", nil, "--quick-set-expire", l.fpr["short"], "20260101T000000")
	late := l.sign(t, "short", jan2025, testDoc)
	extended := l.gpg(t, jan2025, nil, "--export-options", "export-minimal", "--export", l.fpr["short"])
	for name, sig := range map[string][]byte{"before": sig, "after": late} {
		t.Run(name, func(t *testing.T) {
			got, err := verify.Policy{Keyring: ring(t, extended), Time: now2025}.Verify(testDoc, sig)
			checkVerdict(t, got, err, testDoc, "")
		})
	}
}

// TestConcurrent runs under -race: one keyring, many verifications.
func TestConcurrent(t *testing.T) {
	l := newLab(t)
	p := verify.Policy{Keyring: ring(t, l.export(t, "alice", "bob")), Time: now2025}
	sig := l.sign(t, "alice", jan2025, testDoc)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := p.Verify(testDoc, sig); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
