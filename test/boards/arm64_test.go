//go:build vm

package boards

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"updater/boot"
	"updater/boot/boottest"
	"updater/boot/uboot"
	"updater/internal/qemu"
)

const uBoot = "/usr/lib/u-boot/qemu_arm64/u-boot.bin"

// arm64 boots the board: U-Boot of Debian's package u-boot-qemu, from the disk.
func (b *board) arm64(t *testing.T, args ...string) *qemu.Machine {
	t.Helper()
	return b.start(t, qemu.Config{
		Name: "arm64", Arch: "aarch64", Firmware: uBoot, Args: args,
		Disks: []qemu.Disk{{Path: filepath.Join(b.dir, "disk.img")}},
	})
}

// TestArm64: release 1 follows the channel to release 2 by the delta; release 3 does not come up, twice, and the board is back at release 2, which
// the recovery replaces with release 4 from a stick.
func TestArm64(t *testing.T) {
	b := newBoard(t, "qemu-arm64", "qemu-system-aarch64", uBoot, "apt-get", "mkimage")
	good := func(slot, version string) report { return report{"QEMU-0001", "good", slot, version} }

	m := b.arm64(t)
	expect(t, m, `BOARD: U-Boot boots slot A, tries left: A 2, B 0`, `slot A is good`, `BOARD: slot A runs boot 1, rootfs 1`,
		`installed version 2 into slot B`)
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
	stick := "if=none,id=s0,format=raw,readonly=on,file=" + filepath.Join(b.dir, "stick.img")
	m = b.arm64(t, "-device", "qemu-xhci", "-drive", stick, "-device", "usb-storage,drive=s0")
	expect(t, m, `BOARD: U-Boot boots the recovery`, `initramfs is up after`, `installed version 4 into slot A`)
	restarts(t, m)
	m = b.arm64(t)
	expect(t, m, `BOARD: U-Boot boots slot A, tries left: A 1, B 3`, `slot A is good`, `BOARD: slot A runs boot 4, rootfs 4`)
	m.PowerCut()
	t.Run("environment", b.environment)
}

// environment: U-Boot and the program choose the same of two copies of the environment, for every kind of pair of flags; a damaged copy is
// skipped, and rewritten by the next boot; without any copy the recovery boots.
func (b *board) environment(t *testing.T) {
	disk, err := os.OpenFile(filepath.Join(b.dir, "disk.img"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	copies := []*boottest.FileArea{{F: disk, Off: b.partition(t, "env1"), Len: 0x4000}, {F: disk, Off: b.partition(t, "env2"), Len: 0x4000}}
	write := func(i int, data []byte) {
		t.Helper()
		if _, err := copies[i].WriteAt(data, 0); err != nil {
			t.Fatal(err)
		}
	}
	boots := func(want string) {
		t.Helper()
		m := b.arm64(t)
		expect(t, m, `BOARD: U-Boot boots `+want)
		m.PowerCut()
	}
	for _, flags := range [][2]byte{{255, 0}, {0, 255}, {254, 0}, {5, 5}, {2, 1}, {0x7f, 0x80}} {
		for i, order := range []string{"A", "B"} {
			data := make([]byte, 0x4000)
			data[4] = flags[i]
			copy(data[5:], "BOOT_ORDER="+order+"\x00BOOT_A_LEFT=3\x00BOOT_B_LEFT=3\x00")
			binary.LittleEndian.PutUint32(data, crc32.ChecksumIEEE(data[5:]))
			write(i, data)
		}
		backend, err := uboot.New(uboot.Options{Areas: []boot.Area{copies[0], copies[1]}, Slots: []string{"A", "B"}}, "")
		if err != nil {
			t.Fatal(err)
		}
		before, err := backend.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		boots("slot " + before.Next + ", ")
		spent := func(s boot.SlotState) bool { return s.Name == before.Next && s.TriesLeft == 2 }
		if after, err := backend.State(t.Context()); err != nil || !slices.ContainsFunc(after.Slots, spent) {
			t.Errorf("flags %x: after a boot of slot %s the state is %+v, %v; want 2 tries left", flags, before.Next, after, err)
		}
	}
	// The last pair chose copy 2, so U-Boot saved copy 1.
	write(0, []byte("spoiled"))
	boots("slot B, tries left: A 3, B 2")
	write(1, []byte("spoiled"))
	boots("slot B, tries left: A 3, B 1")
	write(0, []byte("spoiled"))
	write(1, []byte("spoiled"))
	boots("the recovery")
}

// partition is where a partition begins, in bytes.
func (b *board) partition(t *testing.T, name string) int64 {
	t.Helper()
	table := b.run(t, "sfdisk", "-d", filepath.Join(b.dir, "disk.img"))
	m := regexp.MustCompile(`start= *(\d+),.*name="` + name + `"`).FindStringSubmatch(table)
	if m == nil {
		t.Fatalf("no partition %s in %s", name, table)
	}
	start, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return 512 * start
}
