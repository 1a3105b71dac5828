package device

import (
	"fmt"
	"path/filepath"
	"strings"

	"updater/blockdev"
	"updater/boot"
	"updater/boot/efi"
	"updater/boot/sdboot"
	"updater/boot/tryboot"
	"updater/device/config"
)

func (d *Device) efiOptions() (efi.Options, error) {
	o := efi.Options{Slots: d.Config.SlotNames(), Targets: map[string]efi.Target{}}
	esp, err := d.find("boot.esp", d.Config.Boot.ESP)
	if err != nil {
		return o, err
	}
	if mount, err := blockdev.MountPoint(esp.Path); err == nil && mount != "" {
		d.folders = append(d.folders, mount)
	}
	sector := d.disk.SectorSize()
	for _, s := range d.Config.Slot {
		if !strings.HasPrefix(s.Loader, `\`) {
			return o, config.Requestf(`slot %s: loader is %q, expected the EFI program on the ESP, such as \EFI\slots\%s.efi`, s.Name, s.Loader, s.Name)
		}
		o.Targets[s.Name] = efi.Target{
			Partition: efi.Partition{Number: esp.Number, Start: uint64(esp.Offset / sector), Size: uint64(esp.Size / sector), GUID: esp.UUID},
			Path:      s.Loader, Description: "slot " + s.Name,
		}
	}
	o.Vars, err = efi.OpenFirmware(efi.Global)
	return o, err
}

func (d *Device) openEFI(booted string, _ blockdev.Mode) (boot.Backend, error) {
	o, err := d.efiOptions()
	if err != nil {
		return nil, err
	}
	return efi.New(o, booted)
}

// openSystemdBoot opens the ESP: boot.esp is its mount point, or the partition, which is mounted until the device is closed unless it is
// mounted already.
func (d *Device) openSystemdBoot(booted string, mode blockdev.Mode) (boot.Backend, error) {
	mount, err := d.espFolder(mode)
	if err != nil {
		return nil, err
	}
	folder, err := sdboot.OpenFolder(mount)
	if err != nil {
		return nil, fmt.Errorf("opening the ESP: %w", err)
	}
	d.closers = append(d.closers, folder.Close)
	d.folders = append(d.folders, mount)
	o := sdboot.Options{Dir: folder, Slots: d.Config.SlotNames(), Prefix: d.Config.Boot.Prefix, Beside: config.Beside}
	if vars, err := efi.OpenFirmware(efi.Loader); err == nil && !d.disk.IsFile() {
		o.Default = func() (string, error) { return efi.String(vars, "LoaderEntryDefault") }
	}
	return sdboot.New(o, booted)
}

// systemdBootOwns lists the loader, its entries, and the templates of the other slots.
func systemdBootOwns(c *config.Config, slot string) []string {
	list := []string{"loader/entries", "loader/loader.conf", "EFI/Linux", "EFI/BOOT", "EFI/systemd"}
	for _, other := range c.SlotNames() {
		if other != slot {
			list = append(list, sdboot.Templates(other)...)
		}
	}
	return list
}

// efiOwns lists the programs of the other slots, and the one that starts without a boot option.
func efiOwns(c *config.Config, slot string) []string {
	list := []string{"EFI/BOOT"}
	for _, s := range c.Slot {
		if s.Name != slot {
			list = append(list, strings.TrimPrefix(strings.ReplaceAll(s.Loader, `\`, "/"), "/"))
		}
	}
	return list
}

func (d *Device) espFolder(mode blockdev.Mode) (string, error) {
	esp := d.Config.Boot.ESP
	if esp == "" {
		return "", config.Requestf("boot.esp is missing; expected the ESP's mount point or partition")
	}
	if filepath.IsAbs(esp) && !strings.HasPrefix(esp, "/dev/") {
		return esp, nil
	}
	p, err := d.find("boot.esp", esp)
	if err != nil {
		return "", err
	}
	if d.disk.IsFile() {
		return "", config.Requestf("boot.esp %s is inside a disk image file, whose files cannot be renamed; name a folder", esp)
	}
	if mount, err := blockdev.MountPoint(p.Path); err != nil || mount != "" {
		return mount, err
	}
	return d.mountFor(p, "vfat", "esp", mode)
}

func (d *Device) openTryboot(booted string, mode blockdev.Mode) (boot.Backend, error) {
	area, _, err := d.openFile(d.Config.Boot.Env.File, mode)
	if err != nil {
		return nil, err
	}
	return tryboot.New(tryboot.Options{Area: area, Flag: d.trybootFlag(), Slots: d.Config.SlotNames(), Partition: d.bootPartitions()}, booted)
}

// trybootFlag is the flag of this machine's firmware, unless the disk is another machine's: the flag of a disk image is a file beside it, and
// that of a target's disk does not last.
func (d *Device) trybootFlag() tryboot.Flag {
	switch {
	case d.disk.IsFile():
		return tryboot.File{Path: d.disk.Path() + ".tryboot"}
	case d.target:
		return new(tryboot.Held)
	}
	return tryboot.Mailbox{Path: tryboot.DefaultMailbox}
}

func (d *Device) bootPartitions() map[string]int {
	parts := map[string]int{}
	for _, s := range d.Config.Slot {
		parts[s.Name] = s.BootPartition
	}
	return parts
}

// efiStarted is the slot that the firmware started.
func (d *Device) efiStarted() (w boot.Witness, err error) {
	w.Source = "BootCurrent"
	o, err := d.efiOptions()
	if err == nil {
		w.Slot, err = efi.Running(o)
	}
	return w, err
}

// systemdBootStarted is the slot whose entry systemd-boot reports. Without the variable the command line and the root file system remain.
func (d *Device) systemdBootStarted() (w boot.Witness, err error) {
	w.Source = "LoaderEntrySelected"
	vars, err := efi.OpenFirmware(efi.Loader)
	if err != nil {
		return w, nil
	}
	id, err := efi.String(vars, "LoaderEntrySelected")
	w.Slot = sdboot.Selected(sdboot.Options{Prefix: d.Config.Boot.Prefix, Slots: d.Config.SlotNames()}, id)
	return w, err
}

// trybootStarted is the slot of the partition that the firmware of the Raspberry Pi reports in the device tree.
func (d *Device) trybootStarted() (w boot.Witness, err error) {
	w.Source = "the device tree"
	w.Slot, err = tryboot.Running("/proc/device-tree", d.Config.SlotNames(), d.bootPartitions())
	return w, err
}
