package grub

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"updater/boot/boottest"
)

// rauc are the variables of two slots.
var rauc = []string{"A_OK", "A_TRY", "B_OK", "B_TRY"}

// spans reports whether a name or value has a newline, which makes the output of grub-editenv ambiguous.
func spans(data []byte) bool {
	for line := range bytes.Lines(bytes.TrimRight(data, "#")) {
		if bytes.HasSuffix(line, []byte("\\\n")) || line[0] != '#' && !bytes.Contains(line, []byte("=")) {
			return true
		}
	}
	return false
}

// list returns the last value of each variable that grub-editenv lists.
func list(t *testing.T, path string) map[string]string {
	t.Helper()
	out, err := exec.Command("grub-editenv", path, "list").Output()
	if err != nil {
		t.Fatalf("grub-editenv: %v", err)
	}
	vars := map[string]string{}
	for line := range strings.SplitSeq(strings.TrimSuffix(string(out), "\n"), "\n") {
		name, value, _ := strings.Cut(line, "=")
		vars[name] = value
	}
	return vars
}

// Every generated block is refused, or has the value of each variable that grub-editenv lists, as load_env does. A variable
// is refused if and only if grub-editenv, which saves as save_env does, cannot change what it lists.
func TestReadsAsGrubEditenv(t *testing.T) {
	if _, err := exec.LookPath("grub-editenv"); err != nil {
		t.Skip("grub-editenv is not installed (Debian: grub-common)")
	}
	rng, path := rand.New(rand.NewPCG(19, 3)), filepath.Join(t.TempDir(), "grubenv")
	read, refused := 0, 0
	for n := range boottest.Rounds(t, 60) {
		data := boottest.GrubBlock(rng, rauc)
		if spans(data) {
			continue
		}
		write := func() {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write()
		b, err := parseBlock(data)
		if err != nil {
			refused++
			if err := exec.Command("grub-editenv", path, "set", "ORDER=new").Run(); err == nil {
				if list(t, path)["ORDER"] == "new" {
					t.Errorf("block %d: %q is refused, but grub-editenv can change it", n, data)
				}
			}
			continue
		}
		vars := list(t, path)
		for _, name := range append([]string{"ORDER"}, rauc...) {
			if got := b.get(name); got != vars[name] {
				t.Errorf("block %d: %s is %q in %q; grub-editenv lists %q", n, name, got, b.lines, vars[name])
			}
			write()
			err := exec.Command("grub-editenv", path, "set", name+"=new").Run()
			after := list(t, path)
			if can, ok := err == nil && after[name] == "new", b.check(name) == nil; can != ok {
				t.Errorf("block %d: %s in %q: grub-editenv can change it: %v; the updater accepts it: %v", n, name, b.lines, can, ok)
			}
			if b.check(name) == nil {
				read++
			} else {
				refused++
			}
		}
	}
	t.Logf("%d variables read, %d refused", read, refused)
}

// grub-editenv lists every change afterwards, and a change of grub-editenv is read.
func TestChangesAsGrubEditenv(t *testing.T) {
	if _, err := exec.LookPath("grub-editenv"); err != nil {
		t.Skip("grub-editenv is not installed (Debian: grub-common)")
	}
	rng, path := rand.New(rand.NewPCG(19, 4)), filepath.Join(t.TempDir(), "grubenv")
	changed := 0
	for n := range boottest.Rounds(t, 60) {
		data := boottest.GrubBlock(rng, rauc)
		if spans(data) {
			continue
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := New(Options{Area: boottest.OpenFileArea(t, path), Slots: []string{"A", "B"}}, "A")
		if err != nil {
			t.Fatal(err)
		}
		if b.Activate(t.Context(), "B", 1) != nil {
			if b.Repair(t.Context()) != nil || b.Activate(t.Context(), "B", 1) != nil {
				t.Errorf("block %d: neither understood nor repaired", n)
				continue
			}
		}
		changed++
		if vars := list(t, path); !strings.HasPrefix(vars["ORDER"], "B") || vars["B_OK"] != "1" || vars["B_TRY"] != "0" {
			t.Errorf("block %d: %q: after Activate grub-editenv lists %q", n, data, vars)
		}
		if err := b.MarkBad(t.Context(), "B"); err != nil {
			continue // the last bootable slot
		}
		if vars := list(t, path); strings.Contains(vars["ORDER"], "B") || vars["B_OK"] != "0" {
			t.Errorf("block %d: after MarkBad grub-editenv lists %q", n, vars)
		}
		if out, err := exec.Command("grub-editenv", path, "set", "ORDER=B A", "B_OK=1", "B_TRY=0").CombinedOutput(); err != nil {
			t.Fatalf("grub-editenv: %v: %s", err, out)
		}
		if st, err := b.State(t.Context()); err != nil || st.Next != "B" {
			t.Errorf("block %d: after grub-editenv State = %+v, %v; want B", n, st, err)
		}
	}
	t.Logf("%d blocks changed", changed)
}
