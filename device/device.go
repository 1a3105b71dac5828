package device

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"updater/blockdev"
	"updater/boot"
	"updater/device/config"
	"updater/release"
	"updater/state"
	"updater/update"
)

// installPatience outlasts udev's probing; to a person, a second install is still refused at once.
const installPatience = 50 * time.Millisecond

// Purpose is the purpose for which a device is opened.
type Purpose int

// The purposes.
const (
	Read    Purpose = iota // changes nothing and takes no lock
	Change                 // changes the boot state or the state store, each time under the boot lock
	Install                // holds the install lock, too
)

// Facts are the kernel's facts about the medium that is written.
type Facts = blockdev.Facts

// Device is the configured device. It implements update.Boot, update.Disk and update.State. Not safe for concurrent use.
type Device struct {
	Config *config.Config
	Opened func(Facts) // is called with the facts of a slot's partition before it is written; may be nil
	Source string      // origin of the image that is being installed, for the record
	// Attempt is the channel's attempt that installs a release; 0 for a person.
	Attempt int64
	// Progress counts the bytes that Intact reads; may be nil.
	Progress *update.Progress

	disk      *blockdev.Disk
	booted    string // running slot; "" outside every slot
	caps      boot.Caps
	known     state.State          // of the state store, when it was read last
	keyrings  []release.Link       // of the state store, when it was read last
	warnings  []Warning            // of the state store, when the device was opened
	seen      *view                // by an install; nil before it listed the slots
	target    bool                 // another device than the running one
	recovery  bool                 // see [Options]
	restoring string               // slot that a repair writes; "" means none
	mounts    map[string]*mounting // by the node of the partition, for file roles

	session
}

// Options say how a device is opened.
type Options struct {
	Purpose Purpose
	// Recovery is set in the recovery, which alone may invalidate the only slot.
	Recovery bool
	Booted   string // slot that counts as running, for a disk that no kernel booted from; "" is boot.booted
}

// Open opens the disk and reads the boot state and the state store. Errors: [config.RequestError], [config.Error], [LockedError] when another
// install holds the disk, errors that wrap [ErrState], [StoreError].
func Open(c *config.Config, o Options) (_ *Device, err error) {
	d, err := openDisk(c)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	d.recovery = o.Recovery
	if o.Purpose == Install {
		if err := d.disk.Lock(installPatience); err != nil {
			return nil, err
		}
	}
	if d.booted, err = d.running(o.Booted); err != nil {
		return nil, err
	}
	keepWarnings := func() error { d.warnings = d.session.warnings; return nil }
	if o.Purpose == Read {
		return d, d.reading(keepWarnings)
	}
	return d, d.locked(func() error { // it may restore a bad copy, or create the file of the state store
		return errors.Join(keepWarnings(), d.settle(context.Background()))
	})
}

// openDisk opens the configured disk alone.
func openDisk(c *config.Config) (*Device, error) {
	path, err := DiskPath(c)
	if err != nil {
		return nil, err
	}
	disk, err := blockdev.OpenDisk(path)
	if err != nil {
		return nil, err
	}
	return &Device{Config: c, disk: disk}, nil
}

// DiskPath finds the node of the configured disk, or its image file. Without a configured one it is the disk that booted, or, in an
// initramfs, where none did, the only disk with the slots' partitions.
func DiskPath(c *config.Config) (string, error) {
	if spec, described := c.Disk.Described(); described {
		return blockdev.FindDisk(spec, nil)
	}
	if c.Disk.Path != "" {
		return c.Disk.Path, nil
	}
	path, err := blockdev.BootDisk()
	if errors.Is(err, blockdev.ErrNoBootDisk) {
		if only, bad := blockdev.FindDisk("", c.Labels()); bad == nil {
			return only, nil
		}
	}
	return path, err
}

// FindDisk finds the disk with the slots' partitions. It refuses to choose between two. Errors: those of [blockdev.FindDisk].
func FindDisk(c *config.Config) (string, error) { return blockdev.FindDisk(c.Disk.Path, c.Labels()) }

// Close releases the disk and its lock.
func (d *Device) Close() error { return d.disk.Close() }

