package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// GRUB replays no journal: a new file on a mounted ext4 that was written, fsynced and renamed is not there for
// it until syncfs. What createFile makes is seen by GRUB's own file system code at once, as after a power cut.
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
	grub := func() string { // what GRUB would read if the power failed now
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
	d := &device{folders: []string{filepath.Join(dir, "mnt")}}
	if err := d.syncFiles(); err != nil {
		t.Fatal(err)
	}
	if got := grub(); got != "renamed" {
		t.Errorf("after syncFiles GRUB reads %q; want the renamed file", got)
	}
}
