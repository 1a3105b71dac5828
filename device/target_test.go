package device

import (
	"strings"
	"testing"

	"updater/device/config"
)

// The boot state that a line sets up is that of the target; a configuration that leads elsewhere is refused.
func TestBootStateOfTarget(t *testing.T) {
	area := func(device string) config.Env { return config.Env{Areas: []config.Area{{Device: device}}} }
	for _, c := range []struct {
		name   string
		boot   config.Boot
		inside bool
		want   string // device of the area, or a piece of the error
	}{
		{"label", config.Boot{Backend: "uboot", Env: area("PARTLABEL=env")}, false, "PARTLABEL=env"},
		{"whole disk", config.Boot{Backend: "uboot", Env: area("/dev/mmcblk0")}, false, "/dev/sdb"},
		{"of the target", config.Boot{Backend: "uboot", Env: area("/dev/sdb1")}, false, "/dev/sdb1"},
		{"of another disk", config.Boot{Backend: "uboot", Env: area("/dev/sdbb")}, false, "is not on the target /dev/sdb"},
		{"of the station", config.Boot{Backend: "uboot", Env: area("/dev/mmcblk0boot0")}, false, "is not on the target"},
		{"flash of the station", config.Boot{Backend: "uboot", Env: area("/dev/mtd0")}, false, "is not on the target"},
		{"flash of the device", config.Boot{Backend: "uboot", Env: area("/dev/mtd0")}, true, "/dev/mtd0"},
		{"file list", config.Boot{Backend: "uboot", FWEnvConfig: "/etc/fw_env.config"}, true, "fw_env_config is not on the target"},
		{"grubenv of the station", config.Boot{Backend: "grub", Env: config.Env{File: "/boot/grub/grubenv"}}, false, "is not on the target"},
		{"grubenv", config.Boot{Backend: "grub", Env: config.Env{File: "PARTLABEL=esp:/grub/grubenv"}}, false, ""},
		{"esp of the station", config.Boot{Backend: "systemd-boot", ESP: "/efi"}, true, "is not on the target"},
		{"esp", config.Boot{Backend: "systemd-boot", ESP: "PARTLABEL=esp"}, false, ""},
		{"firmware of the station", config.Boot{Backend: "efi", ESP: "PARTLABEL=esp"}, false, "is not on the target"},
		{"firmware", config.Boot{Backend: "efi", ESP: "PARTLABEL=esp"}, true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf := &config.Config{Boot: c.boot}
			conf.Disk.Path = "/dev/mmcblk0"
			err := onTarget(conf, "/dev/sdb", c.inside)
			switch {
			case strings.Contains(c.want, "is not on"):
				if err == nil || !strings.Contains(err.Error(), c.want) || !isRequest(err) {
					t.Errorf("%v; want %q", err, c.want)
				}
			case err != nil:
				t.Error(err)
			case len(conf.Boot.Env.Areas) > 0 && conf.Boot.Env.Areas[0].Device != c.want:
				t.Errorf("the environment is on %s; want %s", conf.Boot.Env.Areas[0].Device, c.want)
			}
		})
	}
}
