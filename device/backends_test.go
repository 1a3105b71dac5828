package device_test

import (
	"errors"
	"testing"

	"updater/device"
	"updater/device/config"
)

// TestCheckSlots: one slot is enough only where the boot loader starts the recovery without one.
func TestCheckSlots(t *testing.T) {
	for _, c := range []struct {
		backend, dialect string
		slots            int
		ok               bool
	}{
		{"grub", "tries", 1, true}, {"grub", "tries", 2, true}, {"grub", "", 1, false}, {"grub", "rauc", 1, false},
		{"uboot", "", 1, false}, {"uboot", "", 2, true}, {"gpt", "", 1, false}, {"custom", "", 1, false},
	} {
		conf := &config.Config{Slot: make([]config.Slot, c.slots)}
		conf.Boot.Backend, conf.Boot.Dialect = c.backend, c.dialect
		err := device.CheckSlots(conf)
		if _, refused := errors.AsType[*config.Error](err); refused == c.ok {
			t.Errorf("%d slots with %s %s: %v", c.slots, c.backend, c.dialect, err)
		}
	}
}
