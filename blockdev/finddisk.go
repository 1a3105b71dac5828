package blockdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// sysBlock has a directory for every whole disk.
const sysBlock = "/sys/block"

// FindDisk returns the device node of a whole disk by properties that do not depend on the order of detection. spec is
//
//	SERIAL=text   the serial number of the disk, its controller or its USB device
//	BUS=path      whole components of its path below /sys/devices: pci0000:00/0000:00:05.0
//	/dev/...      that node, unless another disk also has all of parts; or a disk image file
//	""            the only disk that has all of parts
//
// parts are partitions as for [Disk.Find]. It is an error if no disk or several match; FindDisk never chooses. Links below
// /dev/disk need udev, which an initramfs does not have.
func FindDisk(spec string, parts []string) (string, error) {
	nodes, err := wholeDisks()
	if err != nil {
		return "", err
	}
	key, value, tagged := strings.Cut(spec, "=")
	var found []string
	switch {
	case strings.HasPrefix(spec, "/"):
		return onlyCopy(spec, nodes, parts)
	case spec == "":
		found = slices.DeleteFunc(nodes, func(n string) bool { return !hasParts(n, parts) })
		spec = "with " + strings.Join(parts, ", ")
	case key == "SERIAL" && tagged && value != "":
		found = slices.DeleteFunc(nodes, func(n string) bool { return !slices.Contains(serials(n), value) })
	case key == "BUS" && tagged && value != "":
		found = slices.DeleteFunc(nodes, func(n string) bool { return !onBus(n, value) })
	default:
		return "", fmt.Errorf("%q does not name a disk; expected SERIAL=, BUS= or a path below /dev", spec)
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", fmt.Errorf("no disk matches: %s", spec)
	}
	return "", fmt.Errorf("several disks match (%s): %s; unplug all but one, or name one by SERIAL= or BUS=", strings.Join(found, ", "), spec)
}

// onlyCopy returns path, unless another disk has the same partitions. An image file may have those of any disk.
func onlyCopy(path string, nodes, parts []string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", fmt.Errorf("no disk %s", path)
	}
	if st, err := os.Stat(real); err == nil && st.Mode().IsRegular() {
		return path, nil
	}
	for _, n := range nodes {
		if n != real && hasParts(n, parts) && hasParts(real, parts) {
			return "", fmt.Errorf("disks %s and %s both have the partitions %s; unplug one, or name one by SERIAL= or BUS=", path, n,
				strings.Join(parts, ", "))
		}
	}
	return path, nil
}

// wholeDisks returns the nodes of all disks with a medium.
func wholeDisks() ([]string, error) {
	entries, err := os.ReadDir(sysBlock)
	if err != nil {
		return nil, fmt.Errorf("looking for disks: %w", err)
	}
	var nodes []string
	for _, e := range entries {
		virtual := slices.ContainsFunc([]string{"ram", "zram", "dm-", "md"}, func(p string) bool { return strings.HasPrefix(e.Name(), p) })
		size, err := os.ReadFile(filepath.Join(sysBlock, e.Name(), "size"))
		if virtual || err != nil || strings.TrimSpace(string(size)) == "0" {
			continue
		}
		nodes = append(nodes, "/dev/"+strings.ReplaceAll(e.Name(), "!", "/"))
	}
	return nodes, nil
}

// hasParts reports whether a disk has all of the partitions, some perhaps twice, which the later lookup refuses. A disk that
// cannot be read has none.
func hasParts(node string, parts []string) bool {
	d, err := OpenDisk(node)
	if err != nil {
		return false
	}
	defer d.Close()
	for _, spec := range parts {
		match, err := d.matcher(spec)
		if err != nil || !slices.ContainsFunc(d.table.parts, match) {
			return false
		}
	}
	return len(parts) > 0
}

// sysPath returns the directory of a disk below /sys/devices.
func sysPath(node string) string {
	dir, err := filepath.EvalSymlinks(filepath.Join(sysBlock, strings.ReplaceAll(strings.TrimPrefix(node, "/dev/"), "/", "!")))
	if err != nil {
		return ""
	}
	return dir
}

// serials returns the serial numbers of a disk: its own (virtio; NVMe and MMC on the device), that of SCSI's vital product data
// page 0x80, and those of its parents, such as a USB device.
func serials(node string) []string {
	var list []string
	add := func(name string, skip int) {
		if b, err := os.ReadFile(name); err == nil && len(b) > skip {
			list = append(list, strings.Trim(string(b[skip:]), " \n\x00"))
		}
	}
	dir := sysPath(node)
	add(filepath.Join(dir, "serial"), 0)
	add(filepath.Join(dir, "device/vpd_pg80"), 4)
	for up := filepath.Dir(dir); strings.HasPrefix(up, "/sys/devices/"); up = filepath.Dir(up) {
		add(filepath.Join(up, "serial"), 0)
	}
	return slices.DeleteFunc(list, func(s string) bool { return s == "" })
}

func onBus(node, piece string) bool {
	return strings.Contains(sysPath(node)+"/", "/"+strings.Trim(piece, "/")+"/")
}

// ErrNoBootDisk is wrapped if the running root file system is not on a disk, as in an initramfs.
var ErrNoBootDisk = errors.New("the root file system is not on a partition of a disk")
