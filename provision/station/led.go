package station

import (
	"cmp"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// setLED drives the LED for a state of the plan. Failures are logged and ignored.
func (s *Station) setLED(state string) {
	led, ok := s.plan.LEDs[state]
	if !ok {
		return
	}
	set := func(name, value string) {
		path := filepath.Join(cmp.Or(s.o.LEDs, "/sys/class/leds"), led.Name, name)
		if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
			s.o.Inputs.Warn("setting LED %s: %v", led.Name, err)
		}
	}
	if led.Trigger != "" {
		set("trigger", strings.TrimSpace(led.Trigger))
	}
	if led.Trigger == "" || led.Trigger == "none" {
		set("brightness", strconv.Itoa(led.Brightness))
	}
}
