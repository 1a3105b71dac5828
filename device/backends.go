package device

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"updater/blockdev"
	"updater/boot"
	"updater/boot/grub"
	"updater/device/config"
)

// backend is one row of the table of boot loaders.
type backend struct {
	open func(d *Device, booted string, mode blockdev.Mode) (boot.Backend, error)
	// started is the slot that the firmware or the boot loader reports as started; nil where none does.
	started func(d *Device) (boot.Witness, error)
	// create writes the first state of a new device from its text form; nil where none has one.
	create func(d *Device, text string) error
	// owns lists the files and folders on boot.esp that no file role of a slot may be; nil where it has none.
	owns    func(c *config.Config, slot string) []string
	machine bool // the state is not on the disk of the device
	esp     bool // boot.esp says where the state is
	efi     bool // the state is in EFI variables, which a disk image file cannot have
	// recovers reports whether the boot loader starts the recovery when no slot is bootable, so that one slot is enough; nil if it never does.
	recovers func(b config.Boot) bool
}

// backends is the table of boot loaders, by the value of boot.backend.
var backends = map[string]backend{
	"grub":         {open: (*Device).openGRUB, recovers: func(b config.Boot) bool { return b.Dialect == string(grub.Tries) }},
	"uboot":        {open: (*Device).openUBoot, create: (*Device).createUBoot},
	"systemd-boot": {open: (*Device).openSystemdBoot, started: (*Device).systemdBootStarted, owns: systemdBootOwns, esp: true},
	"efi":          {open: (*Device).openEFI, started: (*Device).efiStarted, owns: efiOwns, machine: true, efi: true},
	"gpt":          {open: (*Device).openGPT},
	"tryboot":      {open: (*Device).openTryboot, started: (*Device).trybootStarted},
	"android":      {open: (*Device).openAndroid},
	"barebox":      {open: (*Device).openBarebox},
	"custom":       {open: (*Device).openCustom, machine: true},
}

// Backends lists the values of boot.backend.
func Backends() []string { return slices.Sorted(maps.Keys(backends)) }

// LoadConfig reads the configuration of this device. Errors: those of [config.Load].
func LoadConfig(path string, build config.Build) (*config.Config, error) {
	c, err := config.Load(path, Backends())
	if err == nil {
		c.Build = build
		err = CheckSlots(c)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// CheckSlots refuses a configuration with one slot for a boot loader that needs two. Errors: [config.Error].
func CheckSlots(c *config.Config) error {
	if recovers := backends[c.Boot.Backend].recovers; len(c.Slot) > 1 || recovers != nil && recovers(c.Boot) {
		return nil
	}
	return config.Errorf("configuration %s: one [[slot]], expected 2: only a boot loader that starts the recovery without a slot does with one: grub with "+
		"dialect = \"tries\"", c.File)
}

// NeedsEFI reports whether the boot loader of a configuration keeps its state in EFI variables.
func NeedsEFI(c *config.Config) bool { return backends[c.Boot.Backend].efi }

// openBackend opens the configured boot loader's state. Every activation first syncs the file systems that the boot loader reads.
func (d *Device) openBackend(booted string, mode blockdev.Mode) (boot.Backend, error) {
	row := backends[d.Config.Boot.Backend]
	if row.efi && d.disk.IsFile() {
		return nil, &config.RequestError{
			Err:    fmt.Errorf("boot.backend %s changes the firmware of this machine; %s is a disk image file", d.Config.Boot.Backend, d.disk.Path()),
			Advice: "run it on the device; with this boot loader nothing can be rehearsed on a disk image file",
		}
	}
	b, err := row.open(d, booted, mode)
	if err != nil {
		return nil, err
	}
	return boot.SyncFirst(b, d.syncFiles), nil
}

// firmwareWitness is the slot that the firmware or the boot loader reports as started.
func (d *Device) firmwareWitness() (boot.Witness, error) {
	started := backends[d.Config.Boot.Backend].started
	if started == nil {
		return boot.Witness{}, nil
	}
	w, err := started(d)
	if err == nil || errors.Is(err, boot.ErrState) {
		return w, err
	}
	return w, fmt.Errorf("finding the running slot: %w", err)
}
