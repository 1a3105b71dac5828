// Package provisiontest holds helpers that the tests of a factory line share: a server of serials, keys made by openssl, and the record schema.
package provisiontest

import (
	"crypto"
	"os/exec"
	"strings"
	"testing"

	"updater/provision/keys"
)

// Tool runs a program that a test compares with, and skips the test where it is not installed.
func Tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Ed25519Key makes a key with openssl.
func Ed25519Key(t testing.TB) crypto.Signer { return key(t, "-algorithm", "ed25519") }

// P256Key makes a key with openssl.
func P256Key(t testing.TB) crypto.Signer {
	return key(t, "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
}

func key(t testing.TB, args ...string) crypto.Signer {
	t.Helper()
	key, err := keys.Parse([]byte(Tool(t, "openssl", append([]string{"genpkey", "-quiet"}, args...)...)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}
