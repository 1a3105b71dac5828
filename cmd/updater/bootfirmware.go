package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"updater/blockdev"
	"updater/boot"
	"updater/boot/efi"
	"updater/boot/rpi"
	"updater/boot/sdboot"
)

// needsFirmware refuses a disk image file: the firmware is that of this machine, not of the image.
func (d *device) needsFirmware() error {
	if d.disk.IsFile() {
		return usagef("boot.backend %s changes the firmware of this machine; %s is a disk image file", d.config.Boot.Backend, d.disk.Path())
	}
	return nil
}

func (d *device) efiOptions() (efi.Options, error) {
	o := efi.Options{Slots: d.config.slotNames(), Targets: map[string]efi.Target{}}
	esp, err := d.disk.Find(d.config.Boot.ESP)
	if err != nil {
		return o, fmt.Errorf("boot.esp: %w", err)
	}
	if mount, err := blockdev.MountPoint(esp.Path); err == nil && mount != "" {
		d.folders = append(d.folders, mount)
	}
	sector := d.disk.SectorSize()
	for _, s := range d.config.Slot {
		if !strings.HasPrefix(s.Loader, `\`) {
			return o, usagef(`slot %s: loader is %q, expected the EFI program on the ESP, such as \EFI\slots\%s.efi`, s.Name, s.Loader, s.Name)
		}
		o.Targets[s.Name] = efi.Target{
			Partition: efi.Partition{Number: esp.Number, Start: uint64(esp.Offset / sector), Size: uint64(esp.Size / sector), GUID: esp.UUID},
			Path:      s.Loader, Description: "slot " + s.Name,
		}
	}
	o.Vars, err = efi.OpenFirmware(efi.Global)
	return o, err
}

func (d *device) openEFI(booted string, _ blockdev.Mode) (boot.Backend, error) {
	if err := d.needsFirmware(); err != nil {
		return nil, err
	}
	o, err := d.efiOptions()
	if err != nil {
		return nil, err
	}
	return efi.New(o, booted)
}

// openSystemdBoot works on the mounted ESP: boot.esp is its mount point, or the partition, which is mounted
// for as long as the run takes where it is not.
func (d *device) openSystemdBoot(booted string, mode blockdev.Mode) (boot.Backend, error) {
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
	o := sdboot.Options{Dir: folder, Slots: d.config.slotNames(), Prefix: d.config.Boot.Prefix}
	if vars, err := efi.OpenFirmware(efi.Loader); err == nil && !d.disk.IsFile() {
		o.Default = func() (string, error) { return efi.String(vars, "LoaderEntryDefault") }
	}
	return sdboot.New(o, booted)
}

func (d *device) espFolder(mode blockdev.Mode) (string, error) {
	esp := d.config.Boot.ESP
	if esp == "" {
		return "", usagef("boot.esp is missing; expected the ESP's mount point or partition")
	}
	if filepath.IsAbs(esp) && !strings.HasPrefix(esp, "/dev/") {
		return esp, nil
	}
	p, err := d.disk.Find(esp)
	if err != nil {
		return "", err
	}
	if d.disk.IsFile() {
		return "", usagef("boot.esp %s is inside a disk image file, whose files cannot be renamed; name a folder", esp)
	}
	if mount, err := blockdev.MountPoint(p.Path); err != nil || mount != "" {
		return mount, err
	}
	return d.mountFor(p, "vfat", "esp", mode)
}

func (d *device) openRaspberryPi(booted string, mode blockdev.Mode) (boot.Backend, error) {
	if err := d.needsFirmware(); err != nil {
		return nil, err
	}
	area, _, err := d.openGrubEnv(d.config.Boot.Env.File, mode)
	if err != nil {
		return nil, err
	}
	return rpi.New(rpi.Options{Area: area, Flag: rpi.Mailbox{Path: rpi.DefaultMailbox}, Slots: d.config.slotNames(), Partition: d.bootPartitions()}, booted)
}

func (d *device) bootPartitions() map[string]int {
	parts := map[string]int{}
	for _, s := range d.config.Slot {
		parts[s.Name] = s.BootPartition
	}
	return parts
}

// firmwareWitness is the slot that the firmware or the boot loader says it has started.
func (d *device) firmwareWitness() (boot.Witness, error) {
	var w boot.Witness
	var err error
	switch d.config.Boot.Backend {
	case "efi":
		w.Source = "BootCurrent"
		var o efi.Options
		if o, err = d.efiOptions(); err == nil {
			w.Slot, err = efi.Running(o)
		}
	case "systemd-boot":
		w.Source = "LoaderEntrySelected"
		vars, verr := efi.OpenFirmware(efi.Loader)
		if verr != nil {
			return w, nil // the command line and the root device are left
		}
		var id string
		id, err = efi.String(vars, "LoaderEntrySelected")
		w.Slot = sdboot.Selected(sdboot.Options{Prefix: d.config.Boot.Prefix, Slots: d.config.slotNames()}, id)
	case "tryboot":
		w.Source = "the device tree"
		w.Slot, err = rpi.Running("/proc/device-tree", d.config.slotNames(), d.bootPartitions())
	}
	if errors.Is(err, boot.ErrState) || err == nil {
		return w, err
	}
	return w, fmt.Errorf("finding the running slot: %w", err)
}
