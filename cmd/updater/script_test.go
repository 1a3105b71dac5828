package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"updater/internal/rig"
)

// The scripts run the real main on disk image files, once for each boot loader. The fixtures are made once
// with the real tools (sgdisk, mkfs.vfat, grub-editenv, mkenvimage, gpg) and copied for every script.

func TestMain(m *testing.M) {
	testscript.Main(rig.Cleanly(m), map[string]func(){"updater": func() {
		if at := os.Getenv("TEST_BUILD_TIME"); at != "" { // only of this test binary: the linker stamps it into a real one
			stampTime = at
		}
		main()
	}})
}

func TestScripts(t *testing.T) {
	for _, tool := range []string{"sgdisk", "mkfs.vfat", "mcopy", "grub-editenv", "mkenvimage", "fw_printenv", "gpg", "zstd", "xz", "gzip", "lz4", "bzip2"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	fixtures := makeFixtures(t)
	for _, backend := range []string{"grub", "uboot"} {
		t.Run(backend, func(t *testing.T) {
			testscript.Run(t, testscript.Params{
				Dir:   "testdata/script",
				Setup: func(env *testscript.Env) error { return setup(env, fixtures, backend) },
				Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
					"choice":   func(ts *testscript.TestScript, _ bool, args []string) { checkChoice(ts, backend, args[0]) },
					"variable": func(ts *testscript.TestScript, _ bool, args []string) { checkVariable(ts, backend, args[0], args[1]) },
					"slot-is":  checkSlot,
					"pristine": checkPristine,
					"damage":   damage,
					"exits":    exits,
				},
				Condition: func(cond string) (bool, error) {
					return cond == backend || cond == "version-0.1" && version01(t, fixtures), nil
				},
			})
		})
	}
}

// TestBlockDevice installs on a real block device: exclusive open, BLKZEROOUT, O_DIRECT, partitions through
// their own nodes where the kernel makes them.
func TestBlockDevice(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	for _, tool := range []string{"losetup", "sgdisk", "mkfs.vfat", "mcopy", "grub-editenv", "mkenvimage", "gpg"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	fixtures := makeFixtures(t)
	for backend, disk := range map[string]string{"grub": "grub.img", "uboot": "uboot.img"} {
		t.Run(backend, func(t *testing.T) {
			node, err := exec.Command("losetup", "--direct-io=on", "-P", "-f", "--show", filepath.Join(fixtures, disk)).Output()
			if err != nil {
				t.Skipf("no loop device: %v", err)
			}
			loop := strings.TrimSpace(string(node))
			t.Cleanup(func() { _ = exec.Command("losetup", "-d", loop).Run() })
			config := filepath.Join(fixtures, backend+".toml")
			if err := os.WriteFile(config, []byte(strings.Replace(rig.Configs[backend], "disk.img", loop, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			var out, errs bytes.Buffer
			code := Run(t.Context(), []string{"install", "--config", config, filepath.Join(fixtures, "image.img")}, Env{Stdout: &out, Stderr: &errs})
			if code != ExitDone || !strings.Contains(out.String(), "slot B boots next") {
				t.Fatalf("install: exit %d: %s%s", code, out.String(), errs.String())
			}
			out.Reset()
			if code := Run(t.Context(), []string{"status", "--json", "--config", config}, Env{Stdout: &out, Stderr: &errs}); code != ExitDone || !strings.Contains(out.String(), `"primary":"B"`) {
				t.Fatalf("status: exit %d: %s%s", code, out.String(), errs.String())
			}
			t.Log(out.String())
			got := make([]byte, rig.SlotBytes)
			f, err := os.Open(filepath.Join(fixtures, disk))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.ReadAt(got, rig.SlotOffset(backend, "B")); err != nil {
				t.Fatal(err)
			}
			image, err := os.ReadFile(filepath.Join(fixtures, "image.img"))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got[:len(image)], image) {
				t.Error("the slot does not hold the image")
			}
		})
	}
}

// makeFixtures builds what every script finds in its folder.
func makeFixtures(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	rig.Fixtures(t, dir)
	return dir
}

func setup(env *testscript.Env, fixtures, backend string) error {
	cp := exec.Command("bash", "-euc", `cp -r --sparse=always image.img* big.img* clear.bmap other.sig other.asc image.sig keys data "$1"
		cp --sparse=always $2.img "$1/disk.img"; cp --sparse=always $2.img "$1/disk.orig"`, "setup", env.WorkDir, backend)
	cp.Dir = fixtures
	if out, err := cp.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	env.Setenv("GNUPGHOME", filepath.Join(fixtures, "gnupg"))
	env.Setenv("BACKEND", backend)
	env.Setenv("PATH", fixtures+string(os.PathListSeparator)+env.Getenv("PATH"))
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		return err
	}
	env.Setenv("EXAMPLES", examples)
	return os.WriteFile(filepath.Join(env.WorkDir, "config.toml"), []byte(rig.Configs[backend]), 0o600)
}

// version01 reports whether the fixtures have updater-0.1, the program of version 0.1. It builds it from the git history.
func version01(t *testing.T, fixtures string) bool {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	build := exec.Command("bash", "-euc", `mkdir version-0.1; set -o pipefail
		git -C "$0" archive cf6f3496dd04902ab6598295114ac3ffac08e565 | tar x -C version-0.1
		cd version-0.1; go build -o ../updater-0.1 ./cmd/updater`, root)
	build.Dir = fixtures
	out, err := build.CombinedOutput()
	if err != nil {
		t.Logf("building version 0.1: %v: %s", err, out)
	}
	return err == nil
}

// variables reads the boot state with the boot loader's own tool.
func variables(ts *testscript.TestScript, backend string) map[string]string {
	script := `at=disk.img@@1M; mcopy -n -o -i $at ::/grub/grubenv env.cur && grub-editenv env.cur list`
	if backend == "uboot" {
		script = `printf 'disk.img 0x100000 0x4000\ndisk.img 0x104000 0x4000\n' > fw.config; fw_printenv -c fw.config`
	}
	cmd := exec.Command("bash", "-euc", script)
	cmd.Dir = ts.Getenv("WORK")
	out, err := cmd.Output()
	ts.Check(err)
	vars := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			vars[k] = v
		}
	}
	return vars
}

