//go:build vm

package recovery

import (
	"os"
	"strings"
	"testing"

	"updater/internal/abdisk"
	"updater/internal/qemu"
)

// No slot is bootable any more, and there is no medium. A slot that equals its signed documents is found to be whole, and
// boots; one in which a byte has changed does not.
func TestRecoveryReactivates(t *testing.T) {
	h := newHelper(t, "state = \"PARTLABEL=state\"\n"+anyDisk, "virtio,fs,watchdog")
	slot, err := h.builder.Slot(t.Context(), abdisk.SlotConfig{Kind: abdisk.Small, Version: "2"})
	if err != nil {
		t.Fatal(err)
	}
	stick := h.stick(t, "stick", h.update(t, slot))
	disk := h.dir + "/device.disk"
	if err := h.builder.Disk(t.Context(), abdisk.DiskConfig{Path: disk, SlotA: h.image(t, "old", 4, 99), FillB: 0xa5, Append: "demo.act=poweroff"}); err != nil {
		t.Fatal(err)
	}
	m := h.start(t, qemu.Config{Name: "install", Disks: []qemu.Disk{{Path: disk}, {Path: stick, ReadOnly: true}}})
	expect(t, m, `installed .* into slot B`)
	ends(t, m, qemu.Reset)
	lose := func() {
		t.Helper()
		if err := (abdisk.Env{Disk: disk}).Set(t.Context(), "ORDER=", "A_OK=0", "B_OK=0"); err != nil {
			t.Fatal(err)
		}
	}
	lose()
	recover := qemu.Config{Name: "recovery", Append: "updater.mode=recover", Disks: []qemu.Disk{{Path: disk}}}
	m = h.start(t, recover)
	expect(t, m, `no slot is bootable`, `comparing the slots`, `slot B holds what was signed for it and boots next`, `slot A: rootfs: no signed document is kept`)
	ends(t, m, qemu.Reset)
	wantEnv(t, disk, map[string]string{"ORDER": "B", "B_OK": "1", "B_TRY": "0", "A_OK": "0"})
	bootsBy(t, h, disk, `GRUB: booting slot B`, `slot B is good`, `DEMO slot=B version=2 up`)

	lose()
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	start, _ := abdisk.SlotRange("B")
	if _, err := f.WriteAt([]byte{0xa5}, start+1<<20+77); err != nil {
		t.Fatal(err)
	}
	m = h.start(t, recover)
	expect(t, m, `comparing the slots`, `slot B: rootfs: reading back`, `trying again in`, `7  power off`)
	if err := m.Type("5\r"); err != nil { // a person's request does not change that
		t.Fatal(err)
	}
	expect(t, m, `booting it once: it is marked bad and not known to be complete`)
	m.PowerCut()
	if wantEnv(t, disk, map[string]string{"ORDER": "", "A_OK": "0", "B_OK": "0"}); strings.Contains(strings.Join(m.Lines(), "\n"), "slot B boots next") {
		t.Error("a slot was activated")
	}
}
