package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"updater/blockdev"
	"updater/boot"
	"updater/boot/uboot"
	"updater/provision"
	"updater/update"
)

// setBoot makes the plan's slot the first choice of the boot loader, the other slots that the plan writes the next
// ones, and those that hold no image no choice at all. What else is in a whole-disk image is left as the image has it.
func (l *line) setBoot(ctx context.Context, disk string) error {
	c, err := loadConfig(l.plan.Config)
	if err != nil {
		return &usageError{err: fmt.Errorf("the plan's configuration %s: %w", l.plan.Config, err)}
	}
	first, others := "", []string{}
	for _, s := range c.Slot {
		switch {
		case !l.written(s):
		case l.plan.Slot == "" && first == "" || s.Name == l.plan.Slot:
			first = s.Name
		case l.plan.Image == nil:
			others = append(others, s.Name)
		}
	}
	if first == "" {
		return usagef("plan %s: %w", l.o.plan, errSlots)
	}
	if err := c.onTarget(disk, l.o.inside); err != nil {
		return fmt.Errorf("the plan's configuration %s: %w", l.plan.Config, err)
	}
	opened, err := blockdev.OpenDisk(disk)
	if err != nil {
		return err
	}
	dev := &device{config: c, disk: opened}
	defer dev.Close()
	if err := opened.Lock(rereadPatience); err != nil {
		return err
	}
	if l.plan.Environment != "" {
		if err := l.newEnvironment(dev); err != nil {
			return err
		}
	}
	// Nothing of this disk is running, whatever the kernel command line of the station says.
	if dev.backend, err = dev.openBackend("", blockdev.Exclusive); err != nil {
		return err
	}
	for _, slot := range append(others, first) { // the last one is the first choice
		if err := dev.backend.Activate(ctx, slot, dev.tries()); err != nil {
			return err
		}
	}
	for _, s := range c.Slot {
		if l.written(s) {
			continue
		}
		if err := dev.backend.Invalidate(ctx, s.Name); err != nil && !errors.Is(err, boot.ErrRefused) {
			return err
		}
	}
	st, err := dev.backend.State(ctx)
	if err == nil && st.Next != first {
		err = fmt.Errorf("%w: slot %s was activated, but the next choice is %q", boot.ErrState, first, st.Next)
	}
	if err != nil {
		return err
	}
	return l.remember(dev)
}

// remember fills the device's memory with what the slots of a layout hold, where it is on the target.
func (l *line) remember(dev *device) error {
	if l.plan.Image != nil || !strings.Contains(dev.config.State.Device, "=") {
		return nil
	}
	m, err := dev.openMemory(blockdev.Exclusive)
	if err != nil {
		return err
	}
	for _, s := range dev.config.Slot {
		for _, role := range slices.Sorted(maps.Keys(s.Partitions)) {
			i := slices.IndexFunc(l.payloads, func(p *provision.Payload) bool { return s.Partitions[role] == "PARTLABEL="+p.Partition })
			if i < 0 {
				continue
			}
			if err := m.Record(l.payloads[i].Doc.Record(s.Name, role, update.OutcomeInstalled, m.now())); err != nil {
				return err
			}
			files := l.signed[l.payloads[i].Partition]
			if err := m.maps.Put(s.Name+"/"+role, files.unverifiedBmap, files.unverifiedSig); err != nil {
				l.env.warn("a recovery of this device cannot tell whether slot %s is intact: %v", s.Name, err)
			}
		}
	}
	return nil
}

// newEnvironment writes U-Boot's environment of a new device, whatever an earlier life of the disk left there.
func (l *line) newEnvironment(dev *device) error {
	if dev.config.Boot.Backend != "uboot" {
		return usagef("plan %s: environment is for boot.backend uboot, the configuration has %s", l.o.plan, dev.config.Boot.Backend)
	}
	text, err := readCapped(l.plan.Environment, uboot.MaxEnvironment)
	if err != nil {
		return fmt.Errorf("reading U-Boot's initial environment: %w", err)
	}
	o, err := dev.ubootOptions(blockdev.Exclusive)
	if err != nil {
		return err
	}
	return uboot.Create(o.Areas, string(text))
}

// ofDisk is what follows a disk's node in those of its partitions and of an eMMC's boot partitions.
var ofDisk = regexp.MustCompile(`^(p?[0-9]+|boot[01])?$`)

// onTarget turns the configuration of a device into one for the target: the boot state that is set up is that of the
// target, never one of the station. On the device itself, inside the initramfs, its firmware and flash count as well.
func (c *Config) onTarget(disk string, inside bool) error {
	own := c.Disk.Path
	c.Disk.Path = disk
	elsewhere := func(what string) error {
		return usagef("%s is not on the target %s; name its place as PARTLABEL=..., or provision in the device's initramfs", what, disk)
	}
	b := &c.Boot
	for i, a := range b.Env.Areas {
		rest, isOwn := strings.CutPrefix(a.Device, own)
		switch {
		case strings.Contains(a.Device, "="):
		case own != "" && isOwn && rest == "": // the whole disk, whatever its node is here
			b.Env.Areas[i].Device = disk
		case inside && flashNode.MatchString(a.Device):
		default:
			if rest, ok := strings.CutPrefix(a.Device, disk); !ok || !ofDisk.MatchString(rest) {
				return elsewhere("boot.env " + a.Device)
			}
		}
	}
	switch {
	case b.FWEnvConfig != "":
		return elsewhere("boot.fw_env_config")
	case b.Env.File != "" && !strings.Contains(b.Env.File, "="):
		return elsewhere("boot.env " + b.Env.File)
	case b.Backend == "systemd-boot" && !strings.Contains(b.ESP, "="):
		return elsewhere("boot.esp " + b.ESP)
	case !inside && slices.Contains([]string{"efi", "custom"}, b.Backend):
		return elsewhere("the boot state of " + b.Backend)
	}
	return nil
}

// written tells whether a plan writes every partition of a slot; a whole-disk image brings all.
func (l *line) written(s SlotConfig) bool {
	if l.plan.Image != nil {
		return true
	}
	for _, spec := range s.Partitions {
		if !slices.ContainsFunc(l.plan.Partition, func(p provision.PartitionRule) bool { return p.Image != "" && spec == "PARTLABEL="+p.Name }) {
			return false
		}
	}
	return true
}
