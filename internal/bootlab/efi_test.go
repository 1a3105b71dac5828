//go:build vm

package bootlab

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"updater/blockdev"
	"updater/internal/lab"
)

// bootmgr is efibootmgr with its libraries for the guest.
const bootmgr = `mkdir -p root; cp "$(command -v efibootmgr)" root/efibootmgr
ldd root/efibootmgr | grep -o '/[^ ]*' | while read -r lib; do mkdir -p "root$(dirname "$lib")"; cp -L "$lib" "root$lib"; done
`

// BootNext is tried once, BootOrder follows; mark-good puts the booted slot first. The variables are set by
// Linux in a guest, and efibootmgr agrees after every operation.
func TestBootManager(t *testing.T) {
	need(t, qemu, ovmfCode, "efibootmgr", "grub-mkimage", "mcopy", "mkfs.vfat", "sgdisk", "cpio")
	kernel, err := (&lab.Lab{Dir: labDir(t), Log: t.Output()}).Kernel(t.Context())
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	sh(t, dir, payload+`truncate -s 45M disk.img; sgdisk -n1:2048:+43M -t1:ef00 -c1:esp disk.img >/dev/null
		truncate -s 43M esp; mkfs.vfat -F 32 esp >/dev/null
		mmd -i esp ::/EFI ::/EFI/slots; mcopy -i esp A.efi B.efi ::/EFI/slots/
		dd if=esp of=disk.img bs=1M seek=1 conv=notrunc status=none
		`+bootmgr)
	must(t, os.MkdirAll(filepath.Join(dir, "root"), 0o755))
	run(t, "", "go", "build", "-ldflags=-s -w", "-o", filepath.Join(dir, "root/init"), "./efiprobe")
	copyFile(t, filepath.Join(kernel.ModulesDir(), "kernel/fs/efivarfs/efivarfs.ko"), filepath.Join(dir, "root/efivarfs.ko"))
	d, err := blockdev.OpenDisk(filepath.Join(dir, "disk.img"))
	must(t, err)
	p, err := d.Find("PARTLABEL=esp")
	must(t, err)
	d.Close()
	efi := func() []string {
		return append(efiArgs(t, filepath.Join(dir, "vars.fd")), disk(filepath.Join(dir, "disk.img"))...)
	}
	// linux does operations in a guest: each with what State and efibootmgr must say then.
	linux := func(booted string, plan ...[2]string) {
		t.Helper()
		text := "esp 2048 " + sh(t, dir, "echo $((43 * 2048))") + " " + p.UUID
		text = strings.Join(strings.Fields(text), " ") + "\nbooted " + booted + "\n"
		for _, step := range plan {
			text += step[0] + "\n"
		}
		must(t, os.WriteFile(filepath.Join(dir, "root/plan"), []byte(text), 0o600))
		sh(t, dir, `cd root; find . | cpio -o -H newc --quiet >../initrd`)
		args := append(efi(), "-kernel", kernel.Image, "-initrd", filepath.Join(dir, "initrd"), "-append", "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check")
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		_, lines, err := bootOnce(ctx, regexp.MustCompile(`PROBE done`), args)
		console := strings.Join(lines, "\n")
		if err != nil {
			t.Fatalf("%v; console:\n%s", err, console)
		}
		for _, step := range plan {
			boots, tool, _ := strings.Cut(step[1], " / ")
			for _, want := range []string{"PROBE " + step[0] + ": " + boots, "TOOL " + step[0] + ": " + tool} {
				if !strings.Contains(console, want+"\n") {
					t.Errorf("no line %q on the console:\n%s", want, console)
				}
			}
		}
	}
	choose := func(want string) {
		t.Helper()
		if got := boots(t, `CHOICE (\w*)\.`, efi()...); got[1] != want {
			t.Errorf("the firmware started %q; want %s", got[1], want)
		}
	}
	linux("A", [2]string{"repair", "A A A / A"}, [2]string{"invalidate B", "A A A / A"}, [2]string{"activate B", "B A A / B A"})
	choose("B") // BootNext, consumed
	choose("A") // BootOrder
	linux("A", [2]string{"activate B", "B A A / B A"})
	choose("B")
	linux("B", [2]string{"good B", "B B B / B A"}, [2]string{"good B", "B B B / B A"})
	choose("B")
	linux("B", [2]string{"bad A", "B B B / B"})
	choose("B")
}
