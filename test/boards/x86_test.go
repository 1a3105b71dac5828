//go:build vm && boards

package boards

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"updater/internal/qemu"
)

// x86Drop are files of the root file system of every version: the channel is asked right after the boot instead of minutes later, and the units
// write to the console.
var x86Drop = map[string]string{
	"updater-update.timer.d":   "[Timer]\nOnBootSec=\nOnBootSec=1s\nRandomizedDelaySec=0\n",
	"updater-update.service.d": "[Service]\nStandardOutput=journal+console\nStandardError=journal+console\n",
	"updater-mark-good.service.d": "[Service]\nStandardOutput=journal+console\nStandardError=journal+console\nExecStartPost=/usr/bin/updater status\n" +
		"ExecStartPost=-/bin/sh -c \"dmesg | grep secureboot:\"\n",
}

// x86Panic is a release that does not come up: its first process ends, and the kernel panics.
var x86Panic = map[string]string{"usr/lib/systemd/systemd": "#!/bin/sh\necho THIS RELEASE DOES NOT COME UP\nexit 1\n"}

// x86Board is a board whose script makes one version at a time.
type x86Board struct {
	*board
	t      *testing.T
	secure bool
	lose   string // shell commands that leave no slot bootable on the disk $1
}

// newX86 prepares a folder for a board and serves it.
func newX86(t *testing.T, name, lose string, env ...string) *x86Board {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mmdebstrap and mke2fs -d need root")
	}
	if err := qemu.Available(); err != nil {
		t.Skip(err)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	base := os.Getenv("UPDATER_VM_DIR") // keeps the unpacked Debian between runs
	if base == "" {
		base = t.TempDir()
	}
	dir := filepath.Join(base, "boards", t.Name())
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	made, address := serve(t, name, dir, dir)
	args := "ARGS=mitigations=off cryptomgr.notests no_timer_check" // without KVM half a minute less, and no panic if the host is late
	made.env = append(os.Environ(), "OUT="+dir, "CHANNEL="+address+"/channel.toml", args)
	made.env = append(made.env, env...)
	b := &x86Board{board: made, t: t, lose: lose}
	b.sh("make", "-s", "-C", root, "build")
	return b
}

func (b *x86Board) sh(name string, args ...string) {
	b.t.Helper()
	b.run(b.t, name, args...)
}

