package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"updater/blockdev"
	"updater/boot/uboot"
	"updater/update"
)

// maxConfig bounds the configuration file.
const maxConfig = 1 << 20

// Config is /etc/updater/config.toml. An unknown key is an error.
type Config struct {
	Product string   `toml:"product"` // must equal a signed <Product>
	Keyring []string `toml:"keyring"` // files or folders of OpenPGP certificates
	State   AreaSpec `toml:"state"`   // where the state store is; empty: nothing is remembered
	Disk    struct {
		Path     string `toml:"path"`     // block device or disk image file; "" is the disk that booted
		Engine   string `toml:"engine"`   // how slots are written: auto, paced or direct; "" is auto
		Unmapped string `toml:"unmapped"` // of an image that does not say: zero, keep or discard; "" is zero
	} `toml:"disk"`
	Boot     BootConfig     `toml:"boot"`
	Slot     []SlotConfig   `toml:"slot"`
	Source   SourceConfig   `toml:"source"`
	Trust    TrustConfig    `toml:"trust"`
	Release  ReleaseConfig  `toml:"release"`
	Recovery RecoveryConfig `toml:"recovery"`
	Hooks    HooksConfig    `toml:"hooks"`
}

// SlotConfig is one slot: its name to the boot loader, and its partitions by role.
type SlotConfig struct {
	Name       string            `toml:"name"`
	Partitions map[string]string `toml:"partitions"`

	Loader        string `toml:"loader"`         // efi: the EFI program on the ESP
	BootPartition int    `toml:"boot_partition"` // raspberry-pi: number of the partition that the firmware boots
	Attempts      *int   `toml:"attempts"`       // barebox: offset of the variables in the state's data
	Priority      *int   `toml:"priority"`
}

// AreaSpec is a file, a partition, or a window of one.
type AreaSpec struct{ uboot.AreaConfig }

// UnmarshalTOML takes a string or { device, offset, size }.
func (a *AreaSpec) UnmarshalTOML(v any) (err error) {
	switch v := v.(type) {
	case string:
		if v == "" {
			return errors.New("state: expected a file or a partition, got nothing")
		}
		a.Device = v
		return nil
	case map[string]any:
		a.AreaConfig, err = areaConfig("state", v)
		return err
	}
	return fmt.Errorf("state: expected a string or { device = ..., offset = ..., size = ... }, got %T", v)
}

// areaConfig reads one { device, offset, size } of the key name, strictly.
func areaConfig(name string, m map[string]any) (a uboot.AreaConfig, err error) {
	for key, v := range m {
		var ok bool
		switch key {
		case "device":
			a.Device, ok = v.(string)
		case "offset":
			a.Offset, ok = v.(int64)
		case "size":
			a.Size, ok = v.(int64)
		default:
			return a, fmt.Errorf("%s: unknown key %q; expected device, offset, size", name, key)
		}
		if !ok {
			return a, fmt.Errorf("%s: %s is %v, of the wrong type", name, key, v)
		}
	}
	if a.Device == "" || a.Size <= 0 {
		return a, fmt.Errorf("%s: every area needs device and size", name)
	}
	return a, nil
}

// LoadConfig reads and checks a configuration. Every error is a usage error that names the file and key.
func LoadConfig(path string) (*Config, error) {
	if err := checkSealed(path); err != nil {
		return nil, err
	}
	c, err := loadConfig(path)
	if err != nil {
		return nil, &usageError{err: fmt.Errorf("configuration %s: %w", path, err), hint: "docs/config.md lists every key"}
	}
	return c, nil
}

func loadConfig(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxConfig {
		return nil, fmt.Errorf("is longer than %d bytes", maxConfig)
	}
	c := new(Config)
	meta, err := toml.Decode(string(data), c)
	if err != nil {
		return nil, err
	}
	for _, key := range meta.Undecoded() {
		if len(key) > 2 && key[0] == "boot" && key[1] == "env" || len(key) > 1 && key[0] == "state" {
			continue // EnvConfig and AreaSpec have checked what is below them
		}
		return nil, fmt.Errorf("unknown key %q", key)
	}
	c.resolve(filepath.Dir(path))
	return c, errors.Join(c.check(), c.Recovery.check())
}

