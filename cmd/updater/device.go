package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"updater/blockdev"
	"updater/boot"
	"updater/boot/grub"
	"updater/boot/uboot"
	"updater/update"
)

// lockPatience outlasts udev's probing, and refuses a second install at once for a person.
const lockPatience = 50 * time.Millisecond

// device is the configured disk with its boot state. It wires blockdev and boot to what update asks for.
type device struct {
	config  *Config
	disk    *blockdev.Disk
	backend boot.Backend
	areas   []*blockdev.Device
	opened  func(blockdev.Facts) // told of the slot before it is written; may be nil
	*memory
}

// openDevice opens the disk and its boot state; booted is the value of --booted. The boot state is opened
// for writing only when mode is not ReadOnly, and then under the disk's lock.
func openDevice(c *Config, booted string, mode blockdev.Mode) (_ *device, err error) {
	disk, err := openDisk(c)
	if err != nil {
		return nil, err
	}
	d := &device{config: c, disk: disk}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	if mode != blockdev.ReadOnly {
		if err := disk.Lock(lockPatience); err != nil {
			return nil, err
		}
	}
	if booted, err = d.booted(booted); err != nil {
		return nil, err
	}
	if d.backend, err = d.openBackend(booted, mode); err != nil {
		return nil, err
	}
	if d.memory, err = d.openMemory(mode); err != nil {
		return nil, err
	}
	return d, nil
}

// openDisk opens the configured disk, or the one that booted.
func openDisk(c *Config) (*blockdev.Disk, error) {
	path, err := c.diskPath()
	if err != nil {
		return nil, err
	}
	return blockdev.OpenDisk(path)
}

// Close closes everything and gives up the lock.
func (d *device) Close() error {
	var errs []error
	for _, a := range d.areas {
		errs = append(errs, a.Close())
	}
	return errors.Join(append(errs, d.disk.Close())...)
}

// booted is the running slot: from the kernel command line on a device, never from the stored choice. For
// a disk that no kernel booted from, --booted or the configuration says it; "" is none of them.
func (d *device) booted(asked string) (string, error) {
	if asked != "" && !slices.Contains(d.config.slotNames(), asked) {
		return "", usagef("--booted %s: there is no such slot; there are %s", asked, strings.Join(d.config.slotNames(), ", "))
	}
	if asked == "" {
		asked = d.config.Boot.Booted
	}
	if d.disk.IsFile() {
		return asked, nil
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", fmt.Errorf("finding the running slot: %w", err)
	}
	running, err := boot.Booted(string(cmdline), d.slotRoots())
	if err != nil {
		return "", err
	}
	if running != "" && asked != "" && running != asked {
		return "", usagef("the kernel command line says that slot %s is running; --booted and boot.booted cannot say %s", running, asked)
	}
	if running == "" {
		running = asked
	}
	return running, nil
}

// slotRoots lists every way in which root= may name a slot's partition.
func (d *device) slotRoots() []boot.SlotRoot {
	var roots []boot.SlotRoot
	for _, s := range d.config.Slot {
		r := boot.SlotRoot{Name: s.Name}
		for _, spec := range s.Partitions {
			r.Roots = append(r.Roots, spec)
			if p, err := d.disk.Find(spec); err == nil {
				r.Roots = append(r.Roots, "PARTLABEL="+p.Label, "PARTUUID="+p.UUID, p.Path)
			}
		}
		roots = append(roots, r)
	}
	return roots
}

func (d *device) openBackend(booted string, mode blockdev.Mode) (boot.Backend, error) {
	if d.config.Boot.Backend == "grub" {
		area, err := d.openGrubEnv(d.config.Boot.Env.File, mode)
		if err != nil {
			return nil, err
		}
		return grub.New(area, d.config.slotNames(), booted)
	}
	configs, err := d.ubootAreas()
	if err != nil {
		return nil, err
	}
	var areas []boot.Area
	for _, a := range configs {
		area, err := d.openArea(a, mode)
		if err != nil {
			return nil, err
		}
		areas = append(areas, area)
	}
	return uboot.New(areas, d.config.slotNames(), booted)
}