// running is the booted slot: on a device by the kernel command line, the root file system and the firmware, never by the stored
// choice. For a disk that no kernel booted from it is the slot asked for, or boot.booted; "" means none.
func (d *Device) running(asked string) (string, error) {
	if asked != "" && !slices.Contains(d.Config.SlotNames(), asked) {
		return "", config.Requestf("--booted %s: no such slot; the slots are %s", asked, strings.Join(d.Config.SlotNames(), ", "))
	}
	if asked == "" {
		asked = d.Config.Boot.Booted
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
		return "", config.Requestf("slot %s is running by the kernel command line; --booted and boot.booted cannot say %s", running, asked)
	}
	if running == "" {
		running = asked
	}
	return running, nil
}

// rootWitness is the slot of the root file system; none in an initramfs, or on a root that is not a partition of the disk.
func (d *Device) rootWitness() boot.Witness {
	w := boot.Witness{Source: "the root file system"}
	if node, err := blockdev.RootPartition(); err == nil {
		w.Slot = boot.ByRoot(node, d.slotRoots())
	}
	return w
}

// slotRoots lists every way in which root= may name a slot's partition.
func (d *Device) slotRoots() []boot.SlotRoot {
	var roots []boot.SlotRoot
	for _, s := range d.Config.Slot {
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

// Partition is the partition of a slot for a role.
func (d *Device) Partition(slot, role string) (blockdev.Partition, error) {
	spec, err := d.Config.Partition(slot, role)
	if err != nil {
		return blockdev.Partition{}, err
	}
	p, err := d.disk.Find(spec)
	if err != nil {
		err = &PartitionError{Slot: slot, Err: err}
	}
	return p, err
}

// PartitionError reports a partition of a slot that is not on the disk, or not the only one of its name.
type PartitionError struct {
	Slot string
	Err  error
}

func (e *PartitionError) Error() string { return fmt.Sprintf("slot %s: %v", e.Slot, e.Err) }
func (e *PartitionError) Unwrap() error { return e.Err }

// TableError is [blockdev.TableError].
type TableError = blockdev.TableError

// find finds the partition that a key of the configuration names. Errors: [config.Error].
func (d *Device) find(key, spec string) (blockdev.Partition, error) {
	p, err := d.disk.Find(spec)
	if err != nil {
		err = &config.Error{Err: fmt.Errorf("%s: %w", key, err), Advice: "correct " + key + " in the configuration"}
	}
	return p, err
}

// SlotSize implements update.Disk.
func (d *Device) SlotSize(slot, role string) (int64, error) {
	if file, ok := d.Config.FileRole(slot, role); ok {
		return d.fileRoom(slot, role, file)
	}
	p, err := d.Partition(slot, role)
	return p.Size, err
}

// OpenSlot implements update.Disk.
func (d *Device) OpenSlot(slot, role string) (update.Target, error) {
	if file, ok := d.Config.FileRole(slot, role); ok {
		return d.openRoleFile(slot, role, file)
	}
	p, err := d.Partition(slot, role)
	if err != nil {
		return nil, err
	}
	dev, err := p.Open(blockdev.Exclusive)
	if err != nil {
		return nil, err
	}
	w, err := dev.NewWriter(blockdev.WriterOptions{Engine: d.Config.Disk.Engine})
	if err != nil {
		dev.Close()
		return nil, err
	}
	if d.Opened != nil {
		d.Opened(dev.Facts())
	}
	return w, nil
}

// Seed opens the same partition or file of another slot, to copy from: of the running one, or of the first other one.
func (d *Device) Seed(slot, role string) (update.Seed, error) {
	from := d.booted
	for _, name := range d.Config.SlotNames() {
		if from == "" && name != slot {
			from = name
		}
	}
	dev, err := d.openHeld(from, role)
	if err != nil {
		return nil, err
	}
	s := seed{held: dev}
	if image := d.known.Slots[from][role]; image.Result != state.Writing && image.Result != state.Failed {
		s.checksum = image.BmapChecksum
	}
	return s, nil
}

// seed is the content of a slot for a role, as far as the state store knows it.
type seed struct {
	held
	checksum string
}

// Map implements update.Seed.
func (s seed) Map() string { return s.checksum }

// held is the content of a slot for a role, open for reading.
type held interface {
	io.ReaderAt
	io.Closer
	update.ReadBacker
	Size() int64 // bytes
}

// openHeld opens the partition or file of a slot for a role.
func (d *Device) openHeld(slot, role string) (held, error) {
	if file, ok := d.Config.FileRole(slot, role); ok {
		return d.openHeldFile(file)
	}
	p, err := d.Partition(slot, role)
	if err != nil {
		return nil, err
	}
	return p.Open(blockdev.ReadOnly)
}
