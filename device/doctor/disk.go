package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"updater/blockdev"
	"updater/boot"
	"updater/device"
	"updater/device/config"
	"updater/state"
)

// lockPatience outlasts udev's probing.
const lockPatience = 50 * time.Millisecond

func openDisk(c *config.Config) (*blockdev.Disk, error) {
	path, err := device.DiskPath(c)
	if err != nil {
		return nil, err
	}
	return blockdev.OpenDisk(path)
}

// sizeText is a size in the unit that people use for partitions.
func sizeText(n int64) string {
	if n%(1<<20) == 0 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d bytes", n)
}

// slotPart is one partition of a slot.
type slotPart struct {
	slot, role string
	blockdev.Partition
}

func (p slotPart) what() string {
	return fmt.Sprintf("%s of slot %s (%s)", p.role, p.slot, p.Partition)
}

// checkDisk looks at the disk, its table, the slots' partitions and their devices.
func (d *doctor) checkDisk(ctx context.Context) {
	disk, err := openDisk(d.config)
	if _, bad := errors.AsType[*blockdev.TableError](err); bad {
		d.failure("correct the partition table with sgdisk or sfdisk, or path under [disk]", "%v", err)
		return
	}
	if err != nil {
		d.failure("plug the disk in, or correct path under [disk]", "%v", err)
		return
	}
	defer disk.Close()
	if bad := disk.Degraded(); bad != "" {
		d.warn(boot.RemedyRepair+", or restore the table with sgdisk", "%s", bad)
	}
	d.check = "slots"
	parts := d.slotParts(disk)
	d.sizes(parts)
	d.geometry(disk, parts)
	d.inUse(ctx, disk, parts)
	for _, p := range parts {
		facts, has, err := d.Medium(p.Partition)
		if err != nil {
			d.failure("look for the disk in the kernel's log", "%v", err)
			continue
		}
		d.check = "medium"
		d.add(mediumFindings(p, facts)...)
		d.check = "kernel"
		d.add(kernelFindings(p, has, d.config.Disk.Engine)...)
	}
}

// slotParts finds the partitions of the slots. A missing one, or one of two slots, is a failure.
func (d *doctor) slotParts(disk *blockdev.Disk) (parts []slotPart) {
	for _, s := range d.config.Slot {
		for _, role := range slices.Sorted(maps.Keys(s.Partitions)) {
			p, err := disk.Find(s.Partitions[role])
			if err != nil {
				d.failure("correct the partitions of the slot in the configuration", "%v", err)
				continue
			}
			for _, o := range parts {
				if o.Number == p.Number {
					d.failure("give every slot partitions of its own", "slot %s and slot %s both have partition %d of %s", o.slot, s.Name, p.Number, disk.Path())
				}
			}
			parts = append(parts, slotPart{s.Name, role, p})
		}
	}
	return parts
}

// sizes compares the partitions of a role with each other, and with the largest image that was installed.
func (d *doctor) sizes(parts []slotPart) {
	var known state.State
	if m, err := device.ReadState(d.config); err == nil {
		known = m.State
	}
	for i, p := range parts {
		for _, o := range parts[:i] {
			if o.role == p.role && o.Size != p.Size {
				d.warn("give both the same size", "%s has %s, %s has %s: an image that fits one may not fit the other", o.what(), sizeText(o.Size), p.what(), sizeText(p.Size))
			}
		}
		for name, roles := range known.Slots {
			if image := roles[p.role]; image.Size > p.Size {
				d.failure("make the partition larger", "%s has %d bytes; the image of slot %s has %d", p.what(), p.Size, name, image.Size)
			}
		}
	}
}

