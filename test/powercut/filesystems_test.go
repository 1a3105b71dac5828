//go:build vm

package powercut

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"updater/internal/crashdisk"
	"updater/internal/crashdisk/nbd"
	"updater/internal/qemu"
	"updater/state"
)

// The boot state in files of Linux's own file systems: the writes of vfat and ext4 are recorded, and every state that a power cut may leave is
// read by the loader's rule, as it is and after fsck. The state store is a file on another file system of the same kind. A superblock of
// ext4 does not survive a torn write, so its sectors are as large as its blocks; those of vfat have 512 bytes.

// The disk of a case: boot partition, slots of 1 MiB, data partition. Offsets in bytes.
const (
	bootAt, bootSize = 1 << 20, 8 << 20
	fileSlots        = bootAt + bootSize
	dataAt, dataSize = fileSlots + 2<<20, 8 << 20
)

type fileCase struct {
	loader     *loader
	fileSystem string
	config     string // of the boot loader
	path       string // of the only file that counts, "" when all do
	disk       *crashdisk.Disk
}

func fileCases() []*fileCase {
	const grub = `backend = "grub"` + "\n" + `env = "PARTLABEL=boot:/grub/grubenv"`
	return []*fileCase{
		{loader: grubLoader(), fileSystem: "vfat", config: grub, path: "grub/grubenv"},
		{loader: grubLoader(), fileSystem: "ext4", config: grub, path: "grub/grubenv"},
		{loader: sdbootLoader(), fileSystem: "vfat", config: `backend = "systemd-boot"` + "\n" + `esp = "PARTLABEL=boot"`},
	}
}

// files are those of the boot partition before the first install.
func (c *fileCase) files() map[string]string {
	state := c.loader.fresh()[0]
	if c.path != "" {
		return map[string]string{c.path: string(state)}
	}
	files, _ := unpackCells(state)
	return files
}

// chain returns the slots that the loader boots with these files, in turn.
func (c *fileCase) chain(files map[string]string) []string {
	last := c.loader.areas[len(c.loader.areas)-1]
	disk := make([]byte, last.off+last.size)
	if c.path != "" {
		copy(disk, files[c.path])
	} else {
		maps.DeleteFunc(files, func(name string, _ string) bool { return !strings.HasPrefix(name, "loader/") }) // fsck adds files
		copy(disk, packCells(files, nil))
	}
	return c.loader.chain(disk)
}

func tool(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return string(out), nil
}

// make builds the disk of the case, with the initial image in both slots.
func (c *fileCase) make(b *bench) error {
	dir := filepath.Join(b.dir, "made")
	for name, text := range c.files() {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700), os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)); err != nil {
			return err
		}
	}
	defer os.RemoveAll(dir)
	const script = `cd "$1"
		rm -f disk boot data
		truncate -s 20M disk
		truncate -s 8M boot data
		sgdisk -a 8 -n1:2048:+8M -t1:ef00 -c1:boot -n2:0:+1M -c2:rootfs_a -n3:0:+1M -c3:rootfs_b -n4:0:+8M -c4:data disk >/dev/null
		case $2 in
		ext4)
			mkfs.ext4 -q -b 4096 -E lazy_itable_init=0,lazy_journal_init=0 data
			mkfs.ext4 -q -b 4096 -E lazy_itable_init=0,lazy_journal_init=0 -d made boot ;;
		vfat)
			mkfs.vfat data >/dev/null
			mkfs.vfat boot >/dev/null
			mcopy -s -i boot made/* ::/
			mcopy -s -i data made/* ::/ ;; # mcopy finds no file on an empty one
		esac
		dd if=boot of=disk bs=1M seek=1 conv=notrunc status=none
		dd if=data of=disk bs=1M seek=11 conv=notrunc status=none`
	if _, err := tool("bash", "-euc", script, "sh", b.dir, c.fileSystem); err != nil {
		return err
	}
	disk, err := os.ReadFile(filepath.Join(b.dir, "disk"))
	if err != nil {
		return err
	}
	for off := int64(fileSlots); off < dataAt; off += 1 << 20 {
		copy(disk[off:], b.initial.data)
	}
	c.disk = crashdisk.New(disk, crashdisk.Options{Seed: 1, Sector: map[string]int64{"vfat": 512, "ext4": 4096}[c.fileSystem]})
	return nil
}

