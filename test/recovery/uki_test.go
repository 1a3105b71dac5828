//go:build vm

package recovery

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"updater/internal/qemu"
)

// TestRecoveryUKI: the firmware starts kernel, initramfs and command line as one EFI program from an ESP.
func TestRecoveryUKI(t *testing.T) {
	h := newHelper(t, anyDisk, allSets)
	uki, esp := filepath.Join(h.dir, "BOOTX64.EFI"), filepath.Join(h.dir, "esp.disk")
	run(t, "../../scripts/uki.sh", "amd64", h.kernel.Image, h.initramfs, "console=ttyS0 panic=10 updater.mode=status updater.on_done=poweroff", uki)
	run(t, "bash", "-euc", `truncate -s 128M "$1"; sgdisk -n1:2048:+120M -t1:ef00 "$1" >/dev/null
		truncate -s 120M "$1.fat"; mkfs.vfat -F 32 "$1.fat" >/dev/null; mmd -i "$1.fat" ::/EFI ::/EFI/BOOT; mcopy -i "$1.fat" "$2" ::/EFI/BOOT/
		dd if="$1.fat" of="$1" bs=1M seek=1 conv=notrunc status=none`, "esp", esp, uki)
	m, err := qemu.Start(context.WithoutCancel(t.Context()), qemu.Config{
		Name: "uki", Disks: []qemu.Disk{{Path: esp, ReadOnly: true}, {Path: h.disk(t, "device")}}, OVMFVars: filepath.Join(h.dir, "vars.fd"), Timeout: 6 * time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer m.PowerCut()
	expect(t, m, `boots next slot A`, `slot A +good`, `done after`)
	ends(t, m, qemu.PowerOff)
}