// openGrubEnv opens a grubenv: a file on a mounted path, or PARTITION:/PATH in a FAT file system of the
// disk. Where that partition is mounted the file is reached through the mount, so that the file system's
// cache and ours are the same.
func (d *device) openGrubEnv(env string, mode blockdev.Mode) (*blockdev.Device, error) {
	if env == "" {
		return nil, usagef("boot.env is missing; expected the path of the grubenv, or PARTITION:/PATH")
	}
	spec, path, inPartition := strings.Cut(env, ":/")
	if !inPartition {
		return d.keep(blockdev.OpenPath(env, 0, 0, mode))
	}
	p, err := d.disk.Find(spec)
	if err != nil {
		return nil, err
	}
	if mount, err := blockdev.MountPoint(p.Path); err != nil {
		return nil, err
	} else if mount != "" {
		return d.keep(blockdev.OpenPath(filepath.Join(mount, path), 0, 0, mode))
	}
	return d.keep(p.OpenFATFile("/"+path, mode))
}

func (d *device) ubootAreas() ([]uboot.AreaConfig, error) {
	b := d.config.Boot
	if (b.FWEnvConfig == "") == (len(b.Env.Areas) == 0) {
		return nil, usagef("boot: expected either env = [ ... ] or fw_env_config for the uboot backend")
	}
	if b.FWEnvConfig == "" {
		return b.Env.Areas, nil
	}
	f, err := os.Open(b.FWEnvConfig)
	if err != nil {
		return nil, usagef("boot.fw_env_config: %w", err)
	}
	defer f.Close()
	areas, err := uboot.ParseFWEnvConfig(f)
	if err != nil {
		return nil, usagef("boot.fw_env_config %s: %w", b.FWEnvConfig, err)
	}
	return areas, nil
}

// openArea opens a raw area: in a partition of the disk, in the disk itself, or in a file. A device path
// means the disk image file, or a partition of it, when the disk is one.
func (d *device) openArea(a uboot.AreaConfig, mode blockdev.Mode) (*blockdev.Device, error) {
	if mode == blockdev.Exclusive {
		mode = blockdev.Shared
	}
	isNode := strings.HasPrefix(a.Device, "/dev/")
	if p, err := d.disk.Find(a.Device); err == nil {
		return d.keep(p.OpenWindow(a.Offset, a.Size, mode))
	} else if !isNode && a.Device != d.disk.Path() && strings.Contains(a.Device, "=") {
		return nil, err
	}
	path := a.Device
	if isNode && d.disk.IsFile() {
		path = d.disk.Path()
	}
	return d.keep(blockdev.OpenPath(path, a.Offset, a.Size, mode))
}

// keep remembers an opened area to close it.
func (d *device) keep(a *blockdev.Device, err error) (*blockdev.Device, error) {
	if err != nil {
		return nil, err
	}
	d.areas = append(d.areas, a)
	return a, nil
}

// tries is what the configuration asks for, bounded by what the backend can count.
func (d *device) tries() int { return min(d.config.Boot.Tries, d.backend.Caps().MaxTries) }

// Slots implements update.Boot.
func (d *device) Slots(ctx context.Context) ([]update.Slot, error) {
	st, err := d.backend.State(ctx)
	if err != nil {
		return nil, err
	}
	slots := make([]update.Slot, len(st.Slots))
	for i, s := range st.Slots {
		slots[i] = update.Slot{Name: s.Name, Booted: s.Name == st.Booted, Next: s.Name == st.Next, Bootable: s.Bootable}
	}
	return slots, nil
}

// Invalidate implements update.Boot.
func (d *device) Invalidate(ctx context.Context, slot string) error {
	return d.backend.Invalidate(ctx, slot)
}

// Activate implements update.Boot.
func (d *device) Activate(ctx context.Context, slot string, tries int) error {
	return d.backend.Activate(ctx, slot, tries)
}

// SlotSize implements update.Disk.
func (d *device) SlotSize(slot, role string) (int64, error) {
	p, err := d.slotPartition(slot, role)
	return p.Size, err
}

// OpenSlot implements update.Disk.
func (d *device) OpenSlot(slot, role string) (update.Target, error) {
	p, err := d.slotPartition(slot, role)
	if err != nil {
		return nil, err
	}
	dev, err := p.Open(blockdev.Exclusive)
	if err != nil {
		return nil, err
	}
	w, err := dev.NewWriter(blockdev.WriterOptions{Engine: d.config.Disk.Engine})
	if err != nil {
		dev.Close()
		return nil, err
	}
	if d.opened != nil {
		d.opened(dev.Facts())
	}
	return w, nil
}

func (d *device) slotPartition(slot, role string) (blockdev.Partition, error) {
	spec, err := d.config.partition(slot, role)
	if err != nil {
		return blockdev.Partition{}, err
	}
	return d.disk.Find(spec)
}
