//go:build vm

package boards

import (
	"path/filepath"
	"testing"

	"updater/internal/qemu"
)

// arm64 boots the board: U-Boot of Debian's package u-boot-qemu, from the disk.
func (b *board) arm64(t *testing.T, args ...string) *qemu.Machine {
	t.Helper()
	return b.start(t, qemu.Config{
		Name: "arm64", Arch: "aarch64", Firmware: "/usr/lib/u-boot/qemu_arm64/u-boot.bin", Disks: []qemu.Disk{{Path: filepath.Join(b.dir, "disk.img")}}, Args: args,
	})
}

// TestArm64: release 1 follows the channel to release 2 by the delta; release 3 does not come up, twice, and the board is back at release 2, which
// the recovery replaces by release 4 from a stick.
func TestArm64(t *testing.T) {
	b := newBoard(t, "qemu-arm64")

	m := b.arm64(t)
	expect(t, m, `BOARD: U-Boot boots slot A, tries left: A 2, B 0`, `slot A is good`, `BOARD: slot A runs boot 1, rootfs 1`, `installed version 2 into slot B`)
	restarts(t, m)
	if whole, delta := b.fetched(`^/2/.*\.zst$`), b.fetched(`^/2/.*\.delta$`); whole > 64<<10 || delta == 0 {
		t.Errorf("fetched %d bytes of the images and %d of the deltas; want the deltas", whole, delta)
	}

	m = b.arm64(t)
	expect(t, m, `BOARD: U-Boot boots slot B, tries left: A 3, B 1`, `slot B is good`, `BOARD: slot B runs boot 2, rootfs 2`, `nothing to do|nothing for this device`)
	b.wantReports(t, report{"good", "A", "1"}, report{"good", "B", "2"})

	b.run(t, b.script, b.dir, "publish", "3")
	expect(t, m, `installed version 3 into slot A`)
	restarts(t, m)
	for _, left := range []string{"1", "0"} {
		m = b.arm64(t)
		expect(t, m, `BOARD: U-Boot boots slot A, tries left: A `+left+`, B 3`, `Kernel panic`)
		restarts(t, m)
	}
	m = b.arm64(t)
	expect(t, m, `BOARD: U-Boot boots slot B, tries left: A 0, B 2`, `BOARD: slot B runs boot 2, rootfs 2`, `failed here`)
	b.wantReports(t, report{"good", "A", "1"}, report{"good", "B", "2"}, report{"fell-back", "A", "3"})

	if err := m.Type("updater recover --reboot\n"); err != nil {
		t.Fatal(err)
	}
	restarts(t, m)
	m = b.arm64(t, "-device", "qemu-xhci", "-drive", "if=none,id=stick,format=raw,readonly=on,file="+filepath.Join(b.dir, "stick.img"), "-device", "usb-storage,drive=stick")
	expect(t, m, `BOARD: U-Boot boots the recovery`, `initramfs is up after`, `installed version 4 into slot A`)
	restarts(t, m)
	m = b.arm64(t)
	expect(t, m, `BOARD: U-Boot boots slot A, tries left: A 1, B 2`, `slot A is good`, `BOARD: slot A runs boot 4, rootfs 4`)
}
