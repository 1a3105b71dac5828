// Package arch holds tests of the shape of the tree: which package may import which.
package arch

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// allowed are the packages of ours that a package may import. A package that is not listed is not checked.
var allowed = map[string][]string{
	"updater/bmap":            {},
	"updater/verify":          {},
	"updater/blockdev":        {},
	"updater/source":          {"updater/pack"},
	"updater/pack":            {},
	"updater/state":           {},
	"updater/boot":            {},
	"updater/boot/scheme":     {"updater/boot"},
	"updater/boot/grub":       {"updater/boot", "updater/boot/scheme"},
	"updater/boot/uboot":      {"updater/boot", "updater/boot/scheme"},
	"updater/initramfs":       {},
	"updater/initramfs/build": {"updater/initramfs"},
	"updater/update":          {"updater/bmap", "updater/verify"},
	"updater/provision":       {"updater/bmap", "updater/update", "updater/verify"},
}

// hostOnly must not be linked into the device's binary: the packing side, the tests, and whatever would run
// another program.
var hostOnly = []string{"updater/initramfs/build", "updater/internal/", "github.com/u-root/u-root", "testing", "os/exec"}

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,Deps"}, args...)...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var p pkg
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	return pkgs
}

func TestImportsPointDown(t *testing.T) {
	seen := 0
	for _, p := range list(t, "updater/...") {
		may, checked := allowed[p.ImportPath]
		if !checked {
			continue
		}
		seen++
		for _, imp := range p.Imports {
			if strings.HasPrefix(imp, "updater/") && !slices.Contains(may, imp) {
				t.Errorf("%s imports %s; it may import %v", p.ImportPath, imp, may)
			}
		}
	}
	if seen != len(allowed) {
		t.Errorf("%d of %d packages were found", seen, len(allowed))
	}
}

func TestDeviceBinary(t *testing.T) {
	for _, p := range list(t, "updater/cmd/updater") {
		for _, dep := range p.Deps {
			for _, no := range hostOnly {
				if dep == no || strings.HasPrefix(dep, no+"/") || strings.HasSuffix(no, "/") && strings.HasPrefix(dep, no) {
					t.Errorf("%s is linked into the device's binary", dep)
				}
			}
		}
	}
}
