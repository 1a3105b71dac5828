//go:build vm

package recovery

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"updater/internal/qemu"
)

// medium makes an image of a file system with the files of an update, by the tools of the host: in the folder updater/, or
// at the top of one with the label UPDATER.
func (h *helper) medium(t *testing.T, kind string, files map[string]string) string {
	t.Helper()
	path, dir := filepath.Join(h.dir, kind), filepath.Join(h.dir, kind+".files")
	top := dir
	if kind == "ext4" {
		top = filepath.Join(dir, "updater")
	}
	if err := os.MkdirAll(top, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, from := range files {
		put(t, filepath.Join(top, name), read(t, from))
	}
	switch kind {
	case "ext4":
		run(t, "mke2fs", "-q", "-t", "ext4", "-d", dir, path, "48M")
	case "iso9660":
		run(t, "xorriso", "-as", "mkisofs", "-quiet", "-r", "-V", "UPDATER", "-o", path, dir)
	case "exfat":
		put(t, path, nil)
		if err := os.Truncate(path, 48<<20); err != nil {
			t.Fatal(err)
		}
		run(t, "mkfs.exfat", "-L", "UPDATER", path)
		mount := filepath.Join(h.dir, "mount")
		if err := os.Mkdir(mount, 0o755); err != nil {
			t.Fatal(err)
		}
		loop := strings.TrimSpace(run(t, "losetup", "-f", "--show", path)) // FUSE mounts no file
		done := false
		t.Cleanup(func() {
			if !done { // after that it may belong to another process
				_ = exec.Command("umount", mount).Run()
				_ = exec.Command("losetup", "-d", loop).Run()
			}
		})
		run(t, "mount.exfat-fuse", loop, mount)
		for name, from := range files {
			run(t, "cp", from, filepath.Join(mount, name))
		}
		run(t, "umount", mount)
		run(t, "losetup", "-d", loop)
		done = true
	}
	return path
}

// A device whose clock says 1970 installs an update from media of every file system. An update below the floor is refused
// with a message, from every one of them.
func TestRecoveryMedia(t *testing.T) {
	h := newHelper(t, anyDisk+"\n[release]\nrollback_index = 5\n", allSets)
	old := h.update(t, h.image(t, "old", 4, 11), "--rollback-index", "4")
	good := h.image(t, "good", 4, 12)
	media := []string{"exfat", "ext4", "iso9660"}
	if _, err := exec.LookPath("mount.exfat-fuse"); err != nil || os.Getuid() != 0 {
		t.Log("SKIPPED exfat: it takes package exfat-fuse, and root")
		media = media[1:]
	}
	disk := h.disk(t, "device", "ORDER=", "A_OK=0", "B_OK=0")
	m := h.start(t, qemu.Config{
		Name: "media", Append: "updater.mode=recover", Disks: []qemu.Disk{{Path: disk}}, Args: []string{"-device", "qemu-xhci", "-rtc", "base=1970-01-02"},
	})
	expect(t, m, `no slot is bootable`, `7  power off`)
	for _, kind := range media {
		files, want := old, `error: installing the update on .*rollback index is 4; this device takes none below 5`
		if kind == "iso9660" {
			files, want = h.update(t, good, "--rollback-index", "6"), `installed .* into slot A`
		}
		if err := m.PlugUSB(kind[:4], h.medium(t, kind, files)); err != nil {
			t.Fatal(err)
		}
		expect(t, m, want)
		if kind == "iso9660" {
			break
		}
		expect(t, m, `7  power off`)
		if err := m.Unplug(kind[:4]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
	}
	ends(t, m, qemu.Reset)
	wantSlot(t, disk, "A", good)
}
