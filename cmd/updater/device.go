package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"updater/blockdev"
	"updater/boot"
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
	folders []string             // whose file systems hold files that the boot loader reads
	opened  func(blockdev.Facts) // told of the slot before it is written; may be nil
	closers []func() error
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
	for _, end := range slices.Backward(d.closers) {
		errs = append(errs, end())
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
	witnesses, err := boot.Witnesses(string(cmdline), d.slotRoots())
	if err != nil {
		return "", err
	}
	firmware, err := d.firmwareWitness()
	if err != nil {
		return "", err
	}
	running, err := boot.Agree(append(witnesses, d.rootWitness(), firmware))
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

// rootWitness says which slot the root file system is on; none in an initramfs, or on a root that is no
// partition of the disk.
func (d *device) rootWitness() boot.Witness {
	w := boot.Witness{Source: "the root file system"}
	if node, err := blockdev.RootPartition(); err == nil {
		w.Slot = boot.ByRoot(node, d.slotRoots())
	}
	return w
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
		slots[i] = update.Slot{Name: s.Name, Booted: s.Name == st.Booted, Next: s.Name == st.Next, Bootable: s.Bootable, Good: s.Good}
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

// seed opens the same partition of another slot, to copy from: of the running one, or of the first other.
func (d *device) seed(slot, role string) (update.Seed, error) {
	st, err := d.backend.State(context.Background())
	if err != nil {
		return nil, err
	}
	from := st.Booted
	for _, s := range st.Slots {
		if from == "" && s.Name != slot {
			from = s.Name
		}
	}
	p, err := d.slotPartition(from, role)
	if err != nil {
		return nil, err
	}
	return p.Open(blockdev.ReadOnly)
}

func (d *device) slotPartition(slot, role string) (blockdev.Partition, error) {
	spec, err := d.config.partition(slot, role)
	if err != nil {
		return blockdev.Partition{}, err
	}
	return d.disk.Find(spec)
}
