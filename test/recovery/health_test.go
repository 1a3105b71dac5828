//go:build vm

package recovery

import (
	"os"
	"path/filepath"
	"testing"

	"updater/internal/abdisk"
	"updater/internal/qemu"
)

// TestHealthReturnsToTheOldSlot: a new slot boots and one of its health checks fails. The slot marks itself bad and restarts,
// and GRUB boots the old slot. The slot runs BusyBox init with the example for it.
func TestHealthReturnsToTheOldSlot(t *testing.T) {
	r := newRig(t)
	r.builder.Updater = filepath.Join(t.TempDir(), "updater")
	run(t, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", r.builder.Updater, "updater/cmd/updater")
	example, err := os.ReadFile("../../examples/health/updater-health.busybox")
	if err != nil {
		t.Fatal(err)
	}
	sick, err := r.builder.Slot(t.Context(), abdisk.SlotConfig{
		Kind: abdisk.Small, Version: "6",
		Scripts: map[string]string{
			"usr/bin/init": "#!/usr/bin/busybox sh\nb=/usr/bin/busybox\nexport PATH=/usr/bin\nfor m in lpc_ich iTCO_wdt; do $b modprobe $m; done\n" +
				"$b watchdog -T 30 -t 5 /dev/watchdog\n$b mount -t tmpfs tmpfs /run\nexec $b init\n",
			"etc/init.d/rcS":               string(example),
			"etc/updater/health.d/10-app":  "#!/bin/sh\necho \"the app does not answer\"\nexit 1\n",
			"etc/updater/health.d/20-fine": "#!/bin/sh\n",
		},
		Files: map[string]string{"etc/inittab": "::sysinit:/etc/init.d/rcS\n::ctrlaltdel:/usr/bin/busybox reboot\n"},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.makeDisk(t, abdisk.DiskConfig{SlotA: r.slot(t, abdisk.Small, "5"), SlotB: sick, Append: "demo.act=poweroff"})
	if err := (abdisk.Env{Disk: r.disk}).Set(t.Context(), "ORDER=B A"); err != nil {
		t.Fatal(err)
	}
	r.boot(t, "new slot", qemu.Reset, `GRUB: booting slot B`, `10-app: the app does not answer`, `slot B is bad; restarting into the other one`, `not healthy: 10-app`)
	r.wantEnv(t, map[string]string{"B_OK": "0", "A_OK": "1", "A_TRY": "0"})
	r.boot(t, "old slot", qemu.PowerOff, `GRUB: booting slot A`, `slot A is good`, `DEMO slot=A version=5 up`)
}
