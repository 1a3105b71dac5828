package blockdev

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Partition is one entry of a disk's partition table. The zero value cannot be opened.
type Partition struct {
	Number int    // in the table, from 1
	Label  string // PARTLABEL; "" on an MBR
	UUID   string // PARTUUID, lower case
	Offset int64  // in the disk, bytes
	Size   int64  // bytes
	Path   string // device node; without one, the path of the disk
	window bool   // the partition is a window of Path
	disk   *Disk
}

// nodeNumber matches the name of a partition's device node and captures its number: sda2, vdb10, nvme0n1p2, mmcblk0p3.
var nodeNumber = regexp.MustCompile(`^(?:(?:sd|vd|hd|xvd)[a-z]+|(?:nvme\d+n\d+|mmcblk\d+|loop\d+|nbd\d+)p)(\d+)$`)

// Find returns the only partition that matches spec: "PARTLABEL=rootfs_a", "PARTUUID=1b2c...", or a device path. Labels match
// exactly, PARTUUIDs in either case. It is an error if no partition or several match. On a disk image file a device path such
// as /dev/vda2 means partition 2.
func (d *Disk) Find(spec string) (Partition, error) {
	match, err := d.matcher(spec)
	if err != nil {
		return Partition{}, err
	}
	var found []Partition
	for _, p := range d.table.parts {
		if match(p) {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Partition{}, fmt.Errorf("%s is not on disk %s, which has %s", spec, d.path, d.describe())
	}
	return Partition{}, fmt.Errorf("%s is ambiguous on disk %s: partitions %d and %d both match", spec, d.path, found[0].Number, found[1].Number)
}

func (d *Disk) matcher(spec string) (func(Partition) bool, error) {
	key, value, tagged := strings.Cut(spec, "=")
	switch {
	case tagged && value == "":
	case key == "PARTLABEL" && tagged:
		return func(p Partition) bool { return p.Label == value }, nil
	case key == "PARTUUID" && tagged:
		return func(p Partition) bool { return strings.EqualFold(p.UUID, value) }, nil
	case strings.HasPrefix(spec, "/dev/") && d.block:
		node, err := filepath.EvalSymlinks(spec)
		if err != nil {
			return nil, fmt.Errorf("looking up partition: %w", err)
		}
		return func(p Partition) bool { return !p.window && p.Path == node }, nil
	case strings.HasPrefix(spec, "/dev/"):
		if m := nodeNumber.FindStringSubmatch(filepath.Base(spec)); m != nil {
			return func(p Partition) bool { return strconv.Itoa(p.Number) == m[1] }, nil
		}
		return nil, fmt.Errorf("%s names no partition by number, as a disk image file needs; use PARTLABEL= or PARTUUID=", spec)
	}
	return nil, fmt.Errorf("%q names no partition; expected PARTLABEL=, PARTUUID= or a path below /dev", spec)
}

// describe lists the partitions for an error.
func (d *Disk) describe() string {
	if len(d.table.parts) == 0 {
		return "no partitions"
	}
	kind, names := "partitions ", make([]string, len(d.table.parts))
	if d.table.gpt == nil {
		kind = "an MBR, which has no labels, with partitions "
	}
	for i, p := range d.table.parts {
		names[i] = p.name()
	}
	return kind + strings.Join(names, ", ")
}

// name is the number of a partition, and its label, or its PARTUUID on an MBR.
func (p Partition) name() string {
	if p.disk.table.gpt == nil {
		return fmt.Sprintf("%d PARTUUID=%s", p.Number, p.UUID)
	}
	return fmt.Sprintf("%d %q", p.Number, p.Label)
}

// String returns the device node, or the disk and the number of a partition without a node.
func (p Partition) String() string {
	if p.window {
		return fmt.Sprintf("%s partition %s", p.disk.path, p.name())
	}
	return p.Path
}

// Open opens the partition. With Exclusive, a mounted, claimed or locked partition is a [BusyError].
func (p Partition) Open(mode Mode) (*Device, error) { return p.open(p.String(), 0, p.Size, mode) }

// OpenWindow opens size bytes at off of the partition. A negative off counts from its end.
func (p Partition) OpenWindow(off, size int64, mode Mode) (*Device, error) {
	if off < 0 {
		off += p.Size
	}
	if off < 0 || size <= 0 || off > p.Size-size {
		return nil, fmt.Errorf("opening %s: %d bytes at offset %d are not inside its %d bytes", p, size, off, p.Size)
	}
	return p.open(fmt.Sprintf("%s at %#x", p, off), off, size, mode)
}

func (p Partition) open(name string, off, size int64, mode Mode) (*Device, error) {
	if mode == Exclusive && p.disk.block && slices.ContainsFunc(p.disk.table.parts, func(q Partition) bool { return q.window }) {
		// O_EXCL claims a whole node, so all windows of the disk share one claim. It excludes others from the partitions with a
		// node, too: they are claimed alone only while one of them is in use and the whole disk cannot be claimed.
		err := p.disk.claimWhole()
		if err != nil && p.window {
			return nil, err
		}
		if err == nil {
			mode = Shared
		}
	}
	if !p.window {
		return openDevice(name, p.Path, off, size, mode)
	}
	return openDevice(name, p.Path, p.Offset+off, size, mode)
}
