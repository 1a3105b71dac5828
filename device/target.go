package device

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"updater/blockdev"
	"updater/boot"
	"updater/boot/uboot"
	"updater/device/config"
	"updater/state"
)

// targetPatience outlasts udev, which probes every new partition.
const targetPatience = 10 * time.Second

// OpenTarget opens a disk as the device that a configuration is for, to set it up: the boot state is that of the target, never one of the
// station. inside is set if this program runs on the device itself, whose firmware and flash then count as well. It holds the install lock
// until it is closed; the boot state is opened by [Device.SetChoice]. Errors: [config.RequestError], [blockdev.LockedError].
func OpenTarget(c *config.Config, disk string, inside bool) (*Device, error) {
	if err := onTarget(c, disk, inside); err != nil {
		return nil, err
	}
	opened, err := blockdev.OpenDisk(disk)
	if err != nil {
		return nil, err
	}
	if err := opened.Lock(targetPatience); err != nil {
		return nil, errors.Join(err, opened.Close())
	}
	return &Device{Config: c, disk: opened, target: true}, nil
}

// ofDisk matches the suffixes of a disk's node in the nodes of its partitions and of an eMMC's boot partitions.
var ofDisk = regexp.MustCompile(`^(p?[0-9]+|boot[01])?$`)

// onTarget turns the configuration of a device into one for the disk of a target.
func onTarget(c *config.Config, disk string, inside bool) error {
	own := c.Disk.Path
	c.Disk.Path = disk
	elsewhere := func(what string) error {
		return config.Requestf("%s is not on the target %s; name its place as PARTLABEL=..., or provision in the device's initramfs", what, disk)
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
	row := backends[b.Backend]
	switch {
	case b.FWEnvConfig != "":
		return elsewhere("boot.fw_env_config")
	case b.Env.File != "" && !strings.Contains(b.Env.File, "="):
		return elsewhere("boot.env " + b.Env.File)
	case row.esp && !strings.Contains(b.ESP, "="):
		return elsewhere("boot.esp " + b.ESP)
	case row.machine && !inside:
		return elsewhere("the boot state of " + b.Backend)
	}
	return nil
}

// CreateEnvironment writes the environment of a new device, whatever an earlier use of the disk left there. text is one NAME=VALUE a
// line. Errors: [config.RequestError] when the boot loader has none.
func (d *Device) CreateEnvironment(text string) error {
	create := backends[d.Config.Boot.Backend].create
	if create == nil {
		return config.Requestf("an initial environment is for boot.backend uboot, the configuration has %s", d.Config.Boot.Backend)
	}
	return d.underLock(func() error { return create(d, text) })
}

// createUBoot creates U-Boot's environment.
func (d *Device) createUBoot(text string) error {
	o, err := d.ubootOptions(blockdev.Exclusive)
	if err != nil {
		return err
	}
	return uboot.Create(o.Areas, text)
}

// MaxEnvironment bounds the text of [Device.CreateEnvironment], in bytes.
const MaxEnvironment = uboot.MaxEnvironment

// SetChoice makes the first slot the boot loader's choice, the others the next ones in their order, and marks the empty ones bad. No slot of the
// disk is running. Every change is durable and the choice was read back when it returns nil.
func (d *Device) SetChoice(ctx context.Context, first string, others []string, empty []config.Slot) error {
	return d.locked(func() error {
		for _, slot := range append(slices.Clone(others), first) { // the last one becomes the first choice
			if err := d.backend.Activate(ctx, slot, d.Tries()); err != nil {
				return err
			}
		}
		for _, slot := range empty {
			if err := d.backend.MarkBad(ctx, slot.Name); err != nil {
				return fmt.Errorf("slot %s holds no image: %w", slot.Name, err)
			}
		}
		st, err := d.backend.State(ctx)
		if err == nil && st.Next != first {
			err = fmt.Errorf("%w: slot %s was activated, but the next choice is %q", boot.ErrState, first, st.Next)
		}
		for _, s := range st.Slots {
			if err == nil && s.Bootable && slices.ContainsFunc(empty, func(e config.Slot) bool { return e.Name == s.Name }) {
				err = fmt.Errorf("%w: slot %s holds no image and is still a choice of the boot loader", boot.ErrState, s.Name)
			}
		}
		return err
	})
}

// RaiseFloor raises the rollback floor of a target to the one that the device had. Errors: [state.Error].
func (d *Device) RaiseFloor(floor int64) error {
	return d.locked(func() error {
		if d.store == nil {
			return config.Requestf("the floor %d cannot be kept: no state store is configured on the target", floor)
		}
		return d.change(d.Now(), func(s *state.State) { s.Floor = max(s.Floor, floor) })
	})
}

// HasStore reports whether a state store lies on the target's own disk. Elsewhere nothing is remembered.
func (d *Device) HasStore() bool { return strings.Contains(d.Config.State.Device, "=") }
