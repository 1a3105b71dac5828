//go:build vm

package loaders

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"updater/blockdev"
	"updater/boot"
	"updater/boot/boottest"
	"updater/boot/grub"
)

// grubRig is a disk with an ESP, an ext4 partition, and the environment block on one of them.
type grubRig struct {
	dir, disk string
	ext4      bool
	dialect   grub.Dialect
}

const grubModules = "part_gpt fat ext2 normal configfile loadenv test echo search search_label regexp halt reboot"

func newGrub(t *testing.T, dialect grub.Dialect, ext4 bool) *grubRig {
	t.Helper()
	need(t, qemu, ovmfCode, "grub-mkimage", "grub-editenv", "grub-fstest", "mcopy", "mkfs.vfat", "mke2fs", "debugfs", "sgdisk", "/usr/lib/grub/x86_64-efi/loadenv.mod")
	r := &grubRig{dir: t.TempDir(), ext4: ext4, dialect: dialect}
	r.disk = filepath.Join(r.dir, "disk.img")
	vars, file := `ORDER="A B" A_OK=1 A_TRY=0 B_OK=1 B_TRY=0`, "($esp)/grub/grubenv"
	if dialect == grub.Tries {
		vars = `ORDER="A B" A_LEFT=g B_LEFT=g`
	}
	if ext4 {
		file = "(hd0,gpt2)/grubenv"
	}
	cfg := "search --no-floppy --set=esp --label ESP\nset env=\"" + file + "\"\nsource ($esp)/grub/" + string(dialect) + ".cfg\necho \"CHOICE $slot.\"\nhalt\n"
	must(t, os.WriteFile(filepath.Join(r.dir, "grub.cfg"), []byte(cfg), 0o600))
	must(t, os.WriteFile(filepath.Join(r.dir, "choice.cfg"), []byte(example(t, "grub/"+string(dialect)+".cfg")), 0o600))
	sh(t, r.dir, fmt.Sprintf(`truncate -s 48M disk.img
		sgdisk -n1:2048:+33M -t1:ef00 -c1:esp -n2:0:+8M -c2:bootenv disk.img >/dev/null
		grub-editenv grubenv create; grub-editenv grubenv set first=1 %s last=2
		printf 'search --no-floppy --set=root --label ESP\nset prefix=($root)/grub\nconfigfile $prefix/grub.cfg\n' >early.cfg
		grub-mkimage -O x86_64-efi -p /grub -c early.cfg -o BOOTX64.EFI %s
		truncate -s 33M esp; mkfs.vfat -F 32 -n ESP esp >/dev/null
		mmd -i esp ::/EFI ::/EFI/BOOT ::/grub
		mcopy -i esp BOOTX64.EFI ::/EFI/BOOT/; mcopy -i esp grub.cfg grubenv ::/grub/; mcopy -i esp choice.cfg ::/grub/%s.cfg
		dd if=esp of=disk.img bs=1M seek=1 conv=notrunc status=none
		mkdir e; cp grubenv e/; truncate -s 8M ext4; mke2fs -q -t ext4 -d e ext4
		dd if=ext4 of=disk.img bs=1M seek=34 conv=notrunc status=none`, vars, grubModules, dialect))
	return r
}

// area is the environment block in the disk image.
func (r *grubRig) area(t *testing.T) boot.Area {
	t.Helper()
	if r.ext4 {
		block, err := strconv.ParseInt(strings.TrimSpace(sh(t, r.dir, `debugfs -R "blocks /grubenv" ext4 2>/dev/null`)), 10, 64)
		must(t, err)
		size, err := strconv.ParseInt(strings.TrimSpace(sh(t, r.dir, `dumpe2fs -h ext4 2>/dev/null | sed -n 's/^Block size: *//p'`)), 10, 64)
		must(t, err)
		f, err := os.OpenFile(r.disk, os.O_RDWR, 0)
		must(t, err)
		t.Cleanup(func() { f.Close() })
		return &boottest.FileArea{F: f, Off: 34<<20 + block*size, Len: 1024}
	}
	d, err := blockdev.OpenDisk(r.disk)
	must(t, err)
	t.Cleanup(func() { d.Close() })
	p, err := d.Find("PARTLABEL=esp")
	must(t, err)
	a, err := p.OpenFATFile("/grub/grubenv", blockdev.Shared)
	must(t, err)
	t.Cleanup(func() { a.Close() })
	return a
}

// as calls a function with the backend, and closes the disk again.
func (r *grubRig) as(t *testing.T, booted string, do func(b boot.Backend) error) {
	t.Helper()
	t.Run("as "+booted, func(t *testing.T) {
		b, err := grub.New(grub.Options{Area: r.area(t), Slots: []string{"A", "B"}, Dialect: r.dialect}, booted)
		must(t, err)
		must(t, do(b))
		st, err := b.State(t.Context())
		must(t, err)
		r.tool(t, st)
	})
}

// tool reads the block with GRUB's own file system code and grub-editenv: its order begins with the slot that State
// reports as next.
func (r *grubRig) tool(t *testing.T, st boot.State) {
	t.Helper()
	file := "(loop0,gpt1)/grub/grubenv"
	if r.ext4 {
		file = "(loop0,gpt2)/grubenv"
	}
	list := sh(t, r.dir, `grub-fstest disk.img cat '`+file+`' >env.cur; grub-editenv env.cur list`)
	for _, want := range []string{"first=1\n", "last=2\n", "ORDER=" + st.Boots[0]} {
		if !strings.Contains(list, want) {
			t.Errorf("GRUB reads no %q:\n%s", want, list)
		}
	}
}

