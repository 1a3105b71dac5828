package target

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"updater/provision/plan"
	"updater/provision/record"
)

// Disk is a whole disk of this machine.
type Disk struct {
	record.Disk

	name     string // in sysfs; "" is a disk image
	devno    string // major:minor, or the path of a disk image
	readOnly bool
	reader   bool              // its medium can be taken out: its identity may be the card reader's
	parts    map[string]string // name in sysfs to major:minor, of the partitions
}

// Host is where disks are looked up. The zero value is this machine.
type Host struct {
	Sys  string // "/sys"
	Proc string // "/proc"
	Dev  string // "/dev"
}

func (h Host) sys(parts ...string) string {
	return filepath.Join(append([]string{cmp.Or(h.Sys, "/sys")}, parts...)...)
}
func (h Host) proc(parts ...string) string {
	return filepath.Join(append([]string{cmp.Or(h.Proc, "/proc")}, parts...)...)
}
func (h Host) node(name string) string {
	return filepath.Join(cmp.Or(h.Dev, "/dev"), strings.ReplaceAll(name, "!", "/"))
}

// attribute reads a file of sysfs; "" if it is missing.
func attribute(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.ToValidUTF8(string(bytes.TrimSpace(bytes.Trim(data, "\x00"))), "?")
}

// Disk describes the whole disk with a name in /sys/block.
func (h Host) Disk(name string) (*Disk, error) {
	dir := h.sys("block", name)
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, fmt.Errorf("reading disk %s: %w", name, err)
	}
	sectors, err := strconv.ParseInt(attribute(dir+"/size"), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("reading the size of disk %s: %w", name, err)
	}
	_, bus, _ := strings.Cut(real, "/devices/")
	d := &Disk{name: name, devno: attribute(dir + "/dev"), readOnly: attribute(dir+"/ro") == "1", reader: attribute(dir+"/removable") == "1", parts: map[string]string{}}
	d.Disk = record.Disk{
		Path: h.node(name), Bus: strings.TrimSuffix(bus, "/block/"+name), Sector: 512,
		Size:     sectors * sysfsSector,
		Model:    first(dir, "device/model", "device/name"),
		Vendor:   first(dir, "device/vendor", "device/manfid"),
		Serial:   first(dir, "serial", "device/serial"),
		WWID:     first(dir, "wwid", "device/wwid"),
		CID:      first(dir, "device/cid"),
		Firmware: first(dir, "device/firmware_rev", "device/fwrev", "device/rev"),
	}
	if n, err := strconv.Atoi(attribute(dir + "/queue/logical_block_size")); err == nil {
		d.Sector = n
	}
	for _, key := range []string{"life_time", "pre_eol_info"} {
		if v := attribute(dir + "/device/" + key); v != "" {
			if d.Health == nil {
				d.Health = map[string]string{}
			}
			d.Health[key] = v
		}
	}
	parts, _ := filepath.Glob(dir + "/*/partition")
	for _, p := range parts {
		d.parts[filepath.Base(filepath.Dir(p))] = attribute(filepath.Dir(p) + "/dev")
	}
	return d, nil
}

// sysfsSector is the unit of sizes in sysfs, whatever the sectors of the disk are (Documentation/ABI/stable/sysfs-block).
const sysfsSector = 512

// first is the first attribute that exists.
func first(dir string, names ...string) string {
	for _, name := range names {
		if v := attribute(filepath.Join(dir, name)); v != "" {
			return v
		}
	}
	return ""
}

// Key identifies the hardware; strong reports whether it belongs to this hardware alone. A disk without an identity of its own is
// identified by its place. WWID and serial of a removable disk are those of the card reader, whatever card is in it.
func (d *Disk) Key(place string) (key string, strong bool) {
	switch {
	case d.CID != "":
		return "cid:" + d.CID, true
	case d.reader:
	case d.WWID != "":
		return "wwid:" + d.WWID, true
	case d.Serial != "":
		return "serial:" + strings.TrimSpace(d.Vendor+" "+d.Model) + ":" + d.Serial, true
	}
	return "place:" + place, false
}

// disks lists the names of all whole disks.
func (h Host) disks() ([]string, error) {
	entries, err := os.ReadDir(h.sys("block"))
	if err != nil {
		return nil, fmt.Errorf("listing disks: %w", err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// busPath splits a port into its bus and the name of the place on it.
var busPath = regexp.MustCompile(`^(usb|pci|ata|mmc|virtio|platform|loop)-([A-Za-z0-9:._-]+)$`)

// onPort reports whether a disk is at a port: usb-1-1.2 is the USB port 1-1.2, pci-0000:00:1f.2 the PCI function,
// mmc-mmc1 the host mmc1, platform-fe340000.mmc the device of that name.
func (d *Disk) onPort(port string) bool {
	m := busPath.FindStringSubmatch(port)
	if m == nil {
		return false
	}
	return slices.Contains(strings.Split(d.Bus, "/"), m[2]) || m[1] == "loop" && d.name == m[2]
}

// byPort finds the only disk with a medium at a port.
func (h Host) byPort(port string) (*Disk, error) {
	if !busPath.MatchString(port) {
		return nil, fmt.Errorf("%q is not a port, expected a bus and a place such as usb-1-1.2, pci-0000:00:1f.2 or mmc-mmc1", port)
	}
	names, err := h.disks()
	if err != nil {
		return nil, err
	}
	var found []*Disk
	for _, name := range names {
		d, err := h.Disk(name)
		// The boot and RPMB areas of an eMMC are at the same place.
		if err == nil && d.Size > 0 && d.onPort(port) && !strings.Contains(name, "boot") && !strings.Contains(name, "rpmb") {
			found = append(found, d)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("no disk at port %s", port)
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("port %s is ambiguous: %s and %s are there", port, found[0].Path, found[1].Path)
}

// ByPath finds the disk of a device node, of a link to one, or of a disk image, a file NAME.img outside /dev.
func (h Host) ByPath(path string) (*Disk, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, fmt.Errorf("finding the target: %w", err)
	}
	rel, err := filepath.Rel(cmp.Or(h.Dev, "/dev"), real)
	if err != nil || strings.HasPrefix(rel, "..") {
		return imageFile(path, real)
	}
	name := strings.ReplaceAll(rel, "/", "!")
	if _, err := os.Stat(h.sys("class", "block", name, "partition")); err == nil {
		return nil, &plan.RefusedError{Target: path, Reason: "it is a partition; name the whole disk"}
	}
	return h.Disk(name)
}

// imageFile is a disk image as a disk without a device. The ending keeps other files from being overwritten by mistake.
func imageFile(path, real string) (*Disk, error) {
	real, err := filepath.Abs(real) // programs of the plan run in another folder
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(real)
	if err != nil || !info.Mode().IsRegular() || filepath.Ext(real) != ".img" {
		return nil, &plan.RefusedError{Target: path, Reason: "it is not in /dev, and no file whose name ends in .img"}
	}
	return &Disk{Disk: record.Disk{Path: real, Size: info.Size(), Sector: 512, Model: "disk image"}, devno: real}, nil
}
