package fleet

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"updater/device/config"
)

// notNow returns why no update may begin, "" if it may. root is / on a device.
func notNow(root string, w config.When, clock Clock, switches bool) string {
	for _, path := range w.Inhibit {
		if _, err := os.Lstat(filepath.Join(root, path)); err == nil {
			return path + " exists"
		}
	}
	if w.Mains && onBattery(root) {
		return "the machine runs on its battery"
	}
	if len(w.Windows) == 0 || !switches {
		return ""
	}
	now := clock.Now.In(time.Local)
	switch open := func(w config.Window) bool { return w.Open(now) }; {
	case clock.LowerBound:
		return "the clock is not set, and updates have a window"
	case !slices.ContainsFunc(w.Windows, open):
		return fmt.Sprintf("%s is outside of the windows for updates", now.Format("Mon 15:04 MST"))
	}
	return ""
}

// onBattery reports whether a battery of the machine discharges and no other supply is connected (kernel,
// Documentation/ABI/testing/sysfs-class-power).
func onBattery(root string) bool {
	supplies, _ := filepath.Glob(filepath.Join(root, "sys/class/power_supply/*"))
	discharging := false
	for _, dir := range supplies {
		value := func(name string) string {
			data, _ := os.ReadFile(filepath.Join(dir, name))
			return strings.TrimSpace(string(data))
		}
		switch kind := value("type"); {
		case value("scope") == "Device": // of a mouse
		case kind == "Battery":
			discharging = discharging || value("status") == "Discharging"
		case value("online") == "1":
			return false
		}
	}
	return discharging
}
