package device_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"updater/device"
	"updater/device/config"
)

// TestHardware: the configuration takes precedence over the device tree; without both the hardware has no name.
func TestHardware(t *testing.T) {
	root := t.TempDir()
	unknown := device.Hardware(root, &config.Config{})
	tree := filepath.Join(root, "sys/firmware/devicetree/base")
	if err := os.MkdirAll(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "compatible"), []byte("acme,gw-1.1\x00acme,gw\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ got, want []string }{
		{unknown, nil},
		{device.Hardware(root, &config.Config{}), []string{"acme,gw-1.1", "acme,gw"}},
		{device.Hardware(root, &config.Config{Hardware: "1.0"}), []string{"1.0"}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("Hardware() = %q; want %q", c.got, c.want)
		}
	}
}

func TestMachineSerial(t *testing.T) {
	root := t.TempDir()
	for name, data := range map[string]string{"sys/firmware/devicetree/base/serial-number": "DT42\x00", "sys/class/dmi/id/board_serial": "B7\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for kind, want := range map[string]string{"device-tree": "DT42", "dmi": "B7", "": "DT42"} {
		if got, err := device.MachineSerial(root, kind); err != nil || got != want {
			t.Errorf("MachineSerial(%q) = %q, %v; want %s", kind, got, err, want)
		}
	}
	if _, err := device.MachineSerial(t.TempDir(), "dmi"); err == nil {
		t.Error("a machine without a serial has one")
	}
}
