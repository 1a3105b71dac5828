package device_test

import (
	"os"
	"path/filepath"
	"testing"

	"updater/device"
	"updater/device/config"
)

// The identifier is the configured one, else the machine-id, else the serial; "uninitialized" is none.
func TestIdentifier(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := new(config.Config)
	if got, err := device.Identifier(root, c); err == nil {
		t.Errorf("a machine without any has the identifier %q", got)
	}
	for _, step := range []struct{ file, text, want string }{
		{"sys/class/dmi/id/product_serial", "D1\n", "D1"},
		{"proc/device-tree/serial-number", "T1\x00", "T1"},
		{"etc/machine-id", "uninitialized\n", "T1"},
		{"etc/machine-id", "0123abcd\n", "0123abcd"},
	} {
		write(step.file, step.text)
		if got, err := device.Identifier(root, c); err != nil || got != step.want {
			t.Errorf("with %s of %q the identifier is %q, %v; want %q", step.file, step.text, got, err, step.want)
		}
	}
	c.Channel.Identifier = "unit-1"
	if got, err := device.Identifier(root, c); err != nil || got != "unit-1" {
		t.Errorf("the identifier is %q, %v; want the configured one", got, err)
	}
}
