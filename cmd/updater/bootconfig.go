package main

import (
	"fmt"
	"slices"
	"strings"

	"updater/boot/uboot"
)

// BootConfig says where the boot loader keeps its choice.
type BootConfig struct {
	Backend string `toml:"backend"`
	Tries   int    `toml:"tries"`  // boots that a new slot gets; 0 is 3, and never more than the backend can count
	Booted  string `toml:"booted"` // slot that counts as running on a disk image file

	Env         EnvConfig         `toml:"env"`           // grub, uboot
	Dialect     string            `toml:"dialect"`       // grub, uboot: which variables; "" is RAUC's
	FWEnvConfig string            `toml:"fw_env_config"` // uboot: a fw_env.config file instead of env
	Flags       string            `toml:"flags"`         // uboot: incremental | boolean
	Variables   map[string]string `toml:"variables"`     // uboot: own names of the variables

	ESP      string              `toml:"esp"`      // efi: its partition; systemd-boot: its mount point or partition
	Prefix   string              `toml:"prefix"`   // systemd-boot: of our entries; "" is updater
	Role     string              `toml:"role"`     // gpt: role of the partitions with the attributes; "" is the only one
	Barebox  BareboxConfig       `toml:"barebox"`  // barebox
	Commands map[string][]string `toml:"commands"` // custom: state, invalidate, activate, good, bad
}

// BareboxConfig repeats what the device tree says of barebox' state.
type BareboxConfig struct {
	Magic    int64 `toml:"magic"`
	Stride   int64 `toml:"stride"`   // bytes from one bucket to the next
	Attempts int   `toml:"attempts"` // default of remaining_attempts; 0 is 3
}

// backends are the values of boot.backend.
var backends = []string{"grub", "uboot", "systemd-boot", "efi", "gpt", "tryboot", "android", "barebox", "custom"}

func (b *BootConfig) check() error {
	if b.Backend == "" {
		return fmt.Errorf("boot.backend is missing; expected %s", strings.Join(backends, ", "))
	}
	if !slices.Contains(backends, b.Backend) {
		return fmt.Errorf("boot.backend is %q; this version has %s", b.Backend, strings.Join(backends, ", "))
	}
	if b.Tries < 0 || b.Tries > 9 {
		return fmt.Errorf("boot.tries is %d, expected 1 to 9", b.Tries)
	}
	if b.Tries == 0 {
		b.Tries = 3
	}
	for verb := range b.Commands {
		if !slices.Contains([]string{"state", "invalidate", "activate", "good", "bad"}, verb) {
			return fmt.Errorf("boot.commands: unknown key %q; expected state, invalidate, activate, good, bad", verb)
		}
	}
	if b.Prefix != "" && strings.Trim(b.Prefix, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return fmt.Errorf("boot.prefix is %q, expected lower-case letters and digits", b.Prefix)
	}
	_, err := b.names()
	return err
}

// names are U-Boot's variables by the configuration's words for them.
func (b *BootConfig) names() (uboot.Names, error) {
	var n uboot.Names
	for key, name := range b.Variables {
		to, ok := map[string]*string{
			"order": &n.Order, "left": &n.Left, "active": &n.Active, "upgrade_available": &n.Available,
			"bootcount": &n.Count, "bootlimit": &n.Limit, "bad": &n.Bad,
		}[key]
		if !ok {
			return n, fmt.Errorf("boot.variables: unknown key %q; expected order, left, active, upgrade_available, bootcount, bootlimit, bad", key)
		}
		if name == "" || strings.ContainsAny(name, "= \x00") {
			return n, fmt.Errorf("boot.variables: %s is %q, which is no name of a variable", key, name)
		}
		*to = name
	}
	return n, nil
}

// EnvConfig is the env key: one string for GRUB, a list of areas for U-Boot.
type EnvConfig struct {
	File  string
	Areas []uboot.AreaConfig
}

// UnmarshalTOML takes both forms, strictly.
func (e *EnvConfig) UnmarshalTOML(v any) error {
	switch v := v.(type) {
	case string:
		e.File = v
		return nil
	case []map[string]any:
		for _, m := range v {
			if err := e.add(m); err != nil {
				return err
			}
		}
		return nil
	case []any:
		for _, x := range v {
			m, ok := x.(map[string]any)
			if !ok {
				return fmt.Errorf("boot.env: expected { device = ..., offset = ..., size = ... }, got %T", x)
			}
			if err := e.add(m); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("boot.env: expected a string or a list of areas, got %T", v)
}

func (e *EnvConfig) add(m map[string]any) error {
	a, err := areaConfig("boot.env", m)
	if err != nil {
		return err
	}
	e.Areas = append(e.Areas, a)
	return nil
}
