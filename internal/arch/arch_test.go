// Package arch holds tests of the shape of the tree: which package may import which.
package arch

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// allowed lists the packages of this module that a package may import: the arrows of docs/design.md. Every package of the device is listed.
var allowed = map[string][]string{
	"updater/cmd/updater": {
		"updater/install", "updater/fleet", "updater/recovery", "updater/device", "updater/device/config", "updater/device/doctor",
		"updater/device/health", "updater/update", "updater/release", "updater/bmap", "updater/verify", "updater/source", "updater/pack", "updater/delta",
		"updater/device/survey",
		"updater/initramfs", "updater/provision/board", "updater/provision/identity", "updater/provision/keys", "updater/provision/line", "updater/provision/medium",
		"updater/provision/plan", "updater/provision/record", "updater/provision/station",
		"updater/recovery/web", "updater/service", "updater/internal/atomicfile", "updater/internal/broadcast", "updater/internal/printable",
		"updater/internal/terminal", "updater/internal/progress",
	},
	"updater/install": {
		"updater/device", "updater/device/config", "updater/update", "updater/release", "updater/bmap", "updater/verify", "updater/source", "updater/pack",
		"updater/delta", "updater/blockdev", "updater/state", "updater/initramfs", "updater/internal/atomicfile", "updater/internal/program",
	},
	"updater/fleet": {
		"updater/install", "updater/device", "updater/device/config", "updater/update", "updater/release", "updater/source", "updater/state",
		"updater/bmap", "updater/internal/httpd",
	},
	"updater/recovery": {"updater/state", "updater/install", "updater/device", "updater/device/config", "updater/update", "updater/initramfs", "updater/initramfs/network"},
	"updater/service": {
		"updater/fleet", "updater/install", "updater/device", "updater/device/config", "updater/update", "updater/internal/broadcast",
	},
	"updater/recovery/web":   {"updater/initramfs", "updater/internal/broadcast", "updater/internal/httpd"},
	"updater/internal/httpd": {},
	"updater/device": {
		"updater/device/config", "updater/update", "updater/release", "updater/verify", "updater/blockdev", "updater/state",
		"updater/internal/atomicfile", "updater/boot", "updater/boot/android", "updater/boot/barebox", "updater/boot/custom", "updater/boot/efi", "updater/boot/gpt",
		"updater/boot/grub", "updater/boot/mtd", "updater/boot/tryboot", "updater/boot/sdboot", "updater/boot/uboot",
	},
	"updater/device/config": {"updater/release", "updater/update", "updater/verify", "updater/initramfs", "updater/initramfs/network"},
	"updater/device/doctor": {
		"updater/device", "updater/device/config", "updater/blockdev", "updater/boot", "updater/boot/efi", "updater/state", "updater/verify",
	},
	"updater/device/survey":       {"updater/blockdev", "updater/blockdev/fat", "updater/boot/barebox", "updater/boot/grub", "updater/boot/uboot", "updater/device", "updater/device/config"},
	"updater/device/health":       {"updater/device/config", "updater/internal/program"},
	"updater/internal/atomicfile": {},
	"updater/release":             {"updater/bmap", "updater/verify"},
	"updater/blockdev/gpt":        {},
	"updater/blockdev/mbr":        {},
	"updater/blockdev/fat":        {},
	"updater/bmap":                {},
	"updater/verify":              {},
	"updater/blockdev":            {"updater/blockdev/gpt", "updater/blockdev/mbr", "updater/blockdev/fat", "updater/internal/filelock"},
	"updater/source":              {"updater/pack"},
	"updater/pack":                {},
	"updater/delta":               {"updater/pack"},
	"updater/state":               {},
	"updater/boot":                {},
	"updater/boot/scheme":         {"updater/boot"},
	"updater/boot/grub":           {"updater/boot", "updater/boot/scheme"},
	"updater/boot/uboot":          {"updater/boot", "updater/boot/scheme"},
	"updater/boot/gpt":            {"updater/boot", "updater/boot/scheme", "updater/blockdev/gpt"},
	"updater/boot/android":        {"updater/boot", "updater/boot/scheme"},
	"updater/boot/barebox":        {"updater/boot", "updater/boot/scheme"},
	"updater/boot/efi":            {"updater/boot"},
	"updater/boot/mtd":            {},
	"updater/boot/sdboot":         {"updater/boot"},
	"updater/boot/tryboot":        {"updater/boot"},
	"updater/boot/custom":         {"updater/boot", "updater/internal/program"},
	"updater/internal/broadcast":  {},
	"updater/internal/program":    {},
	"updater/internal/printable":  {},
	"updater/internal/terminal":   {"updater/internal/printable"},
	"updater/internal/progress":   {"updater/device", "updater/update", "updater/internal/printable", "updater/internal/terminal"},
	"updater/initramfs":           {"updater/internal/printable", "updater/internal/terminal"},
	"updater/initramfs/network":   {},
	"updater/initramfs/build":     {"updater/initramfs"},
	"updater/update":              {"updater/bmap", "updater/release", "updater/verify"},
	"updater/internal/filelock":   {},
	"updater/provision/board":     {"updater/provision/record", "updater/internal/printable", "updater/internal/terminal"},
	"updater/provision/fan":       {"updater/bmap", "updater/update"},
	"updater/provision/fat":       {"updater/blockdev/fat"},
	"updater/provision/identity": {
		"updater/internal/atomicfile", "updater/internal/filelock", "updater/provision/fat", "updater/provision/keys", "updater/provision/plan",
		"updater/source",
	},
	"updater/provision/keys": {},
	"updater/provision/line": {
		"updater/provision/board", "updater/provision/fan", "updater/provision/identity", "updater/provision/medium", "updater/provision/plan",
		"updater/provision/record", "updater/provision/target", "updater/internal/program",
	},
	"updater/provision/medium": {
		"updater/bmap", "updater/update", "updater/provision/fan", "updater/provision/fat", "updater/provision/plan", "updater/provision/record",
		"updater/provision/target",
	},
	"updater/provision/plan":   {},
	"updater/provision/record": {"updater/internal/atomicfile", "updater/internal/filelock", "updater/provision/keys", "updater/verify"},
	"updater/provision/station": {
		"updater/blockdev", "updater/device", "updater/device/config", "updater/initramfs", "updater/install", "updater/release", "updater/source",
		"updater/state", "updater/update", "updater/verify", "updater/provision/board", "updater/provision/identity", "updater/provision/keys", "updater/provision/line",
		"updater/provision/medium", "updater/provision/plan", "updater/provision/record", "updater/provision/target", "updater/internal/program",
	},
	"updater/provision/target": {"updater/blockdev/gpt", "updater/blockdev/mbr", "updater/provision/plan", "updater/provision/record"},
}