// geometry checks where U-Boot's environment lies: not over a partition, not over its own second copy, and in whole sectors. A missing second
// copy is the backend's finding.
func (d *doctor) geometry(disk *blockdev.Disk, parts []slotPart) {
	type window struct {
		dev       string
		off, size int64
	}
	var seen []window
	areas := d.config.Boot.Env.Areas
	for i, a := range areas {
		w := window{a.Device, a.Offset, a.Size}
		if whole := a.Device == disk.Path(); whole && w.off < 0 {
			w.off += disk.Size()
		}
		what := fmt.Sprintf("copy %d of U-Boot's environment (%s at %#x, %d bytes)", i+1, a.Device, a.Offset, a.Size)
		if w.size%boot.Sector != 0 || w.off%boot.Sector != 0 {
			d.warn("correct boot.env; compare it with CONFIG_ENV_OFFSET and CONFIG_ENV_SIZE", "%s does not consist of whole sectors", what)
		}
		for j, o := range seen {
			switch {
			case o.dev == w.dev && o.off < w.off+w.size && w.off < o.off+o.size:
				d.failure("correct boot.env; compare it with CONFIG_ENV_OFFSET_REDUND", "%s overlaps copy %d", what, j+1)
			case o.size != w.size:
				d.failure("correct boot.env; both copies have CONFIG_ENV_SIZE bytes", "%s has another size than copy %d, %d bytes", what, j+1, o.size)
			}
		}
		seen = append(seen, w)
		if p, err := disk.Find(a.Device); err == nil {
			for _, o := range parts {
				if o.Number == p.Number {
					d.failure("correct boot.env", "%s lies inside %s, which an install overwrites", what, o.what())
				}
			}
			if w.off >= p.Size || w.off+w.size > p.Size {
				d.failure("correct boot.env", "%s reaches past the end of %s, which has %d bytes", what, p, p.Size)
			}
		}
		if w.dev != disk.Path() {
			continue
		}
		for _, p := range disk.Partitions() {
			if p.Offset < w.off+w.size && w.off < p.Offset+p.Size {
				d.failure("correct boot.env, or move the partition", "%s overlaps partition %d %q", what, p.Number, p.Label)
			}
		}
	}
}

// inUse finds users of a partition that an install would write.
func (d *doctor) inUse(ctx context.Context, disk *blockdev.Disk, parts []slotPart) {
	if err := disk.Lock(lockPatience); err != nil {
		d.add(boot.Finding{Severity: boot.Info, Evidence: err.Error() + ": whether the slots are in use was not checked", Remedy: "run updater doctor again later"})
		return
	}
	booted := d.config.Boot.Booted
	if dev, err := d.open(); err == nil {
		booted = dev.Booted()
		dev.Close()
	}
	if d.booted != "" {
		booted = d.booted
	}
	for _, p := range parts {
		if p.slot == booted {
			continue
		}
		if err := p.Busy(); err != nil {
			d.failure("unmount or release it, and take it out of fstab", "%s of slot %s: %v", p.role, p.slot, err)
		}
	}
}

// mediumFindings judges the kernel's facts about a partition's device.
func mediumFindings(p slotPart, f blockdev.Facts) (found []boot.Finding) {
	bad := func(s boot.Severity, remedy, format string, a ...any) {
		found = append(found, boot.Finding{Severity: s, Evidence: fmt.Sprintf(format, a...), Remedy: remedy})
	}
	if f.ReadOnly {
		bad(boot.Failure, "remove the write protection, or replace the medium: worn out ones protect themselves", "%s is read-only", p.what())
	}
	if f.PhysicalBlock > 0 && p.Offset%f.PhysicalBlock != 0 {
		bad(boot.Warning, "align the partition", "%s begins at %d, inside a physical block of %d bytes: a power cut while it is written may damage the data before it", p.what(), p.Offset, f.PhysicalBlock)
	}
	if f.WriteCache == "write through" && f.Removable {
		bad(boot.Warning, "look for the cache mode in the kernel's log; set write back in queue/write_cache if it has one", "the kernel assumes that the disk of %s has no write cache and sends no flush; a USB bridge may hide one", p.what())
	}
	if f.Kind == "block device" && f.WriteCache == "" {
		bad(boot.Warning, "use a kernel that has queue/write_cache in sysfs", "whether the disk of %s has a write cache is unknown", p.what())
	}
	if e := f.EMMC; e != nil {
		if !e.Reliable {
			bad(boot.Warning, "set WR_REL_SET once, in the factory: mmc write_reliability set", "the eMMC of %s has no write reliability: a power cut may damage data that is not being written", p.what())
		}
		if e.PreEOL > 1 || e.Used >= 90 {
			bad(boot.Warning, "replace it", "the eMMC of %s is worn: %d %% of its life is used, pre-EOL is %d", p.what(), e.Used, e.PreEOL)
		}
	}
	return found
}

