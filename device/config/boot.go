package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Boot is [boot]: where the boot loader keeps its choice.
type Boot struct {
	Backend string `toml:"backend"`
	Tries   int    `toml:"tries"`  // boots that a new slot gets; 0 is 3, and never more than the backend can count
	Booted  string `toml:"booted"` // slot that counts as running on a disk image file

	Env         Env               `toml:"env"`           // grub, uboot, tryboot, android, barebox
	Dialect     string            `toml:"dialect"`       // grub, uboot: which variables; "" is RAUC's
	FWEnvConfig string            `toml:"fw_env_config"` // uboot: a fw_env.config file instead of env
	Flags       string            `toml:"flags"`         // uboot: incremental | boolean
	Variables   map[string]string `toml:"variables"`     // uboot: names of the variables, by [VariableKeys]

	ESP      string              `toml:"esp"`      // efi: its partition; systemd-boot: its mount point or partition
	Prefix   string              `toml:"prefix"`   // systemd-boot: of our entries; "" is updater
	Role     string              `toml:"role"`     // gpt: role of the partitions with the attributes; "" is the only one
	Barebox  Barebox             `toml:"barebox"`  // barebox
	Commands map[string][]string `toml:"commands"` // custom: state, invalidate, activate, good, bad
}

// Barebox repeats the properties of barebox's state from the device tree.
type Barebox struct {
	Magic    int64 `toml:"magic"`
	Stride   int64 `toml:"stride"`   // bytes from one bucket to the next
	Attempts int   `toml:"attempts"` // default of remaining_attempts; 0 is 3
}

// VariableKeys are the keys of boot.variables.
var VariableKeys = []string{"order", "left", "active", "upgrade_available", "bootcount", "bootlimit", "bad"}

// Verbs are the keys of boot.commands.
var Verbs = []string{"state", "invalidate", "activate", "good", "bad"}

func (b *Boot) check(backends []string) error {
	var errs []error
	wrong := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if b.Backend == "" {
		wrong("boot.backend is missing; expected %s", strings.Join(backends, ", "))
	} else if !slices.Contains(backends, b.Backend) {
		wrong("boot.backend is %q; this version has %s", b.Backend, strings.Join(backends, ", "))
	}
	if b.Tries < 0 || b.Tries > 9 {
		wrong("boot.tries is %d, expected 1 to 9", b.Tries)
	}
	if b.Tries == 0 {
		b.Tries = 3
	}
	for verb := range b.Commands {
		if !slices.Contains(Verbs, verb) {
			wrong("boot.commands: unknown key %q; expected %s", verb, strings.Join(Verbs, ", "))
		}
	}
	if b.Prefix != "" && strings.Trim(b.Prefix, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		wrong("boot.prefix is %q, expected lower-case letters and digits", b.Prefix)
	}
	for key, name := range b.Variables {
		if !slices.Contains(VariableKeys, key) {
			wrong("boot.variables: unknown key %q; expected %s", key, strings.Join(VariableKeys, ", "))
		} else if name == "" || strings.ContainsAny(name, "= \x00") {
			wrong("boot.variables: %s is %q, expected the name of a variable", key, name)
		}
	}
	return errors.Join(errs...)
}
