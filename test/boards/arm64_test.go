//go:build vm

package boards

import (
	"path/filepath"
	"strings"
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
	good := func(slot, version string) report { return report{"QEMU-0001", "good", slot, version} }

	m := b.arm64(t)
	expect(t, m, `BOARD: U-Boot boots slot A, tries left: A 2, B 0`, `slot A is good`, `BOARD: slot A runs boot 1, rootfs 1`, `installed version 2 into slot B`)
	restarts(t, m)
	if whole, delta := b.fetched(`^/2/.*\.zst$`), b.fetched(`^/2/.*\.delta$`); whole > 1<<20 || delta == 0 {
		t.Errorf("fetched %d bytes of the images and %d of the deltas; want the deltas", whole, delta)
	}

	m = b.arm64(t)
	expect(t, m, `BOARD: U-Boot boots slot B, tries left: A 3, B 1`, `slot B is good`, `BOARD: slot B runs boot 2, rootfs 2`, `nothing to do: channel`)
	b.wantReports(t, good("A", "1"), good("B", "2"))

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
	b.wantReports(t, good("A", "1"), good("B", "2"), report{"QEMU-0001", "fell-back", "A", "3"})

	if err := m.Type("updater recover --reboot\n"); err != nil {
		t.Fatal(err)
	}
	restarts(t, m)
	m = b.arm64(t, "-device", "qemu-xhci", "-drive", "if=none,id=stick,format=raw,readonly=on,file="+filepath.Join(b.dir, "stick.img"), "-device", "usb-storage,drive=stick")
	expect(t, m, `BOARD: U-Boot boots the recovery`, `initramfs is up after`, `installed version 4 into slot A`)
	restarts(t, m)
	m = b.arm64(t)
	expect(t, m, `BOARD: U-Boot boots slot A, tries left: A 1, B 2`, `slot A is good`, `BOARD: slot A runs boot 4, rootfs 4`)
	m.PowerCut()

	// A damaged copy of the environment is skipped, and written again by the next boot; without any copy the recovery boots.
	for _, step := range []struct{ spoil, want string }{
		{"env1", `BOARD: U-Boot boots slot [AB]`}, // the other copy may be older by one change
		{"env2", `BOARD: U-Boot boots slot [AB]`},
		{"env1 env2", `BOARD: U-Boot boots the recovery`},
	} {
		for part := range strings.FieldsSeq(step.spoil) {
			b.spoil(t, part)
		}
		m = b.arm64(t)
		expect(t, m, step.want)
		m.PowerCut()
	}
}

// spoil overwrites bytes at the start of a partition.
func (b *board) spoil(t *testing.T, part string) {
	t.Helper()
	b.run(t, "bash", "-euc", `start=$(sfdisk -d "$0" | sed -n "s/.*start= *\([0-9]*\),.*name=\"$1\".*/\1/p")
		echo spoiled | dd of="$0" bs=512 seek=$start conv=notrunc status=none`, filepath.Join(b.dir, "disk.img"), part)
}
