package device

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"updater/device/config"
)

// Problems lists everything that is wrong with a configuration file, without touching a device. It includes errors that opening the device
// would report, such as a missing key that the boot loader needs.
func Problems(path string) []config.Problem { return config.Problems(path, Backends(), needs) }

// dialects are the values of boot.dialect.
var dialects = map[string][]string{"grub": {"", "rauc", "tries"}, "uboot": {"", "rauc", "bootcount"}}

// needs returns an error for every key that the boot loader, or the slots, need and the configuration lacks.
func needs(c *config.Config) error {
	var errs []error
	lacks := func(lacking bool, format string, a ...any) {
		if lacking {
			errs = append(errs, fmt.Errorf(format, a...))
		}
	}
	b := c.Boot
	switch b.Backend {
	case "grub", "tryboot":
		lacks(b.Env.File == "", "boot.env is missing; expected the path of a file, or PARTITION:/PATH")
	case "uboot":
		lacks((b.FWEnvConfig == "") == (len(b.Env.Areas) == 0), "boot.env: expected either env = [ ... ] or fw_env_config")
		lacks(!slices.Contains([]string{"", "incremental", "boolean"}, b.Flags), "boot.flags is %q, expected incremental or boolean", b.Flags)
	case "systemd-boot", "efi":
		lacks(b.ESP == "", "boot.esp is missing; expected the partition of the ESP")
	case "android":
		n := len(b.Env.Areas)
		lacks(b.Env.File == "" && n != 1 && n != 2, "boot.env has %d areas, expected the misc partition, or one or two areas", n)
	case "barebox":
		n, stride := len(b.Env.Areas), b.Barebox.Stride
		lacks(n != 1 || stride == 0, "boot.env has %d areas and boot.barebox a stride of %d, expected one area and the stride of its buckets", n, stride)
	case "gpt":
		_, err := c.Role(b.Role)
		lacks(err != nil, "boot.role: %w", err)
	case "custom":
		for _, verb := range config.Verbs[:4] {
			lacks(len(b.Commands[verb]) == 0, "boot.commands has no %s", verb)
		}
	}
	allowed := dialects[b.Backend]
	lacks(allowed != nil && !slices.Contains(allowed, b.Dialect), "boot.dialect is %q, expected %s", b.Dialect,
		strings.TrimPrefix(strings.Join(allowed, " or "), " or "))
	for _, s := range c.Slot {
		slotNeeds(lacks, c, s)
	}
	lacks(CheckSlots(c) != nil, "slot %s: it is the only one, expected 2 for this boot loader", c.Slot[0].Name)
	if err, ok := errors.AsType[*config.Error](c.CheckInstallable()); ok {
		lacks(true, "state is missing: %w", err.Err)
	}
	return errors.Join(errs...)
}

// slotNeeds is needs for one slot.
func slotNeeds(lacks func(lacking bool, format string, a ...any), c *config.Config, s config.Slot) {
	backend, first := c.Boot.Backend, c.Slot[0]
	lacks(backend == "efi" && !strings.HasPrefix(s.Loader, `\`), `slot %s: loader is %q, expected the EFI program on the ESP, such as \EFI\slots\%[1]s.efi`,
		s.Name, s.Loader)
	lacks(backend == "tryboot" && (s.BootPartition < 1 || s.BootPartition > 9), "slot %s: boot_partition is %d, expected 1 to 9", s.Name, s.BootPartition)
	lacks(backend == "barebox" && (s.Attempts == nil || s.Priority == nil),
		"slot %s: attempts and priority are the offsets of its variables, and both are needed", s.Name)
	lacks(!slices.Equal(s.Roles(), first.Roles()), "slot %s: role %s, expected those of slot %s, %s", s.Name, strings.Join(s.Roles(), ", "), first.Name,
		strings.Join(first.Roles(), ", "))
}
