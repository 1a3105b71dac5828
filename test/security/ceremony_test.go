package security

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"updater/internal/rig"
)

// TestKeyCeremony runs the commands of docs/security.md as they stand there. Only a wrapper around gpg replaces the
// person who would type a passphrase.
func TestKeyCeremony(t *testing.T) {
	r := rig.New(t)
	doc, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	gpg, err := exec.LookPath("gpg")
	if err != nil {
		t.Skip(err)
	}
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(doc), -1)
	if len(blocks) < 8 {
		t.Fatalf("%d blocks of commands in the document", len(blocks))
	}
	// gpg's socket has a path of at most 108 bytes.
	dir, err := os.MkdirTemp("", "keys")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, home := range []string{"offline", "signing"} {
			_ = exec.Command("gpgconf", "--homedir", dir+"/"+home, "--kill", "all").Run()
		}
		_ = os.RemoveAll(dir)
	})
	var script strings.Builder
	script.WriteString("set -eux\ncd " + dir + "\ncp " + r.Path("image.img.bmap") + " .\nmkdir bin\n" +
		"printf '#!/bin/sh\\nexec " + gpg + " --batch --yes --no-tty --pinentry-mode loopback --passphrase \"\" \"$@\"\\n' > bin/gpg\nchmod +x bin/gpg\nPATH=$PWD/bin:$PATH\n")
	for _, b := range blocks {
		// "! command" does not end a script with -e when the command succeeds.
		script.WriteString(regexp.MustCompile(`(?m)^! (.*)$`).ReplaceAllString(b[1], "if $1; then exit 9; fi"))
	}
	cmd := exec.Command("bash", "-c", script.String())
	cmd.Env = r.Env
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "trusted: signed by") != 2 || strings.Count(string(out), "was revoked on") != 2 {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestSignedSums: SHA256SUMS names every file of a release, and gpgv verifies its signature. A key that cannot sign ends make release.
func TestSignedSums(t *testing.T) {
	r := rig.New(t)
	r.Sh(`fails() { if "$@"; then exit 9; fi; }
		mkdir dist; cp image.img other.asc dist; sums=$0/scripts/sums.sh
		KEY=release@example.com $sums dist; KEY=other@example.com $sums dist # again, by another key
		cd dist; sha256sum -c SHA256SUMS; test $(ls | wc -l) = 4; test $(wc -l <SHA256SUMS) = 2
		gpg --dearmor <other.asc >../other.gpg
		gpgv --keyring ../other.gpg SHA256SUMS.asc SHA256SUMS
		echo >>SHA256SUMS; fails gpgv --keyring ../other.gpg SHA256SUMS.asc SHA256SUMS
		KEY=nobody@example.com fails $sums .
		$sums .; fails test -e SHA256SUMS.asc
		fails make -s -C $0 release
		fails make -s -C $0 release KEY=nobody@example.com`, repository(t))
}

// repository is the folder of the tree.
func repository(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
