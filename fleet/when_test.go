package fleet

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"updater/device/config"
)

func TestNotNow(t *testing.T) {
	var night config.Window
	if err := night.UnmarshalText([]byte("22:00-04:00")); err != nil {
		t.Fatal(err)
	}
	at := func(hour int) Clock { return Clock{Now: time.Date(2026, 11, 23, hour, 0, 0, 0, time.Local)} }
	windows, mains := config.When{Windows: []config.Window{night}}, config.When{Mains: true}
	battery := map[string]string{"bat/type": "Battery", "bat/status": "Discharging"}
	for _, tt := range []struct {
		name     string
		when     config.When
		clock    Clock
		download bool
		supplies map[string]string
		want     string
	}{
		{"no limits", config.When{}, at(12), false, battery, ""},
		{"in the window", windows, at(23), false, nil, ""},
		{"outside", windows, at(12), false, nil, "outside of the windows"},
		{"outside, only the download", windows, at(12), true, nil, ""},
		{"no clock", windows, Clock{Now: at(23).Now, LowerBound: true}, false, nil, "the clock is not set"},
		{"a file", config.When{Inhibit: []string{"/run/busy"}}, at(12), true, nil, "/run/busy exists"},
		{"another file", config.When{Inhibit: []string{"/run/idle"}}, at(12), false, nil, ""},
		{"without supplies", mains, at(12), false, nil, ""},
		{"on battery", mains, at(12), true, battery, "battery"},
		{"on mains", mains, at(12), false, map[string]string{"bat/type": "Battery", "bat/status": "Discharging", "ac/type": "Mains", "ac/online": "1"}, ""},
		{"charging", mains, at(12), false, map[string]string{"bat/type": "Battery", "bat/status": "Charging", "ac/type": "USB", "ac/online": "0"}, ""},
		{"a mouse", mains, at(12), false, map[string]string{"m/type": "Battery", "m/status": "Discharging", "m/scope": "Device"}, ""},
	} {
		root := t.TempDir()
		write := func(path, text string) {
			path = filepath.Join(root, path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		write("run/busy", "")
		for path, text := range tt.supplies {
			write("sys/class/power_supply/"+path, text)
		}
		got := notNow(root, tt.when, tt.clock, !tt.download)
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
