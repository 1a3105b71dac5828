package main

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"updater/blockdev"
	"updater/initramfs"
)

// RecoveryConfig says what the initramfs does.
type RecoveryConfig struct {
	Mode string   `toml:"mode"` // install | recover | status, when the kernel command line has none; "" is install
	URLs []string `toml:"urls"` // of images, where a recovery looks after removable media
	IP   []string `toml:"ip"`   // as ip= on the kernel command line, which goes first; none is DHCP on every interface

	Nameservers []string    `toml:"nameservers"` // before those that DHCP names
	Kexec       KexecConfig `toml:"kexec"`
	Key         string      `toml:"key"` // held at boot it asks for a recovery: a name such as f8, or a key code
	GPIO        GPIOConfig  `toml:"gpio"`
}

// GPIOConfig is a line that asks for a recovery when it is active at boot.
type GPIOConfig struct {
	Chip      string `toml:"chip"` // name or label
	Line      uint32 `toml:"line"`
	ActiveLow bool   `toml:"active_low"`
	Pull      string `toml:"pull"` // up, down or ""
}

func (r RecoveryConfig) trigger() initramfs.Trigger {
	g := r.GPIO
	return initramfs.Trigger{Key: initramfs.KeyCode(r.Key), GPIO: initramfs.GPIO{Chip: g.Chip, Line: g.Line, Low: g.ActiveLow, Pull: g.Pull}}
}

func (r RecoveryConfig) check() error {
	if r.Mode != "" && !initramfs.ValidMode(r.Mode) {
		return fmt.Errorf("recovery.mode is %q, expected install, recover or status", r.Mode)
	}
	for _, s := range r.URLs {
		if u, err := url.Parse(s); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("recovery.urls has %q, expected http:// or https://", s)
		}
	}
	if r.Key != "" && initramfs.KeyCode(r.Key) == 0 {
		return fmt.Errorf("recovery.key is %q, expected a name such as f8 or volumedown, or a key code", r.Key)
	}
	if g := r.GPIO; g != (GPIOConfig{}) && (g.Chip == "" || g.Pull != "" && g.Pull != "up" && g.Pull != "down") {
		return fmt.Errorf("recovery.gpio: expected chip, line, and pull as up or down, got chip %q and pull %q", g.Chip, g.Pull)
	}
	return errors.Join(r.checkNetwork(), r.Kexec.check())
}

// isDiskSpec tells a description of a disk from a path.
func isDiskSpec(s string) bool {
	return strings.HasPrefix(s, "SERIAL=") || strings.HasPrefix(s, "BUS=")
}

// partitions lists the partitions of every slot, as they are configured.
func (c *Config) partitions() []string {
	var list []string
	for _, s := range c.Slot {
		for _, p := range s.Partitions {
			if strings.Contains(p, "=") { // a node is on one disk only anyway
				list = append(list, p)
			}
		}
	}
	return list
}

// diskPath finds the node of the configured disk, or its image file. Without one configured it is the disk
// that booted, and in an initramfs, where none did, the only one with the slots' partitions.
func (c *Config) diskPath() (string, error) {
	if isDiskSpec(c.Disk.Path) {
		return blockdev.FindDisk(c.Disk.Path, nil)
	}
	if c.Disk.Path != "" {
		return c.Disk.Path, nil
	}
	path, err := blockdev.BootDisk()
	if errors.Is(err, blockdev.ErrNoBootDisk) {
		if only, bad := blockdev.FindDisk("", c.partitions()); bad == nil {
			return only, nil
		}
	}
	return path, err
}
