//go:build vm

package recovery

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"updater/internal/qemu"
)

// foreignHelper is the initramfs for another architecture, with Debian's kernel for it.
func foreignHelper(t *testing.T, arch, emulator, modules, tables string) *helper {
	t.Helper()
	if _, err := exec.LookPath("qemu-system-" + emulator); err != nil {
		t.Skip("package qemu-system-arm: ", err)
	}
	rig := newRig(t)
	h := &helper{builder: rig.builder, dir: t.TempDir()}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	run(t, "make", "-s", "-C", root, "build")
	h.builder.Updater = filepath.Join(root, "bin/updater")
	if h.kernel, err = h.builder.ForeignKernel(t.Context(), arch); err != nil {
		t.Skipf("Debian's kernel for %s cannot be had: %v", arch, err)
	}
	key, err := h.builder.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(h.dir, "config.toml")
	put(t, config, []byte(anyDisk+tables))
	h.vmlinux, h.initramfs = h.kernel.Image, filepath.Join(h.builder.Dir, "initramfs-"+arch)
	run(t, "make", "-s", "-C", root, "initramfs", "ARCH="+arch, "KERNEL_VERSION="+h.kernel.Version, "MODULES_ROOT="+h.kernel.Root,
		"MODULES="+modules, "KEYRING="+key, "CONFIG="+config, "INITRAMFS="+h.initramfs)
	return h
}

func (h *helper) startForeign(t *testing.T, c qemu.Config) *qemu.Machine {
	t.Helper()
	c.Kernel, c.Initrd, c.Timeout, c.MemMiB = h.vmlinux, h.initramfs, 6*time.Minute, 256
	c.Append = "console=ttyAMA0 panic=-1 quiet cryptomgr.notests " + c.Append
	m, err := qemu.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.PowerCut)
	return m
}

// arm64: a line of a GPIO chip asks for the recovery, where a stick is installed, as on amd64. Debian has no driver that
// simulates a chip, so it is the PL061 of QEMU's machine, one line of which, not connected, counts as active when low.
func TestRecoveryArm64(t *testing.T) {
	h := foreignHelper(t, "arm64", "aarch64", "virtio,fs", "\n[recovery.gpio]\nchip = \"9030000.pl061\"\nline = 5\nactive_low = true\n")
	image := h.image(t, "image", 4, 7)
	stick := h.stick(t, "stick", h.update(t, image))
	disk := h.disk(t, "device")
	m := h.startForeign(t, qemu.Config{Name: "arm64", Arch: "aarch64", Disks: []qemu.Disk{{Path: disk}, {Path: stick, ReadOnly: true}}})
	expect(t, m, `initramfs is up after`, `line 5 of 9030000.pl061 is active: recovery`, `update on /dev/vdb`, `installed .* into slot B`, `done after .*`)
	ends(t, m, qemu.Reset)
	wantSlot(t, disk, "B", image)
	wantEnv(t, disk, map[string]string{"ORDER": "B A", "B_OK": "1"})
}

// armv7: the slots are shown.
func TestRecoveryArmStatus(t *testing.T) {
	long(t)
	h := foreignHelper(t, "arm", "arm", "virtio,fs", "")
	m := h.startForeign(t, qemu.Config{
		Name: "arm", Arch: "arm", Append: "updater.mode=status updater.on_done=poweroff", Disks: []qemu.Disk{{Path: h.disk(t, "device")}},
	})
	expect(t, m, `initramfs is up after`, `boots next slot A`, `slot A +good`, `done after .*`)
	ends(t, m, qemu.PowerOff)
}

// 128 MiB of memory are enough for a zstd image of 1 GiB.
func TestRecoveryLittleMemory(t *testing.T) {
	const slotMiB = 1024
	areas := `[{ device = "PARTLABEL=env", size = 16384 }, { device = "PARTLABEL=env", offset = 65536, size = 16384 }]`
	h := newHelper(t, fmt.Sprintf(`product = "demo"
keyring = ["/etc/updater/keys"]

[boot]
backend = "uboot"
env = %s

[[slot]]
name = "A"
partitions = { rootfs = "PARTLABEL=rootfs_a" }

[[slot]]
name = "B"
partitions = { rootfs = "PARTLABEL=rootfs_b" }
`, areas), "virtio,fs,watchdog")
	disk := filepath.Join(h.dir, "disk")
	run(t, "truncate", "-s", "1100M", disk)
	run(t, "sgdisk", "-n", "1:0:+1M", "-c", "1:env", "-n", "2:0:+1M", "-c", "2:rootfs_a", "-n", fmt.Sprintf("3:0:+%dM", slotMiB), "-c", "3:rootfs_b", disk)
	env := filepath.Join(h.dir, "env")
	put(t, env+".txt", []byte("BOOT_ORDER=A B\nBOOT_A_LEFT=3\nBOOT_B_LEFT=0\n"))
	run(t, "mkenvimage", "-r", "-s", "16384", "-o", env, env+".txt")
	for _, at := range []string{"1048576", "1114112"} {
		run(t, "dd", "if="+env, "of="+disk, "bs=1", "seek="+at, "conv=notrunc")
	}
	image := h.sparseImage(t, slotMiB)
	stick := h.stick(t, "stick", h.update(t, image))
	m := h.start(t, qemu.Config{Name: "128 MiB", MemMiB: 128, Timeout: 15 * time.Minute, Disks: []qemu.Disk{{Path: disk}, {Path: stick, ReadOnly: true}}})
	expect(t, m, `initramfs is up after`, `checking the signature`, `reading back`, `installed .* into slot B.*`, `done after .*`)
	ends(t, m, qemu.Reset)
	run(t, "cmp", "-n", fmt.Sprint(slotMiB<<20), "-i", fmt.Sprintf("%d:0", (1+1+1)<<20), disk, image)
}
