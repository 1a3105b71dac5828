package blockdev

import (
	"os"
	"path/filepath"
	"testing"
)

// Only media that are known to be built in are read back while they are written.
func TestBuiltIn(t *testing.T) {
	for name, c := range map[string]struct {
		path  string
		files map[string]string
		want  bool
	}{
		"NVMe":           {"pci/nvme/nvme0n1", map[string]string{"removable": "0"}, true},
		"eMMC":           {"soc/mmc0/mmcblk0", map[string]string{"removable": "0", "device/type": "MMC", "device/removable": "fixed"}, true},
		"SD card":        {"soc/mmc0/mmcblk0", map[string]string{"removable": "0", "device/type": "SD"}, false},
		"MMC in a slot":  {"soc/mmc0/mmcblk0", map[string]string{"removable": "0", "device/type": "MMC", "device/removable": "removable"}, false},
		"USB disk":       {"pci/usb1/1-1/sda", map[string]string{"removable": "0", "device/type": "0"}, false},
		"card reader":    {"pci/ata1/sdb", map[string]string{"removable": "1", "device/type": "0"}, false},
		"device mapper":  {"virtual/block/dm-0", map[string]string{"removable": "0", "slaves/sda": ""}, false},
		"unknown kernel": {"x/y", map[string]string{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), c.path)
			for _, d := range []string{"device", "slaves"} {
				if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for file, text := range c.files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := builtIn(dir); got != c.want {
				t.Errorf("builtIn = %v; want %v", got, c.want)
			}
		})
	}
}