// read returns the files of a file system that can be read, without its journal. dir is for scratch.
func read(fileSystem, image, dir string) (map[string]string, error) {
	if fileSystem == "vfat" {
		return readFAT(image)
	}
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return nil, err
	}
	if _, err := tool("debugfs", "-R", "rdump / "+dir, image); err != nil {
		return nil, err
	}
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(name)
		files[strings.TrimPrefix(name, dir+"/")] = string(text)
		return err
	})
	return files, err
}

func readFAT(image string) (map[string]string, error) {
	list, err := tool("mdir", "-/", "-b", "-a", "-i", image, "::")
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for name := range strings.Lines(list) {
		name = strings.TrimSpace(name)
		if name == "" || strings.HasSuffix(name, "/") {
			continue
		}
		if text, err := exec.Command("mtype", "-i", image, name).Output(); err == nil {
			files[strings.TrimPrefix(name, "::/")] = string(text)
		}
	}
	return files, nil
}

// repair runs fsck; errors that it corrected are none.
func repair(fileSystem, image string) error {
	args := []string{"fsck.fat", "-a", image}
	if fileSystem == "ext4" {
		args = []string{"e2fsck", "-f", "-y", image}
	}
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() <= 1 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", args[0], err, out)
	}
	return nil
}

// check is the invariant on a disk after a power cut: the loader boots a whole image, before and after fsck, and the new one once the install
// had reported success; the state store can be read and records it.
func (c *fileCase) check(b *bench, dir string, s *crashdisk.State) error {
	image := filepath.Join(dir, "boot")
	if err := os.WriteFile(image, s.Image[bootAt:][:bootSize], 0o600); err != nil {
		return err
	}
	for _, step := range []func() error{func() error { return nil }, func() error { return repair(c.fileSystem, image) }} {
		if err := step(); err != nil {
			return err
		}
		files, err := read(c.fileSystem, image, filepath.Join(dir, "files"))
		if err != nil {
			return err
		}
		if err := c.bootable(b, s, files); err != nil {
			return fmt.Errorf("%w; files: %q", err, slices.Sorted(maps.Keys(files)))
		}
	}
	return c.remembered(dir, s)
}

func (c *fileCase) bootable(b *bench, s *crashdisk.State, files map[string]string) error {
	chain := c.chain(files)
	first := slices.IndexFunc(chain, func(slot string) bool { return slot != "" })
	if first < 0 {
		return errors.New("the boot loader finds no slot")
	}
	holds := func(slot string, img *image) bool {
		at := fileSlots + int64(slices.Index(slotNames, slot))<<20
		return bytes.Equal(s.Image[at:][:len(img.data)], img.data)
	}
	for _, slot := range chain[first:] {
		if slot != "" && !holds(slot, b.image) && !holds(slot, b.initial) {
			return fmt.Errorf("the boot loader tries %q; slot %s holds no complete image", chain, slot)
		}
	}
	if s.Has("install") && (chain[first] != "B" || !holds("B", b.image)) {
		return fmt.Errorf("the install succeeded, and the boot loader tries %q", chain)
	}
	return nil
}

func (c *fileCase) remembered(dir string, s *crashdisk.State) error {
	image := filepath.Join(dir, "data")
	if err := os.WriteFile(image, s.Image[dataAt:][:dataSize], 0o600); err != nil {
		return err
	}
	if err := repair(c.fileSystem, image); err != nil {
		return err
	}
	files, err := read(c.fileSystem, image, filepath.Join(dir, "files"))
	if err != nil {
		return err
	}
	text := files["state"]
	if text == "" && !s.Has("install") {
		return nil // the install makes it; vfat writes its name before its size
	}
	store, err := state.Open(medium(text), state.State{})
	if err != nil {
		return err
	}
	if s.Has("install") && (store.Lost() != "" || store.State().Slots["B"] == nil) {
		return fmt.Errorf("the install succeeded, and the state store does not know of it: %q, %v", store.Lost(), store.State().Slots)
	}
	return nil
}

// guest installs on each disk in turn, and marks the new slot good. The program of the initramfs is sealed with another configuration.
const guest = `#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sysfs /sys; $b mount -t devtmpfs dev /dev; $b mount -t tmpfs run /run; $b mount -t tmpfs tmp /tmp
for m in virtio_pci virtio_blk vfat nls_cp437 nls_iso8859-1 nls_ascii ext4; do $b modprobe $m; done
for disk in $($b cat /case/disks); do
	$b mkdir -p /data && $b mount /dev/${disk}4 /data
	/case/updater install --config /case/$disk.A /case/image
	echo "CASE $disk install: $?"
	$b sleep 1
	/case/updater mark good --config /case/$disk.B
	echo "CASE $disk mark good: $?"
	$b sleep 1
	$b umount /data
done
$b poweroff -f
`