// resolve makes relative paths count from the folder of the file.
func (c *Config) resolve(dir string) {
	abs := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	if !isDiskSpec(c.Disk.Path) {
		abs(&c.Disk.Path)
	}
	c.Source.resolve(dir)
	c.Hooks.resolve(dir)
	for i := range c.Keyring {
		abs(&c.Keyring[i])
	}
	if !strings.Contains(c.State.Device, "=") {
		abs(&c.State.Device)
	}
}

func (c *Config) check() error {
	if err := c.Source.check(); err != nil {
		return err
	}
	if err := c.Trust.check(); err != nil {
		return err
	}
	if c.Release.RollbackIndex < 0 {
		return fmt.Errorf("release.rollback_index is %d, expected 0 or more", c.Release.RollbackIndex)
	}
	if !slices.Contains([]string{"", blockdev.Auto, blockdev.Paced, blockdev.Direct}, c.Disk.Engine) {
		return fmt.Errorf("disk.engine is %q, expected %s, %s or %s", c.Disk.Engine, blockdev.Auto, blockdev.Paced, blockdev.Direct)
	}
	if !slices.Contains([]string{"", update.UnmappedZero, update.UnmappedKeep, update.UnmappedDiscard}, c.Disk.Unmapped) {
		return fmt.Errorf("disk.unmapped is %q, expected %s, %s or %s", c.Disk.Unmapped, update.UnmappedZero, update.UnmappedKeep, update.UnmappedDiscard)
	}
	if err := c.Boot.check(); err != nil {
		return err
	}
	if len(c.Slot) < 2 {
		return fmt.Errorf("%d [[slot]] tables, expected at least 2", len(c.Slot))
	}
	seen := map[string]string{}
	if c.State.Size == 0 && c.State.Device != "" {
		seen[c.State.Device] = "none, but to the state store"
	}
	for i, s := range c.Slot {
		if !validSlotName(s.Name) {
			return fmt.Errorf("slot %d: name is %q, expected letters, digits and underscores", i+1, s.Name)
		}
		if len(s.Partitions) == 0 {
			return fmt.Errorf("slot %s: partitions is missing", s.Name)
		}
		if slices.ContainsFunc(c.Slot[:i], func(o SlotConfig) bool { return o.Name == s.Name }) {
			return fmt.Errorf("slot %s is there twice", s.Name)
		}
		for role, p := range s.Partitions {
			if other, ok := seen[p]; ok {
				return fmt.Errorf("slot %s: partition %s of role %s belongs to slot %s too", s.Name, p, role, other)
			}
			seen[p] = s.Name
		}
	}
	if c.Boot.Booted != "" && !slices.ContainsFunc(c.Slot, func(s SlotConfig) bool { return s.Name == c.Boot.Booted }) {
		return fmt.Errorf("boot.booted is %q, which is no slot", c.Boot.Booted)
	}
	return nil
}

// validSlotName: the name becomes part of a boot loader's variable names.
func validSlotName(s string) bool {
	return s != "" && len(s) <= 32 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

func (c *Config) slotNames() []string {
	names := make([]string, len(c.Slot))
	for i, s := range c.Slot {
		names[i] = s.Name
	}
	return names
}

// partition is the specification of a slot's partition for a role.
func (c *Config) partition(slot, role string) (string, error) {
	for _, s := range c.Slot {
		if s.Name != slot {
			continue
		}
		if p, ok := s.Partitions[role]; ok {
			return p, nil
		}
		return "", usagef("slot %s has no partition for role %q", slot, role)
	}
	return "", usagef("slot %q is not configured; there are %s", slot, strings.Join(c.slotNames(), ", "))
}

// role is the role to write: the one asked for, or the only one there is.
func (c *Config) role(asked string) (string, error) {
	if asked != "" {
		_, err := c.partition(c.Slot[0].Name, asked)
		return asked, err
	}
	if len(c.Slot[0].Partitions) == 1 {
		for role := range c.Slot[0].Partitions {
			return role, nil
		}
	}
	return "", usagef("the slots have several partitions; say which one with --role")
}
