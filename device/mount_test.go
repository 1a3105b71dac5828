package device

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"updater/blockdev"
	"updater/boot"
	"updater/boot/grub"
	"updater/device/config"
)

// shell runs scripts in a folder, and returns what they print.
func shell(t *testing.T, dir string) func(script string) string {
	return func(script string) string {
		t.Helper()
		cmd := exec.Command("bash", "-euc", script)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", script, err, out)
		}
		return string(out)
	}
}

// envDisk is a disk image whose boot state is a file on ext4, with its configuration.
func envDisk(t *testing.T) (dir string, sh func(script string) string) {
	t.Helper()
	for _, tool := range []string{"sgdisk", "mke2fs", "grub-editenv", "grub-fstest"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	dir = t.TempDir()
	sh = shell(t, dir)
	sh(`truncate -s 24M disk.img
		sgdisk -n1:2048:+8M -c1:bootenv -n2:0:+4M -c2:rootfs_a -n3:0:+4M -c3:rootfs_b disk.img >/dev/null
		mkdir e; grub-editenv e/grubenv create; grub-editenv e/grubenv set first=1 ORDER="A B" A_LEFT=g B_LEFT=g last=2; ln -s ../../../etc/hostname e/out
		truncate -s 8M ext4; mke2fs -q -t ext4 -d e ext4; dd if=ext4 of=disk.img bs=1M seek=1 conv=notrunc status=none`)
	return dir, sh
}

func envConfig(t *testing.T, dir, disk, env string) string {
	t.Helper()
	name := filepath.Join(dir, "config.toml")
	text := "product = \"x\"\nkeyring = [\"keys\"]\n[disk]\npath = \"" + disk + "\"\n[boot]\nbackend = \"grub\"\ndialect = \"tries\"\nenv = \"PARTLABEL=bootenv:" + env + "\"\ntries = 3\n"
	text += configTail
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// The boot state is a file on an ext4 partition that is not mounted: it is changed there, in its own block, GRUB's code
// sees the change without replaying the journal, reading writes nothing, and nothing stays mounted.
func TestStateOnUnmountedExt4(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir, sh := envDisk(t)
	out, err := exec.Command("losetup", "-f", "--show", filepath.Join(dir, "ext4")).Output()
	if err != nil {
		t.Skipf("no loop device: %v", err)
	}
	loop := strings.TrimSpace(string(out))
	t.Cleanup(func() { _ = exec.Command("losetup", "-d", loop).Run() })
	disk, err := blockdev.OpenDisk(filepath.Join(dir, "disk.img"))
	if err != nil {
		t.Fatal(err)
	}
	with := func(mode blockdev.Mode, file string, do func(b boot.Backend) error) error {
		t.Helper()
		d := &Device{disk: disk}
		area, path, err := d.unmounted(blockdev.Partition{Number: 1, Path: loop, Size: 8 << 20}, file, mode)
		if err == nil {
			var b boot.Backend
			if b, err = grub.New(grub.Options{Area: area, Slots: []string{"A", "B"}, Dialect: grub.Tries}, "A"); err == nil {
				err = do(boot.SyncFirst(b, d.syncFiles))
			}
			if path != filepath.Join(bootMounts, "env", file) || len(d.folders) != 1 {
				t.Errorf("the file is %q, to be synced are %q", path, d.folders)
			}
		}
		err = errors.Join(err, d.end())
		if mount, merr := blockdev.MountPoint(loop); merr != nil || mount != "" {
			t.Errorf("it is still mounted at %q (%v)", mount, merr)
		}
		return err
	}
	sum := func() string { return sh("sha256sum <ext4") }
	before := sum()
	if err := with(blockdev.ReadOnly, "grubenv", func(b boot.Backend) error {
		st, err := b.State(t.Context())
		if err == nil && st.Next != "A" {
			t.Errorf("State = %+v", st)
		}
		return err
	}); err != nil || sum() != before {
		t.Fatalf("reading = %v, or it wrote", err)
	}
	if err := with(blockdev.Shared, "grubenv", func(b boot.Backend) error { return b.Activate(t.Context(), "B", 3) }); err != nil {
		t.Fatal(err)
	}
	got := sh(`grub-fstest ext4 cat '(loop0)/grubenv' >env.cur; grub-editenv env.cur list`)
	for _, want := range []string{"ORDER=B A\n", "B_LEFT=3\n", "first=1\n", "last=2\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("GRUB reads no %q:\n%s", want, got)
		}
	}
	if err := with(blockdev.Shared, "none", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := with(blockdev.Shared, "out", nil); err == nil || !strings.Contains(err.Error(), "leads out of it") {
		t.Errorf("a link out of the file system: %v", err)
	}
	sh("e2fsck -fn ext4 >/dev/null")
}

// Where the kernel cannot mount it, the refusal has a next step, and nothing was written.
func TestStateOnExt4InAnImage(t *testing.T) {
	dir, sh := envDisk(t)
	before := sh("sha256sum <disk.img")
	c, err := LoadConfig(envConfig(t, dir, filepath.Join(dir, "disk.img"), "/grubenv"), config.Build{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = Open(c, Options{Purpose: Change, Booted: "A"}); !isRequest(err) || !strings.Contains(err.Error(), "put it on FAT, or attach the image with losetup -P") {
		t.Errorf("Open = %v", err)
	}
	if sh("sha256sum <disk.img") != before {
		t.Error("the image was changed")
	}
}

// A UBI volume is refused by name, with a next step.
func TestUBIVolume(t *testing.T) {
	for device, refused := range map[string]bool{"/dev/ubi0_1": true, "/dev/ubi0:env": true, "/dev/ubi0": false, "/dev/mtd1": false} {
		if got := ubiNode.MatchString(device); got != refused {
			t.Errorf("%s is a UBI volume: %v", device, got)
		}
	}
	_, err := new(Device).openEnvironment(config.Area{Device: "/dev/ubi0_1", Size: 0x4000}, blockdev.ReadOnly)
	if !isRequest(err) || !strings.Contains(err.Error(), "MTD partitions") {
		t.Errorf("openEnvironment = %v", err)
	}
}

func isRequest(err error) bool {
	_, ok := errors.AsType[*config.RequestError](err)
	return ok
}

const configTail = `
[[slot]]
name = "A"
partitions = { rootfs = "PARTLABEL=rootfs_a" }
[[slot]]
name = "B"
partitions = { rootfs = "PARTLABEL=rootfs_b" }
`

// Two roles share the mount of a partition that was not mounted; a file that does not fit leaves nothing behind, and nothing stays mounted.
func TestFilesOnUnmountedPartition(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir, _ := envDisk(t)
	out, err := exec.Command("losetup", "-f", "--show", filepath.Join(dir, "ext4")).Output()
	if err != nil {
		t.Skipf("no loop device: %v", err)
	}
	part := blockdev.Partition{Number: 1, Path: strings.TrimSpace(string(out)), Size: 8 << 20}
	t.Cleanup(func() { _ = exec.Command("losetup", "-d", part.Path).Run() })
	d := new(Device)
	open := func(mode blockdev.Mode) (*filesystem, func() error) {
		t.Helper()
		mount, release, err := d.mountShared(part, mode)
		if err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(mount)
		if err != nil {
			t.Fatal(err)
		}
		return &filesystem{root: root, dir: mount}, func() error { return errors.Join(root.Close(), release()) }
	}
	a, closeA := open(blockdev.Exclusive)
	b, closeB := open(blockdev.Exclusive)
	if err := errors.Join(a.reserve("EFI/a.new", 1<<20), b.reserve("b.new", 4096), b.confine("EFI/a.new")); err != nil {
		t.Fatal(err)
	}
	if err := b.reserve("c.new", 64<<20); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("reserve of more than there is = %v", err)
	}
	if info, err := b.root.Lstat("c.new"); err != nil || info.Size() != 0 {
		t.Errorf("c.new has %v bytes, %v", info.Size(), err)
	}
	if err := b.confine("out"); err == nil {
		t.Error("a link that leads out of the file system is no error")
	}
	if err := errors.Join(a.root.Rename("EFI/a.new", "EFI/a"), syncFS(a.name("EFI")), closeA(), closeB()); err != nil {
		t.Fatal(err)
	}
	if mounted, err := blockdev.MountPoint(part.Path); err != nil || mounted != "" {
		t.Errorf("mounted at %q, %v", mounted, err)
	}
	a, closeA = open(blockdev.ReadOnly)
	if info, err := a.root.Lstat("EFI/a"); err != nil || info.Size() != 1<<20 {
		t.Errorf("EFI/a: %v", err)
	}
	if err := a.reserve("d.new", 4096); err == nil {
		t.Error("a file system that was opened for reading was written")
	}
	if err := closeA(); err != nil {
		t.Fatal(err)
	}
}
