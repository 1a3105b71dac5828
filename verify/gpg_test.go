package verify_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// lab is a GnuPG home with the keys of the tests. Real gpg makes keys and signatures.
type lab struct {
	home string
	fpr  map[string]string // by name
}

// Times are gpg's --faked-system-time; all keys are of 2024-01-01.
const (
	jan2024 = "20240101T000000"
	mar2024 = "20240301T000000"
	jul2024 = "20240701T000000"
	jan2025 = "20250101T000000"
	jan2030 = "20300101T000000"
)

var now2025 = time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC)

// newLab makes the home and the two keys that nearly every test needs.
func newLab(t testing.TB) *lab {
	t.Helper()
	for _, tool := range []string{"gpg", "gpgv", "gpgconf"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	home, err := os.MkdirTemp("", "gpg") // short: gpg's socket has a path of at most 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{home: home, fpr: map[string]string{}}
	t.Cleanup(func() {
		cmd := exec.Command("gpgconf", "--kill", "all")
		cmd.Env = append(os.Environ(), "GNUPGHOME="+home)
		cmd.Run()
		os.RemoveAll(home)
	})
	l.newKey(t, "alice", "ed25519", "sign", "never")
	l.newKey(t, "bob", "ed25519", "sign", "never")
	return l
}

// tryGPG runs gpg at a faked time with input on stdin.
func (l *lab) tryGPG(at string, input []byte, args ...string) ([]byte, error) {
	args = append([]string{"--homedir", l.home, "--batch", "--yes", "--no-tty", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "",
		"--faked-system-time", at + "!"}, args...)
	cmd := exec.Command("gpg", args...)
	cmd.Stdin = bytes.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("gpg %v: %w: %s", args[11:], err, stderr.Bytes())
	}
	return out, nil
}

func (l *lab) gpg(t testing.TB, at string, input []byte, args ...string) []byte {
	t.Helper()
	out, err := l.tryGPG(at, input, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// newKey makes a key pair with the user ID "NAME <NAME@example.com>".
func (l *lab) newKey(t testing.TB, name, algo, usage, expire string) {
	t.Helper()
	l.gpg(t, jan2024, nil, "--quick-generate-key", name+" <"+name+"@example.com>", algo, usage, expire)
	l.fpr[name] = l.fingerprint(t, name)
}

func (l *lab) fingerprint(t testing.TB, name string) string {
	t.Helper()
	for line := range strings.Lines(string(l.gpg(t, jan2025, nil, "--with-colons", "--list-keys", name+"@example.com"))) {
		if f := strings.Split(line, ":"); f[0] == "fpr" {
			return f[9]
		}
	}
	t.Fatalf("no fingerprint of %s", name)
	return ""
}

// export returns the binary certificates of the named keys.
func (l *lab) export(t testing.TB, names ...string) []byte {
	t.Helper()
	args := []string{"--export"}
	for _, n := range names {
		args = append(args, l.fpr[n])
	}
	return l.gpg(t, jan2025, nil, args...)
}

// sign makes a detached binary signature of doc by the named key; extra are further options of gpg.
func (l *lab) sign(t testing.TB, name, at string, doc []byte, extra ...string) []byte {
	t.Helper()
	return l.gpg(t, at, doc, append(extra, "-u", l.fpr[name], "--detach-sign", "-o", "-")...)
}

// clearsign makes a clearsigned document.
func (l *lab) clearsign(t testing.TB, name, at string, doc []byte, extra ...string) []byte {
	t.Helper()
	return l.gpg(t, at, doc, append(extra, "-u", l.fpr[name], "--clearsign", "-o", "-")...)
}

// gpgv asks gpgv for its status words, such as "GOODSIG".
func (l *lab) gpgv(t testing.TB, ring, doc, sig []byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string][]byte{"ring": ring, "doc": doc, "sig": sig} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("gpgv", "--homedir", l.home, "--status-fd", "1", "--keyring", filepath.Join(dir, "ring"), filepath.Join(dir, "sig"),
		filepath.Join(dir, "doc"))
	out, _ := cmd.Output() // the status words have the result
	var words []string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasSuffix(f[1], "SIG") && f[1] != "VALIDSIG" && f[1] != "NEWSIG" {
			words = append(words, f[1])
		}
	}
	return strings.Join(words, ",")
}