// hostOnly must not be linked into the device's binary: packing, tests, and packages that run
// other programs.
var hostOnly = []string{
	"updater/initramfs/build", "updater/internal/abdisk", "updater/internal/terminal/terminaltest", "updater/internal/crashdisk", "updater/internal/qemu", "updater/internal/docs",
	"updater/provision/provisiontest", "updater/test", "updater/bench", "github.com/u-root/u-root", "testing", "os/exec",
}

type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	Deps       []string
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,GoFiles,Imports,Deps"}, args...)...).Output()
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
	onDevice := list(t, "updater/cmd/updater")[0].Deps
	seen := 0
	for _, p := range list(t, "updater/...") {
		may, checked := allowed[p.ImportPath]
		if !checked {
			if slices.Contains(onDevice, p.ImportPath) {
				t.Errorf("%s is in the device's binary, but its arrows are not listed", p.ImportPath)
			}
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

// onDevice are the exceptions from hostOnly.
var onDevice = []string{"github.com/u-root/u-root/pkg/efivarfs"}

func TestDeviceBinary(t *testing.T) {
	for _, p := range list(t, "updater/cmd/updater") {
		for _, dep := range p.Deps {
			if slices.Contains(onDevice, dep) {
				continue
			}
			for _, no := range hostOnly {
				if dep == no || strings.HasPrefix(dep, no+"/") || strings.HasSuffix(no, "/") && strings.HasPrefix(dep, no) {
					t.Errorf("%s is linked into the device's binary", dep)
				}
			}
		}
	}
}

// starters are the only packages of the device's binary that may start a program, and which.
var starters = map[string]string{
	"updater/internal/program": "programs that an integrator has configured: boot loader commands, hooks, health checks",
	"updater/initramfs":        "this program itself, under supervision",
}

// TestStartersOfPrograms finds calls that start programs without os/exec.
func TestStartersOfPrograms(t *testing.T) {
	starts := map[string]bool{}
	for _, p := range list(t, "-deps", "updater/cmd/updater") {
		if !strings.HasPrefix(p.ImportPath, "updater/") {
			continue
		}
		for _, name := range p.GoFiles {
			src, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			for _, call := range []string{"StartProcess", "ForkExec", "syscall.Exec(", "unix.Exec(", "SYS_EXECVE", "SYS_CLONE"} {
				if bytes.Contains(src, []byte(call)) {
					starts[p.ImportPath] = true
				}
			}
		}
	}
	for p := range starts {
		if starters[p] == "" {
			t.Errorf("%s starts programs; only %v may", p, slices.Sorted(maps.Keys(starters)))
		}
	}
	if !starts["updater/internal/program"] {
		t.Error("the search for calls that start programs finds none")
	}
}
