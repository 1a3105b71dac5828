package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"updater/device/config"
)

// TestKexecOf: with several roles the configuration names the partition with the kernel, and the command line may name the others.
func TestKexecOf(t *testing.T) {
	const slots = `keyring = ["keys"]
state = "PARTLABEL=state"
[boot]
backend = "grub"
[[slot]]
name = "A"
partitions = { boot = "PARTLABEL=boot_a", rootfs = "PARTLABEL=root_a" }
[[slot]]
name = "B"
partitions = { boot = "PARTLABEL=boot_b", rootfs = "PARTLABEL=root_b" }
[recovery.kexec]
kernel = "/vmlinuz"
`
	for _, c := range []struct{ lines, role, cmdline, err string }{
		{"role = \"boot\"\ncmdline = \"root={partition:rootfs} slot={slot} from={partition}\"", "boot", "root=PARTLABEL=root_b slot=B from=PARTLABEL=boot_b", ""},
		{"role = \"rootfs\"\ncmdline = \"root={partition}\"", "rootfs", "root=PARTLABEL=root_b", ""},
		{"cmdline = \"root={partition}\"", "", "", "recovery.kexec.role is missing: the roles are boot, rootfs"},
		{"role = \"boot\"\ncmdline = \"root={partition:system}\"", "", "", "names a partition that slot A does not have"},
		{"role = \"system\"\ncmdline = \"root={partition}\"", "", "", `no partition for role "system"`},
	} {
		path := filepath.Join(t.TempDir(), "config.toml")
		if err := os.WriteFile(path, []byte(slots+c.lines+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		conf, err := config.LoadOther(path, []string{"grub"})
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v; want %s", c.lines, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.lines, err)
			continue
		}
		if role, cmdline, err := conf.KexecOf("B"); err != nil || role != c.role || cmdline != c.cmdline {
			t.Errorf("%s: %q, %q, %v", c.lines, role, cmdline, err)
		}
	}
}
