// Package tutorial runs the commands of docs/tutorial.md.
package tutorial

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"updater/internal/docs"
)

// TestTutorial runs the commands of the numbered parts in their order, as they stand there, in one shell. Part 6 boots QEMU and needs the build
// tag vm, part 7 needs root. The result of each part is checked before the next one.
func TestTutorial(t *testing.T) {
	for _, tool := range []string{"sgdisk", "mkfs.vfat", "mcopy", "mke2fs", "grub-editenv", "gpg", "zstd", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	tree, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(tree, "docs/tutorial.md"))
	if err != nil {
		t.Fatal(err)
	}
	home, err := os.MkdirTemp("", "home") // gpg's socket has a path of at most 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = exec.Command("gpgconf", "--homedir", home+"/updater-device/gnupg", "--kill", "all").Run()
		_ = os.RemoveAll(home)
	})
	script := fmt.Sprintf(prologue, home, tree) + commands(t, string(page))
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	caches, err := exec.Command("go", "env", "GOCACHE", "GOPATH").Output() // which HOME would move
	if err != nil {
		t.Fatal(err)
	}
	dirs := strings.Fields(string(caches))
	cmd.Env = append(cmd.Env, "GOCACHE="+dirs[0], "GOPATH="+dirs[1])
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the commands of docs/tutorial.md: %v\n%s", err, out)
	}
	for part, want := range results {
		_, text, ran := strings.Cut(string(out), "PART "+part+"\n")
		if !ran {
			continue
		}
		text, _, _ = strings.Cut(text, "\nPART ")
		for _, re := range want {
			if !regexp.MustCompile(re).MatchString(text) {
				t.Errorf("part %s does not print %q:\n%s", part, re, text)
			}
		}
	}
}

// prologue is the user's shell: a part that fails leaves no loop device and no machine behind.
const prologue = `set -euEo pipefail
trap 'losetup -d "${one:-}" "${two:-}" 2>/dev/null' ERR
qemu-system-x86_64() { timeout -k 5 20m "$(type -P qemu-system-x86_64)" "$@"; }
export HOME='%s'
cd '%s'
`

// results are the expected output of the commands of a part, as regular expressions.
var results = map[string][]string{
	"1": {`(?m)^slot B +good +1 try left +next`, "no state store is configured"},
	"2": {`(?m)^ORDER=B A$`, `(?m)^slot B +trying .*running`, `(?m)^slot B +good .*running, next`},
	"3": {`(?m)^exit 10$`, `(?m)^exit 3$`, `(?m)^exit 12$`, "slot A boots next"},
	"4": {"slot B boots next", `(?m)^slot A +good .*running, next`},
	"5": {`(?m)^exit 10$`, `(?m)^slot B +bad`, "slot B boots next"},
	"6": {`(?m)boots next, with 1 try`, `(?m)^slot [AB] +good .*next`},
	"7": {"2 records, all signed and in one chain"},
}

// commands are those of the parts that can run here, each behind a line that names it.
func commands(t *testing.T, page string) string {
	t.Helper()
	var script strings.Builder
	parts := strings.Split(page, "\n## ")[1:]
	if len(parts) < 8 {
		t.Fatalf("docs/tutorial.md has %d parts", len(parts))
	}
	for _, part := range parts {
		number, _, _ := strings.Cut(part, ".")
		switch {
		case number == "6" && !withQEMU:
			t.Log("NOT TESTED: part 6 without the build tag vm")
			continue
		case number == "7" && os.Getuid() != 0:
			t.Log("NOT TESTED: part 7 without root")
			continue
		}
		for i, c := range docs.Parse("tutorial.md", []byte(part)).Code {
			if i == 0 {
				script.WriteString("echo PART " + number + "\n")
			}
			if c.Info == "sh" {
				script.WriteString(c.Text)
			}
		}
	}
	return script.String()
}
