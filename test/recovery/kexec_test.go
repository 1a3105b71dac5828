//go:build vm

package recovery

import (
	"fmt"
	"testing"

	"updater/internal/abdisk"
	"updater/internal/qemu"
)

// kexec boots the initramfs with a slot of a kind on a stick, and has it start the new slot directly, with further kernel arguments.
func kexec(t *testing.T, c abdisk.SlotConfig, further string) (*qemu.Machine, string) {
	t.Helper()
	h := newHelper(t, anyDisk+fmt.Sprintf(`
[recovery.kexec]
kernel = "/boot/vmlinuz"
initrd = "/boot/initrd.img"
cmdline = "console=ttyS0 quiet panic=10 no_timer_check mitigations=off cryptomgr.notests updater.slot={slot} root={partition} ro %s"
`, further), "virtio,fs,watchdog")
	image, err := h.builder.Slot(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	stick, disk := h.stick(t, "stick", h.update(t, image)), h.disk(t, "device")
	m := h.start(t, qemu.Config{Name: "kexec", MemMiB: 512, Disks: []qemu.Disk{{Path: disk}, {Path: stick, ReadOnly: true}}})
	expect(t, m, `installed .* into slot B`, `starting slot B by kexec: `)
	return m, disk
}

// A new slot is started without firmware and boot loader, and marks itself good.
func TestRecoveryKexec(t *testing.T) {
	m, disk := kexec(t, abdisk.SlotConfig{Kind: abdisk.Small, Version: "2"}, "demo.act=poweroff")
	expect(t, m, `slot B is good`, `DEMO slot=B version=2 up`)
	ends(t, m, qemu.PowerOff)
	wantEnv(t, disk, map[string]string{"ORDER": "B A", "B_OK": "1", "B_TRY": "0"})
}

// The try of a slot that hangs was spent before it ran, so that the boot loader falls back.
func TestRecoveryKexecSpendsTry(t *testing.T) {
	long(t)
	m, disk := kexec(t, abdisk.SlotConfig{Kind: abdisk.Hang, Version: "3"}, "")
	expect(t, m, `DEMO slot=B version=3 hangs`)
	m.PowerCut()
	wantEnv(t, disk, map[string]string{"ORDER": "B A", "B_OK": "1", "B_TRY": "1", "A_OK": "1", "A_TRY": "0"})
}
