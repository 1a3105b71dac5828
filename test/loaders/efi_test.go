//go:build vm

package loaders

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"updater/blockdev"
	"updater/internal/abdisk"
)

// bootmgr is efibootmgr with its libraries for the guest.
const bootmgr = `mkdir -p root; cp "$(command -v efibootmgr)" root/efibootmgr
ldd root/efibootmgr | grep -o '/[^ ]*' | while read -r lib; do mkdir -p "root$(dirname "$lib")"; cp -L "$lib" "root$lib"; done
`

// bootManager is a disk with a program for each slot, and OVMF that starts them.
type bootManager struct {
	dir    string
	kernel abdisk.Kernel
	esp    string          // its GUID
	flash  func() []string // QEMU's arguments of the firmware and its variables
}

func newBootManager(t *testing.T) *bootManager {
	t.Helper()
	need(t, qemu, ovmfCode, "efibootmgr", "grub-mkimage", "mcopy", "mkfs.vfat", "sgdisk", "cpio")
	kernel, err := (&abdisk.Builder{Dir: workDir(t), Log: t.Output()}).Kernel(t.Context())
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
	defer d.Close()
	p, err := d.Find("PARTLABEL=esp")
	must(t, err)
	m := &bootManager{dir: dir, kernel: kernel, esp: p.UUID}
	m.flash = func() []string { return efiArgs(t, m.vars()) }
	return m
}

func (m *bootManager) vars() string { return filepath.Join(m.dir, "vars.fd") }

func (m *bootManager) args() []string {
	return append(m.flash(), disk(filepath.Join(m.dir, "disk.img"))...)
}

// linux runs operations in a guest, each with the output that State and efibootmgr must have afterwards.
func (m *bootManager) linux(t *testing.T, booted string, plan ...[2]string) {
	t.Helper()
	text := "esp 2048 " + sh(t, m.dir, "echo $((43 * 2048))") + " " + m.esp
	text = strings.Join(strings.Fields(text), " ") + "\nbooted " + booted + "\n"
	for _, step := range plan {
		text += step[0] + "\n"
	}
	must(t, os.WriteFile(filepath.Join(m.dir, "root/plan"), []byte(text), 0o600))
	sh(t, m.dir, `cd root; find . | cpio -o -H newc --quiet >../initrd`)
	lines, err := m.boot(t)
	if errors.Is(err, context.DeadlineExceeded) {
		t.Logf("%v; once more; its console:\n%s", err, strings.Join(lines, "\n"))
		lines, err = m.boot(t)
	}
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

// boot boots the guest. After an error the firmware's variables are those from before.
func (m *bootManager) boot(t *testing.T) (lines []string, err error) {
	t.Helper()
	before := filepath.Join(m.dir, "before.fd")
	args := append(m.args(), "-kernel", m.kernel.Image, "-initrd", filepath.Join(m.dir, "initrd"), "-append", "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check")
	copyFile(t, m.vars(), before)
	if _, lines, err = bootOnce(t.Context(), regexp.MustCompile(`PROBE done`), args); err != nil {
		copyFile(t, before, m.vars())
	}
	return lines, err
}

// choose boots the firmware, which must start one of the slots.
func (m *bootManager) choose(t *testing.T, want ...string) {
	t.Helper()
	if got := boots(t, `CHOICE (\w*)\.`, m.args()...); !slices.Contains(want, got[1]) {
		t.Errorf("the firmware started %q; want %s", got[1], want)
	}
}

// TestBootManager: BootNext is tried once, then BootOrder; mark-good puts the booted slot first. Linux in a guest sets the
// variables, and efibootmgr agrees after every operation.
func TestBootManager(t *testing.T) {
	m := newBootManager(t)
	m.linux(t, "A", [2]string{"repair", "A A A / A"}, [2]string{"invalidate B", "A A A / A"}, [2]string{"activate B", "B A A / B A"})
	m.choose(t, "B") // BootNext, consumed
	m.choose(t, "A") // BootOrder
	m.linux(t, "A", [2]string{"activate B", "B A A / B A"})
	m.choose(t, "B")
	m.linux(t, "B", [2]string{"good B", "B B B / B A"}, [2]string{"good B", "B B B / B A"})
	m.choose(t, "B")
	m.linux(t, "B", [2]string{"bad A", "B B B / B"})
	m.choose(t, "B")
}
