package main

import (
	"context"

	"updater/blockdev"
	"updater/boot"
	"updater/boot/android"
	"updater/boot/barebox"
	"updater/boot/custom"
	"updater/boot/gpt"
	"updater/boot/uboot"
)

// openGPT opens the two copies of the partition table, beside partitions that are in use. A damaged copy is
// restored before anything else when the state may be changed.
func (d *device) openGPT(booted string, mode blockdev.Mode) (boot.Backend, error) {
	role, err := d.config.role(d.config.Boot.Role)
	if err != nil {
		return nil, err
	}
	sector := int(d.disk.SectorSize())
	o := gpt.Options{Sector: sector, Slots: d.config.slotNames(), Partition: map[string]int{}}
	for _, s := range o.Slots {
		p, err := d.slotPartition(s, role)
		if err != nil {
			return nil, err
		}
		o.Partition[s] = p.Number
	}
	if o.Primary, err = d.keep(blockdev.OpenPath(d.disk.Path(), 0, gpt.PrimarySize(sector), shared(mode))); err != nil {
		return nil, err
	}
	if o.Backup, err = d.keep(blockdev.OpenPath(d.disk.Path(), -gpt.BackupSize(sector), gpt.BackupSize(sector), shared(mode))); err != nil {
		return nil, err
	}
	b, err := gpt.New(o, booted)
	if err == nil && mode != blockdev.ReadOnly {
		err = b.Repair(context.Background())
	}
	return b, err
}

// shared is the mode for boot state at a raw place of a disk that is in use.
func shared(mode blockdev.Mode) blockdev.Mode {
	if mode == blockdev.Exclusive {
		return blockdev.Shared
	}
	return mode
}

// openAndroid opens bootloader_control: env = PARTITION is the usual place in misc, a list says where it and
// its copy are.
func (d *device) openAndroid(booted string, mode blockdev.Mode) (boot.Backend, error) {
	env := d.config.Boot.Env
	if env.File != "" {
		env.Areas = append(env.Areas, uboot.AreaConfig{Device: env.File, Offset: android.Offset, Size: android.Size})
	}
	if n := len(env.Areas); n < 1 || n > 2 {
		return nil, usagef("boot.env: %d areas, expected the misc partition, or one or two areas of %d bytes", n, android.Size)
	}
	o := android.Options{Slots: d.config.slotNames()}
	for i, a := range env.Areas {
		area, err := d.openArea(a, mode)
		if err != nil {
			return nil, err
		}
		*[]*boot.Area{&o.Area, &o.Backup}[i] = area
	}
	return android.New(o, booted)
}

func (d *device) openBarebox(booted string, mode blockdev.Mode) (boot.Backend, error) {
	c := d.config.Boot
	if len(c.Env.Areas) != 1 {
		return nil, usagef("boot.env: %d areas, expected the one that holds the three buckets", len(c.Env.Areas))
	}
	area, err := d.openArea(c.Env.Areas[0], mode)
	if err != nil {
		return nil, err
	}
	o := barebox.Options{
		Area: area, Stride: c.Barebox.Stride, Magic: uint32(c.Barebox.Magic), GoodTries: c.Barebox.Attempts,
		Slots: d.config.slotNames(), Targets: map[string]barebox.Target{},
	}
	for _, s := range d.config.Slot {
		if s.Attempts != nil && s.Priority != nil {
			o.Targets[s.Name] = barebox.Target{Attempts: *s.Attempts, Priority: *s.Priority}
		}
	}
	return barebox.New(o, booted)
}

// openCustom is for the running system: the initramfs has no other program than this one.
func (d *device) openCustom(booted string, _ blockdev.Mode) (boot.Backend, error) {
	c := d.config.Boot.Commands
	return custom.New(custom.Commands{State: c["state"], Invalidate: c["invalidate"], Activate: c["activate"], Good: c["good"], Bad: c["bad"]}, d.config.slotNames(), booted)
}
