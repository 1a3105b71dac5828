//go:build vm

package lab_test

import (
	"testing"

	"updater/internal/lab"
	"updater/internal/vm"
)

// A new slot is started without firmware and boot loader, marks itself good, and its try was spent before it ran.
func TestRecoveryKexec(t *testing.T) {
	h := newHelper(t, anyDisk+`
[recovery.kexec]
kernel = "/boot/vmlinuz"
initrd = "/boot/initrd.img"
cmdline = "console=ttyS0 quiet panic=10 no_timer_check mitigations=off cryptomgr.notests updater.slot={slot} root={partition} ro demo.act=poweroff"
`, "virtio,fs,watchdog")
	image, err := h.lab.Slot(t.Context(), lab.SlotConfig{Kind: lab.Small, Version: "2"})
	if err != nil {
		t.Fatal(err)
	}
	stick := h.stick(t, "stick", h.update(t, image))
	disk := h.disk(t, "device")
	m := h.start(t, vm.Config{Name: "kexec", MemMiB: 512, Disks: []vm.Disk{{Path: disk}, {Path: stick, ReadOnly: true}}})
	expect(t, m, `installed .* into slot B`, `starting slot B directly`)
	expect(t, m, `slot B +(trying|good)|slot B is good`, `DEMO slot=B version=2 up`)
	ends(t, m, vm.PowerOff)
	wantEnv(t, disk, map[string]string{"ORDER": "B A", "B_OK": "1", "B_TRY": "0"})
}

// One that hangs is left by the watchdog, with its try spent, so that the boot loader would fall back.
func TestRecoveryKexecSpendsTry(t *testing.T) {
	long(t)
	h := newHelper(t, anyDisk+`
[recovery.kexec]
kernel = "/boot/vmlinuz"
initrd = "/boot/initrd.img"
cmdline = "console=ttyS0 quiet panic=10 no_timer_check mitigations=off cryptomgr.notests updater.slot={slot} root={partition} ro"
`, "virtio,fs,watchdog")
	image, err := h.lab.Slot(t.Context(), lab.SlotConfig{Kind: lab.Hang, Version: "3"})
	if err != nil {
		t.Fatal(err)
	}
	stick := h.stick(t, "stick", h.update(t, image))
	disk := h.disk(t, "device")
	m := h.start(t, vm.Config{Name: "kexec", MemMiB: 512, Disks: []vm.Disk{{Path: disk}, {Path: stick, ReadOnly: true}}})
	expect(t, m, `starting slot B directly`, `DEMO slot=B version=3 hangs`)
	m.PowerCut()
	wantEnv(t, disk, map[string]string{"ORDER": "B A", "B_OK": "1", "B_TRY": "1", "A_OK": "1", "A_TRY": "0"})
}