func (r *grubRig) boot(t *testing.T, want string, disk ...string) {
	t.Helper()
	if got := boots(t, `CHOICE (\w*)\.`, append(efiArgs(t, filepath.Join(r.dir, "vars.fd")), disk...)...); got[1] != want {
		t.Errorf("GRUB chose %q; want %s", got[1], want)
	}
}

// TestGrubTries: install, try, fall back after N tries, mark good; a good boot writes nothing.
func TestGrubTries(t *testing.T) {
	for name, ext4 := range map[string]bool{"FAT": false, "ext4": true} {
		t.Run(name, func(t *testing.T) {
			r := newGrub(t, grub.Tries, ext4)
			before, err := os.ReadFile(r.disk)
			must(t, err)
			r.boot(t, "A", disk(r.disk)...)
			if after, err := os.ReadFile(r.disk); err != nil || !slices.Equal(before, after) {
				t.Errorf("a good boot wrote to the disk (%v)", err)
			}
			r.as(t, "A", func(b boot.Backend) error { return b.Invalidate(t.Context(), "B") })
			r.as(t, "A", func(b boot.Backend) error {
				if err := b.Activate(t.Context(), "B", 2); err != nil {
					return err
				}
				check(t, b, "activated", "B B A")
				return nil
			})
			for _, want := range []string{"B", "B", "A"} {
				r.boot(t, want, disk(r.disk)...)
			}
			r.as(t, "A", func(b boot.Backend) error { return b.Activate(t.Context(), "B", 2) })
			r.boot(t, "B", disk(r.disk)...)
			r.as(t, "B", func(b boot.Backend) error { return b.MarkGood(t.Context(), "B") })
			r.boot(t, "B", disk(r.disk)...)
		})
	}
}

func TestGrubRAUC(t *testing.T) {
	r := newGrub(t, grub.RAUC, false)
	r.boot(t, "A", disk(r.disk)...)
	r.as(t, "A", func(b boot.Backend) error { return b.MarkGood(t.Context(), "A") })
	r.as(t, "A", func(b boot.Backend) error { return b.Invalidate(t.Context(), "B") })
	r.as(t, "A", func(b boot.Backend) error { return b.Activate(t.Context(), "B", 1) })
	for _, want := range []string{"B", "A", ""} { // then all tries are restored
		r.boot(t, want, disk(r.disk)...)
	}
	r.boot(t, "B", disk(r.disk)...)
	r.as(t, "B", func(b boot.Backend) error { return b.MarkGood(t.Context(), "B") })
}

// TestGrubExample runs the example configuration up to the kernel and its command line; a function replaces GRUB's linux
// command.
func TestGrubExample(t *testing.T) {
	r := newGrub(t, grub.Tries, false)
	cfg := "function linux {\n  echo \"CHOICE $*.\"\n  halt\n}\n" + example(t, "grub/grub.cfg")
	must(t, os.WriteFile(filepath.Join(r.dir, "whole.cfg"), []byte(cfg), 0o600))
	sh(t, r.dir, `mcopy -o -i disk.img@@1M whole.cfg ::/grub/grub.cfg`)
	boot1 := func(want string) {
		t.Helper()
		if got := boots(t, `CHOICE (.*)\.`, append(efiArgs(t, filepath.Join(r.dir, "vars.fd")), disk(r.disk)...)...); got[1] != want {
			t.Errorf("GRUB starts %q; want %q", got[1], want)
		}
	}
	boot1("(hd0,gpt2)/boot/vmlinuz updater.slot=A root=PARTLABEL=rootfs_a ro panic=10")
	r.as(t, "A", func(b boot.Backend) error { return b.Activate(t.Context(), "B", 2) })
	r.as(t, "A", func(b boot.Backend) error { return boot.RequestRecovery(t.Context(), b) })
	boot1("(hd0,gpt1)/recovery/vmlinuz updater.mode=recover panic=10")
	boot1("(hd0,gpt3)/boot/vmlinuz updater.slot=B root=PARTLABEL=rootfs_b ro panic=10")
}

// TestGrubPowerCuts cuts the power during an install, GRUB's own save_env and mark-good: after every sector one block is
// valid, and it boots a complete slot.
func TestGrubPowerCuts(t *testing.T) {
	r := newGrub(t, grub.Tries, false)
	states := 0
	whole := func(when string, may ...string) func(int) {
		return func(n int) {
			states++
			data := []byte(sh(t, r.dir, `mcopy -n -o -i disk.img@@1M ::/grub/grubenv env.cut; cat env.cut`))
			b, err := grub.New(grub.Options{Area: boottest.NewMedium(data).Areas()[0], Slots: []string{"A", "B"}, Dialect: r.dialect}, "")
			must(t, err)
			st, err := b.State(t.Context())
			if err != nil || !slices.Contains(may, st.Next) {
				t.Fatalf("%s, cut after sector %d: %+v, %v; want one of %v", when, n, st, err, may)
			}
			run(t, r.dir, "grub-editenv", "env.cut", "list")
		}
	}
	r.as(t, "A", func(b boot.Backend) error { return b.Invalidate(t.Context(), "B") })
	whole("invalidated", "A")(0)
	r.as(t, "A", func(b boot.Backend) error { return b.Activate(t.Context(), "B", 1) })
	base, log := r.disk+".base", newLog(t, filepath.Join(r.dir, "log"))
	copyFile(t, r.disk, base)
	r.boot(t, "B", recorded("virtio-blk-pci", r.disk, log)...)
	copyFile(t, base, r.disk)
	n := replay(t, r.disk, log, whole("GRUB's save_env", "A", "B"))
	if n == 0 {
		t.Error("GRUB wrote nothing")
	}
	r.as(t, "B", func(b boot.Backend) error { return b.MarkGood(t.Context(), "B") })
	whole("marked good", "B")(0)
	t.Logf("GRUB wrote %d sectors; %d states", n, states)
}