// build makes a version, with further files of its root file system, and publishes it.
func (b *x86Board) build(version int, files map[string]string) {
	b.t.Helper()
	start, overlay := time.Now(), filepath.Join(b.dir, "overlay")
	put := func(name, text string) {
		name = filepath.Join(overlay, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			b.t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := os.RemoveAll(overlay); err != nil {
		b.t.Fatal(err)
	}
	for name, text := range x86Drop {
		put("etc/systemd/system/"+name+"/test.conf", text)
	}
	for name, text := range files {
		put(name, text)
	}
	b.sh("env", "OVERLAY="+overlay, b.script, fmt.Sprint(version))
	b.t.Logf("built version %d in %.0f s", version, time.Since(start).Seconds())
}

// boot starts the device, with a stick if one is named, and expects these lines of its console in this order.
func (b *x86Board) boot(stick string, patterns ...string) *qemu.Machine {
	b.t.Helper()
	log, err := os.OpenFile(filepath.Join(b.dir, "console.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		b.t.Fatal(err)
	}
	disks := []qemu.Disk{{Path: filepath.Join(b.dir, "disk.img")}}
	if stick != "" {
		disks = append(disks, qemu.Disk{Path: stick, ReadOnly: true})
	}
	m := b.start(b.t, qemu.Config{
		Name: filepath.Base(b.dir), MemMiB: 1024, Disks: disks, OVMFVars: filepath.Join(b.dir, "vars.fd"), Secure: b.secure, Log: log, Timeout: 25 * time.Minute,
	})
	start := time.Now()
	for _, p := range patterns {
		match, err := m.Expect(p)
		if err != nil {
			b.t.Fatal(err)
		}
		b.t.Logf("%6.1f s  %s", time.Since(start).Seconds(), match[0])
	}
	return m
}

// restarts is boot for a device that restarts by itself afterwards.
func (b *x86Board) restarts(stick string, patterns ...string) {
	b.t.Helper()
	restarts(b.t, b.boot(stick, patterns...))
}

// up is boot of a slot that was good before and stays so; then the power fails.
func (b *x86Board) up(slot string, patterns ...string) {
	b.t.Helper()
	b.boot("", append([]string{fmt.Sprintf("running slot %s, boots next slot %[1]s", slot)}, patterns...)...).PowerCut()
}

// stick makes a stick with the release of a version.
func (b *x86Board) stick(version int) string {
	b.t.Helper()
	path := filepath.Join(b.dir, "stick.img")
	b.sh("bash", "-euc", `rm -f "$1"; truncate -s 384M "$1"; mkfs.vfat -F 32 "$1" >/dev/null; mmd -i "$1" ::/updater
		mcopy -i "$1" "$2"/release.toml* "$2"/*.bmap "$2"/*.zst ::/updater`, "stick", path, fmt.Sprint(version))
	return path
}

// life is an update over HTTP, a release that does not come up, and the recovery from a stick.
func (b *x86Board) life() {
	b.build(1, nil)
	b.build(2, nil)
	b.restarts("", `running slot A, boots next slot A`, `slot B boots next`)
	b.build(3, x86Panic)
	b.restarts("", `running slot B, boots next slot B`, `slot A boots next, with 3 tries`)
	for range 3 {
		b.restarts("", `THIS RELEASE DOES NOT COME UP`)
	}
	b.up("B", `failed here`)
	b.sh("bash", "-euc", b.lose, "lose", "disk.img")
	b.restarts(b.stick(2), `no slot boots next`, `slot [AB] boots next`)
	b.up("[AB]")
}

// TestX86Grub: GRUB, with kernel and initramfs in the slot.
func TestX86Grub(t *testing.T) {
	newX86(t, "x86-grub", `mcopy -n -i "$1@@1M" ::/grub/grubenv grubenv; grub-editenv grubenv set A_LEFT=0 B_LEFT=0; mcopy -o -i "$1@@1M" grubenv ::/grub`).life()
}

// TestX86SystemdBoot: systemd-boot, with a unified kernel image for each slot on the ESP.
func TestX86SystemdBoot(t *testing.T) {
	newX86(t, "x86-systemd-boot", `mdel -i "$1@@1M" '::/EFI/Linux/updater-*'`).life()
}

// TestX86SecureBoot: firmware in setup mode enrols the keys of the product at the first boot. Then signed images start; if one was changed on the
// ESP, the good slot starts instead.
func TestX86SecureBoot(t *testing.T) {
	for _, tool := range []string{"sbsign", "sign-efi-sig-list"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("packages sbsigntool and efitools: ", err)
		}
	}
	b := newX86(t, "x86-systemd-boot", "", "SECURE_BOOT=1")
	b.secure = true
	b.build(1, nil)
	b.restarts("", `Enrolling secure boot keys`)
	b.build(2, nil)
	b.restarts("", `running slot A, boots next slot A`, `Secure boot enabled`, `slot B boots next, with 3 tries`)
	b.sh("bash", "-euc", `name=$(mdir -b -i "$1@@1M" ::/EFI/Linux | grep -- -B+3); mcopy -n -i "$1@@1M" "$name" changed.efi
		echo changed | dd of=changed.efi bs=1 seek=9M conv=notrunc status=none; mcopy -o -i "$1@@1M" changed.efi "$name"`, "change", "disk.img")
	// The firmware starts the loader a second time before it waits at its menu, which a watchdog would end.
	b.boot("", `updater-2-B\+2-1.efi: Access Denied`, `updater-2-B\+1-2.efi: Access Denied`, `No bootable option`).PowerCut()
	b.boot("", `updater-2-B\+0-3.efi: Access Denied`, `running slot A, boots next slot A`, `failed here`).PowerCut()
}