// overlay is the initramfs with the script as its init.
func (m *machine) overlay(t *testing.T, cases []*fileCase) {
	t.Helper()
	root := filepath.Join(m.dir, "overlay")
	files := map[string]string{"init": guest}
	var disks []string
	for i, c := range cases {
		name := "vd" + string(rune('a'+i))
		disks = append(disks, name)
		for _, booted := range slotNames {
			boot := fmt.Sprintf("%s\nbooted = %q", c.config, booted)
			files["case/"+name+"."+booted] = "state = \"/data/state\"\n" + deviceConfig("/dev/"+name, "auto", "/etc/updater/keys", boot)
		}
	}
	files["case/disks"] = strings.Join(disks, " ")
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := tool("bash", "-euc", `mkdir -p "$1/bin"; cp /bin/busybox "$1/bin"; cp "$2/updater" "$1/case"; cp "$2"/image "$2"/image.bmap "$2"/image.bmap.sig "$1/case"
		truncate -s %4 "$3" # an archive behind another begins at a multiple of 4 bytes
		cd "$1"; find . | cpio --quiet -o -H newc -R 0:0 | cat "$3" - >"$2/overlay.cpio"`, "sh", root, m.dir, m.initramfs)
	if err != nil {
		t.Fatal(err)
	}
	m.initramfs = filepath.Join(m.dir, "overlay.cpio")
}

// record runs the machine on the disks of the cases.
func (m *machine) record(t *testing.T, cases []*fileCase) {
	t.Helper()
	var args []string
	for i, c := range cases {
		s, err := nbd.Serve(c.disk, filepath.Join(t.TempDir(), "s"), 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		args = append(args, "-blockdev", fmt.Sprintf("driver=nbd,node-name=d%d,discard=unmap,server.type=unix,server.path=%s", i, s.Path),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=d%d,write-cache=on,request-merging=off", i))
	}
	v, err := qemu.Start(t.Context(), qemu.Config{
		Name: "files", Kernel: m.kernel, Initrd: m.initramfs, Append: "console=ttyS0 panic=-1 quiet mitigations=off cryptomgr.notests", Args: args, Timeout: m.timeout,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.PowerCut)
	for i, c := range cases {
		for _, did := range []string{"install", "mark good"} {
			if _, err := v.Expect(fmt.Sprintf("CASE vd%c %s: 0$", 'a'+i, did)); err != nil {
				t.Fatal(err)
			}
			c.disk.Mark(did)
		}
	}
	if err := v.Wait(); err != nil {
		t.Fatal(err)
	}
}

// TestFileSystems installs and marks good in a machine, and reads its file systems as a power cut may leave them.
func TestFileSystems(t *testing.T) {
	for _, tool := range []string{"mkfs.ext4", "debugfs", "e2fsck", "fsck.fat", "mcopy", "cpio"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	m := newMachine(t, 1)
	cases := fileCases()
	for _, c := range cases {
		if err := c.make(m.bench); err != nil {
			t.Fatal(err)
		}
	}
	m.overlay(t, cases)
	m.record(t, cases)
	every := uint32(4) // fsck is slow: the short form checks only some states
	if scale("UPDATER_PROOF_VM", 1) > 1 {
		every = 1
	}
	for _, c := range cases {
		t.Run(c.loader.name+" on "+c.fileSystem, func(t *testing.T) {
			start, dir, states := time.Now(), t.TempDir(), 0
			_, err := c.disk.Crashes(crashdisk.Plan{Exhaustive: 1, Random: 1, Torn: 1, DropOne: 1}, func(s *crashdisk.State) error {
				if crc32.ChecksumIEEE(s.Image)%every != 0 {
					return nil
				}
				states++
				return c.check(m.bench, dir, s)
			})
			if err != nil {
				t.Fatal(err)
			}
			if states < 100 {
				t.Errorf("%d states; want at least 100", states)
			}
			count(t, "crash states of files, "+t.Name(), int64(states), start)
		})
	}
}
