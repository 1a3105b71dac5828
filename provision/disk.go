package provision

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
)

// Disk is a whole disk as sysfs describes it. What sysfs does not have is "".
type Disk struct {
	Path     string            `json:"path"` // device node
	Bus      string            `json:"bus"`  // its path in sysfs, below devices
	Size     int64             `json:"size"` // bytes
	Sector   int               `json:"sector"`
	Model    string            `json:"model,omitempty"`
	Vendor   string            `json:"vendor,omitempty"`
	Serial   string            `json:"serial,omitempty"`
	WWID     string            `json:"wwid,omitempty"`
	CID      string            `json:"cid,omitempty"` // of an eMMC or SD card
	Firmware string            `json:"firmware,omitempty"`
	Health   map[string]string `json:"health,omitempty"` // eMMC: life_time, pre_eol_info

	name     string // in sysfs
	devno    string // major:minor
	readOnly bool
	parts    map[string]string // name in sysfs to major:minor, of the partitions
}

// Host is where disks are looked for. The zero value is this machine.
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

// attribute reads a file of sysfs; "" is none.
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
		return nil, fmt.Errorf("looking at disk %s: %w", name, err)
	}
	sectors, err := strconv.ParseInt(attribute(dir+"/size"), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("looking at disk %s: its size: %w", name, err)
	}
	_, bus, _ := strings.Cut(real, "/devices/")
	d := &Disk{
		Path: h.node(name), Bus: strings.TrimSuffix(bus, "/block/"+name), Size: sectors * 512, // sysfs counts in 512 bytes, always
		Sector: 512, name: name, devno: attribute(dir + "/dev"), readOnly: attribute(dir+"/ro") == "1", parts: map[string]string{},
		Model:    cmp.Or(attribute(dir+"/device/model"), attribute(dir+"/device/name")),
		Vendor:   cmp.Or(attribute(dir+"/device/vendor"), attribute(dir+"/device/manfid")),
		Serial:   cmp.Or(attribute(dir+"/serial"), attribute(dir+"/device/serial")),
		WWID:     cmp.Or(attribute(dir+"/wwid"), attribute(dir+"/device/wwid")),
		CID:      attribute(dir + "/device/cid"),
		Firmware: cmp.Or(attribute(dir+"/device/firmware_rev"), attribute(dir+"/device/fwrev"), attribute(dir+"/device/rev")),
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

// Key is what the hardware is known by, and whether that belongs to it alone. A disk without an identity of its own
// is known by the place that it hangs on.
func (d *Disk) Key(place string) (key string, strong bool) {
	switch {
	case d.CID != "":
		return "cid:" + d.CID, true
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

// busPath takes a port apart: its bus, and the name of the place on it.
var busPath = regexp.MustCompile(`^(usb|pci|ata|mmc|virtio|platform|loop)-([A-Za-z0-9:._-]+)$`)

// onPort tells whether a disk hangs on a port: usb-1-1.2 is the USB port 1-1.2, pci-0000:00:1f.2 the PCI function,
// mmc-mmc1 the host mmc1, platform-fe340000.mmc the device of that name.
func (d *Disk) onPort(port string) bool {
	m := busPath.FindStringSubmatch(port)
	if m == nil {
		return false
	}
	return slices.Contains(strings.Split(d.Bus, "/"), m[2]) || m[1] == "loop" && d.name == m[2]
}

// ByPort finds the one disk with a medium that hangs on a port.
func (h Host) ByPort(port string) (*Disk, error) {
	if !busPath.MatchString(port) {
		return nil, fmt.Errorf("%q is no port, expected a bus and a place such as usb-1-1.2, pci-0000:00:1f.2 or mmc-mmc1", port)
	}
	names, err := h.disks()
	if err != nil {
		return nil, err
	}
	var found []*Disk
	for _, name := range names {
		d, err := h.Disk(name)
		// The boot and RPMB areas of an eMMC hang on the same place.
		if err == nil && d.Size > 0 && d.onPort(port) && !strings.Contains(name, "boot") && !strings.Contains(name, "rpmb") {
			found = append(found, d)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("no disk hangs on port %s", port)
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("port %s is ambiguous: %s and %s hang on it", port, found[0].Path, found[1].Path)
}

// ByPath finds the disk of a device node or a link to one.
func (h Host) ByPath(path string) (*Disk, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, fmt.Errorf("looking for the target: %w", err)
	}
	rel, err := filepath.Rel(cmp.Or(h.Dev, "/dev"), real)
	if err != nil || strings.HasPrefix(rel, "..") {
		return nil, &RefusedError{Target: path, Reason: "it is not below /dev"}
	}
	name := strings.ReplaceAll(rel, "/", "!")
	if _, err := os.Stat(h.sys("class", "block", name, "partition")); err == nil {
		return nil, &RefusedError{Target: path, Reason: "it is a partition; name the whole disk"}
	}
	return h.Disk(name)
}
