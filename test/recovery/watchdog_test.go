//go:build vm

package recovery

import (
	"testing"
	"time"

	"updater/internal/qemu"
)

// The kernel panics in the middle of a recovery, and stays there: the watchdog, which was armed from the start, resets the
// machine.
func TestRecoveryWatchdog(t *testing.T) {
	long(t)
	h := newHelper(t, anyDisk, "virtio,input,fs,i6300esb")
	m := h.start(t, qemu.Config{
		Name: "watchdog", Append: "updater.mode=recover sysrq_always_enabled panic=0", Disks: []qemu.Disk{{Path: h.disk(t, "device", "ORDER=", "A_OK=0", "B_OK=0")}},
		Args: []string{"-device", "i6300esb"},
	})
	expect(t, m, `hardware watchdog .*armed`, `no slot is bootable`, `7  power off`)
	for range 20 { // until the keyboard is there
		keys := []any{}
		for _, k := range []string{"alt", "sysrq", "c"} {
			keys = append(keys, map[string]any{"type": "qcode", "data": k})
		}
		if _, err := m.QMP("send-key", map[string]any{"keys": keys}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond)
	}
	ends(t, m, qemu.Watchdog)
}
