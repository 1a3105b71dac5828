package device

import (
	"context"

	"updater/blockdev"
	"updater/boot"
	"updater/boot/android"
	"updater/boot/barebox"
	"updater/boot/custom"
	"updater/boot/gpt"
	"updater/device/config"
)

// openGPT opens the two copies of the partition table, beside partitions that are in use. When the state may be changed, a damaged copy is
// restored first.
func (d *Device) openGPT(booted string, mode blockdev.Mode) (boot.Backend, error) {
	role, err := d.Config.Role(d.Config.Boot.Role)
	if err != nil {
		return nil, err
	}
	o := gpt.Options{Size: d.disk.Size(), Sector: int(d.disk.SectorSize()), Slots: d.Config.SlotNames(), Partition: map[string]int{}}
	for _, s := range o.Slots {
		p, err := d.Partition(s, role)
		if err != nil {
			return nil, err
		}
		o.Partition[s] = p.Number
	}
	primary, backup, err := d.disk.TableAreas()
	if err != nil {
		return nil, err
	}
	if o.Primary, err = d.keep(blockdev.OpenPath(d.disk.Path(), 0, primary, shared(mode))); err != nil {
		return nil, err
	}
	if o.Backup, err = d.keep(blockdev.OpenPath(d.disk.Path(), -backup, backup, shared(mode))); err != nil {
		return nil, err
	}
	b, err := gpt.New(o, booted)
	if err == nil && mode != blockdev.ReadOnly {
		err = b.Repair(context.Background())
	}
	return b, err
}

// shared is the mode for boot state in a raw area of a disk that is in use.
func shared(mode blockdev.Mode) blockdev.Mode {
	if mode == blockdev.Exclusive {
		return blockdev.Shared
	}
	return mode
}

// openAndroid opens bootloader_control: env = PARTITION is its usual place in misc, a list names the areas of it and its copy.
func (d *Device) openAndroid(booted string, mode blockdev.Mode) (boot.Backend, error) {
	env := d.Config.Boot.Env
	if env.File != "" {
		env.Areas = append(env.Areas, config.Area{Device: env.File, Offset: android.Offset, Size: android.Size})
	}
	if n := len(env.Areas); n < 1 || n > 2 {
		return nil, config.Requestf("boot.env: %d areas, expected the misc partition, or one or two areas of %d bytes", n, android.Size)
	}
	areas := make([]boot.Area, 2)
	for i, a := range env.Areas {
		area, err := d.openArea(a, mode)
		if err != nil {
			return nil, err
		}
		areas[i] = area
	}
	return android.New(android.Options{Area: areas[0], Backup: areas[1], Slots: d.Config.SlotNames()}, booted)
}

func (d *Device) openBarebox(booted string, mode blockdev.Mode) (boot.Backend, error) {
	c := d.Config.Boot
	if len(c.Env.Areas) != 1 {
		return nil, config.Requestf("boot.env: %d areas, expected the one that holds the three buckets", len(c.Env.Areas))
	}
	area, err := d.openArea(c.Env.Areas[0], mode)
	if err != nil {
		return nil, err
	}
	o := barebox.Options{
		Area: area, Stride: c.Barebox.Stride, Magic: uint32(c.Barebox.Magic), GoodTries: c.Barebox.Attempts,
		Slots: d.Config.SlotNames(), Targets: map[string]barebox.Target{},
	}
	for _, s := range d.Config.Slot {
		if s.Attempts != nil && s.Priority != nil {
			o.Targets[s.Name] = barebox.Target{Attempts: *s.Attempts, Priority: *s.Priority}
		}
	}
	return barebox.New(o, booted)
}

// openCustom is for the running system: the initramfs contains no program but this one.
func (d *Device) openCustom(booted string, _ blockdev.Mode) (boot.Backend, error) {
	c := d.Config.Boot.Commands
	return custom.New(custom.Commands{State: c["state"], Invalidate: c["invalidate"], Activate: c["activate"], Good: c["good"], Bad: c["bad"]}, d.Config.SlotNames(), booted)
}