// checkChoice asserts which slot the boot loader's script would boot next.
func checkChoice(ts *testscript.TestScript, backend, want string) {
	vars := variables(ts, backend)
	order, bootable := vars["ORDER"], func(s string) bool { return vars[s+"_OK"] == "1" && vars[s+"_TRY"] == "0" }
	if backend == "uboot" {
		order, bootable = vars["BOOT_ORDER"], func(s string) bool { v := vars["BOOT_"+s+"_LEFT"]; return v != "" && v != "0" }
	}
	for s := range strings.FieldsSeq(order) {
		if bootable(s) {
			if s != want {
				ts.Fatalf("the boot loader chooses slot %s, want %s: %v", s, want, vars)
			}
			return
		}
	}
	ts.Fatalf("the boot loader finds no slot, want %s: %v", want, vars)
}

func checkVariable(ts *testscript.TestScript, backend, name, want string) {
	if got := variables(ts, backend)[name]; got != want {
		ts.Fatalf("%s is %q, want %q", name, got, want)
	}
}

// checkSlot asserts what a slot holds: "slot-is B image.img" the image with its holes as zeros, and its own
// old bytes after the image's end; "slot-is A" its old content.
func checkSlot(ts *testscript.TestScript, _ bool, args []string) {
	off := rig.SlotOffset(ts.Getenv("BACKEND"), args[0])
	disk, err := os.ReadFile(ts.MkAbs("disk.img"))
	ts.Check(err)
	got, want := disk[off:off+rig.SlotBytes], bytes.Repeat([]byte(args[0]+"\n"), rig.SlotBytes/2)
	if len(args) == 2 {
		image, err := os.ReadFile(ts.MkAbs(args[1]))
		ts.Check(err)
		copy(want, image)
	}
	for i := range want {
		if got[i] != want[i] {
			ts.Fatalf("slot %s differs from what is expected at byte %d: %#x, want %#x", args[0], i, got[i], want[i])
		}
	}
}

// checkPristine asserts that no byte of the disk has changed.
func checkPristine(ts *testscript.TestScript, _ bool, _ []string) {
	got, err := os.ReadFile(ts.MkAbs("disk.img"))
	ts.Check(err)
	want, err := os.ReadFile(ts.MkAbs("disk.orig"))
	ts.Check(err)
	if !bytes.Equal(got, want) {
		ts.Fatalf("the disk has changed")
	}
}

// damage flips one byte of a file: "damage FILE OFFSET".
func damage(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	data, err := os.ReadFile(path)
	ts.Check(err)
	var off int
	_, err = fmt.Sscan(args[1], &off)
	ts.Check(err)
	data[off] ^= 0x40
	ts.Check(os.WriteFile(path, data, 0o600))
}

// exits runs a command that must end with an exit code: "exits 10 updater install ...".
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, got := args[0], "0"
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = strconv.Itoa(exit.ExitCode())
	}
	if got != want {
		ts.Fatalf("exit %s, want %s", got, want)
	}
}
