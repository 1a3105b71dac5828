package config_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"updater/device/config"
)

const twoRoles = `product = "demo"
keyring = ["keys", "/usr/share/keys.asc"]
[boot]
backend = "grub"
env = "PARTLABEL=esp:/grubenv"
[state]
device = "PARTLABEL=state"
size = 32768
[trust]
require_metadata = true
[source]
ca = "../ca.pem"
[[slot]]
name = "A"
partitions = { rootfs = "PARTLABEL=rootfs_a", app = "PARTLABEL=app_a" }
[[slot]]
name = "B"
partitions = { rootfs = "PARTLABEL=rootfs_b", app = "PARTLABEL=app_b" }
`

func TestTrustOfFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(path, []byte(twoRoles), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path, []string{"grub"})
	if err != nil {
		t.Fatal(err)
	}
	if got := c.OutsideSeal(dir); !slices.Equal(got, []string{"keyring", "source.ca"}) {
		t.Errorf("OutsideSeal() = %v; want the keys whose files are elsewhere", got)
	}
	if got := c.Trust.Required(); !slices.Contains(got, "role") {
		t.Errorf("Required() = %v; want the role, since slots have two", got)
	}
}
