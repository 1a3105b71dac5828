//go:build vm

package recovery

import (
	"testing"
	"time"

	"updater/internal/qemu"
)

// A person holds a key down while the machine starts: instead of showing its slots, it becomes a recovery.
func TestRecoveryKey(t *testing.T) {
	h := newHelper(t, anyDisk+"\n[recovery]\nkey = \"f8\"\nmode = \"status\"\n", "virtio,input,fs,watchdog")
	disk := h.disk(t, "device")
	m := h.start(t, qemu.Config{Name: "key held", Disks: []qemu.Disk{{Path: disk}}})
	stop := make(chan struct{})
	held := make(chan struct{})
	go func() { // a keyboard repeats a key that is held
		defer close(held)
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
			key := map[string]any{"type": "qcode", "data": "f8"}
			event := map[string]any{"type": "key", "data": map[string]any{"down": true, "key": key}}
			if _, err := m.QMP("input-send-event", map[string]any{"events": []any{event}}); err != nil {
				return
			}
		}
	}()
	expect(t, m, `initramfs is up after .* after the kernel handed over`, `key f8 is held: recovery`, `type a number`)
	m.PowerCut()
	close(stop)
	<-held

	m = h.start(t, qemu.Config{Name: "key not held", Append: "updater.on_done=poweroff", Disks: []qemu.Disk{{Path: disk}}})
	expect(t, m, `slot A +good`, `done after`)
	ends(t, m, qemu.PowerOff)
}