// kernelFindings judges the kernel's features on a partition.
func kernelFindings(p slotPart, has blockdev.Features, engine string) (found []boot.Finding) {
	bad := func(s boot.Severity, remedy, format string, a ...any) {
		found = append(found, boot.Finding{Severity: s, Evidence: fmt.Sprintf(format, a...), Remedy: remedy})
	}
	severity := func(needed bool) boot.Severity {
		if needed {
			return boot.Failure
		}
		return boot.Warning
	}
	if !has.SyncRange {
		bad(severity(engine == blockdev.Paced), "use a kernel with sync_file_range, and a sandbox that allows it", "sync_file_range does not work on %s: writing is not paced", p.what())
	}
	if !has.Direct {
		bad(severity(engine == blockdev.Direct), "put the target where O_DIRECT works", "O_DIRECT does not work on %s: the read-back may come from the page cache", p.what())
	}
	if !has.ZeroOut {
		bad(boot.Warning, "use a kernel with BLKZEROOUT", "BLKZEROOUT does not work on %s: holes are written, which takes longer", p.what())
	}
	return found
}

// stateRoom is the free space, in bytes, that creating a state store in a file needs.
const stateRoom = 2 * state.FileSize

// checkState looks at the state store, and at the file system where it is a file.
func (d *doctor) checkState(context.Context) {
	m, err := device.ReadState(d.config)
	if err != nil {
		d.fail(err)
		return
	}
	for _, w := range m.Warnings {
		if !w.New {
			d.warn("run updater mark good, which writes both copies again; check the medium", "%s", w.Text)
		}
	}
	spec := d.config.State
	if spec.Device == "" || spec.Size > 0 || strings.HasPrefix(spec.Device, "/dev/") || strings.Contains(spec.Device, "=") {
		return
	}
	dir := filepath.Dir(spec.Device)
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		d.failure("make the folder", "the folder of the state store: %v", &os.PathError{Op: "statfs", Path: dir, Err: err})
		return
	}
	_, err = os.Stat(spec.Device)
	switch {
	case fs.Flags&unix.ST_RDONLY != 0:
		d.failure("put the state store on a file system that can be written", "the file system of the state store %s is mounted read-only", spec.Device)
	case unix.Access(dir, unix.W_OK) != nil:
		d.failure("run as root", "the folder of the state store %s cannot be written", spec.Device)
	case errors.Is(err, os.ErrNotExist) && fs.Bavail*uint64(fs.Bsize) < stateRoom:
		d.failure("make room", "the file system of the state store %s has %d bytes left", spec.Device, fs.Bavail*uint64(fs.Bsize))
	}
	var here, root unix.Stat_t
	if disk, err := openDisk(d.config); err == nil {
		defer disk.Close()
		if !disk.IsFile() && unix.Stat(dir, &here) == nil && unix.Stat(d.Root, &root) == nil && here.Dev == root.Dev {
			d.warn("put it on a partition of its own, which no install writes", "the state store %s is on the root file system, which belongs to one slot", spec.Device)
		}
	}
	if info, err := os.Stat(spec.Device); err == nil && info.ModTime().After(d.Now().Add(24*time.Hour)) {
		d.warn("set the clock", "the state store %s was written on %s, after what the clock says", spec.Device, info.ModTime().Format(time.DateOnly))
	}
}
