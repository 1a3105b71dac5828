package device

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"updater/device/config"
)

// GRUB replays no journal: a new file on a mounted ext4 that was written, fsynced and renamed is not visible to it
// until syncfs. GRUB's own file system code sees a file of createFile at once, as after a power cut.
func TestFilesAreThereForTheBootLoader(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	for _, tool := range []string{"mke2fs", "grub-fstest", "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	dir := t.TempDir()
	sh := shell(t, dir)
	sh(`mkdir src mnt; echo old >src/grubenv; truncate -s 16M fs.img; mke2fs -q -t ext4 -d src fs.img`)
	if out, err := exec.Command("mount", "-o", "loop", filepath.Join(dir, "fs.img"), filepath.Join(dir, "mnt")).CombinedOutput(); err != nil {
		t.Skipf("no loop mount: %s", out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", filepath.Join(dir, "mnt")).Run() })
	grub := func() string { // the block that GRUB would read if the power failed now
		return strings.TrimSpace(sh(`cp --sparse=always fs.img cut.img; grub-fstest cut.img cat '(loop0)/grubenv'`))
	}
	path := filepath.Join(dir, "mnt/grubenv")
	if err := createFile(path, []byte("new\n")); err != nil {
		t.Fatal(err)
	}
	if got := grub(); got != "new" {
		t.Errorf("GRUB reads %q; want the new file", got)
	}
	sh(`printf 'renamed\n' >mnt/tmp; sync -d mnt/tmp; mv mnt/tmp mnt/grubenv; sync mnt`) // fsync of the file and the folder
	if got := grub(); got == "renamed" {
		t.Log("this kernel shows GRUB a rename without syncfs")
	}
	d := &Device{session: session{folders: []string{filepath.Join(dir, "mnt")}}}
	if err := d.syncFiles(); err != nil {
		t.Fatal(err)
	}
	if got := grub(); got != "renamed" {
		t.Errorf("after syncFiles GRUB reads %q; want the renamed file", got)
	}
}

// The write protection of an eMMC boot partition is lifted and put back; other paths have none.
func TestEMMCBootPartition(t *testing.T) {
	sys := t.TempDir()
	knob := filepath.Join(sys, "class/block/mmcblk0boot1/force_ro")
	if err := os.MkdirAll(filepath.Dir(knob), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(knob, []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	is := func(want string) {
		t.Helper()
		if got, err := os.ReadFile(knob); err != nil || string(got) != want {
			t.Errorf("force_ro is %q, %v; want %q", got, err, want)
		}
	}
	if _, err := allowWrites(sys, "/dev/mmcblk0p1"); err != nil {
		t.Error(err)
	}
	is("1\n")
	restore, err := allowWrites(sys, "/dev/mmcblk0boot1")
	if err != nil {
		t.Fatal(err)
	}
	is("0")
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	is("1\n")
	if _, err := allowWrites(sys, "/dev/mmcblk1boot0"); err == nil {
		t.Error("a write protection that cannot be lifted is no error")
	}
}

// Every configuration that is shipped as an example is understood, and there is one for every boot loader.
func TestExampleConfigurations(t *testing.T) {
	paths, err := filepath.Glob("../examples/boot/*/config.toml")
	if err != nil || len(paths) != len(backends) {
		t.Errorf("%d examples, %v; want one for each of %v", len(paths), err, Backends())
	}
	for _, path := range paths {
		c, err := LoadConfig(path, config.Build{})
		if err != nil {
			t.Error(err)
			continue
		}
		if c.Boot.Backend != filepath.Base(filepath.Dir(path)) {
			t.Errorf("%s is for %s", path, c.Boot.Backend)
		}
	}
}
