package blockdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// finder looks for disks, by the folders of sysfs and of the device nodes.
type finder struct{ sys, dev string }

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
	return finder{"/sys", "/dev"}.find(spec, parts)
}

func (f finder) find(spec string, parts []string) (string, error) {
	nodes, err := f.wholeDisks()
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
		found = slices.DeleteFunc(nodes, func(n string) bool { return !slices.Contains(f.serials(n), value) })
	case key == "BUS" && tagged && value != "":
		found = slices.DeleteFunc(nodes, func(n string) bool { return !f.onBus(n, value) })
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

// onlyCopy returns path, unless another disk has the same partitions. An image file may have the partitions of any disk.
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
func (f finder) wholeDisks() ([]string, error) {
	dir := filepath.Join(f.sys, "block")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("looking for disks: %w", err)
	}
	var nodes []string
	for _, e := range entries {
		virtual := slices.ContainsFunc([]string{"ram", "zram", "dm-", "md"}, func(p string) bool { return strings.HasPrefix(e.Name(), p) })
		if size := sysText(dir, e.Name()+"/size"); !virtual && size != "" && size != "0" {
			nodes = append(nodes, filepath.Join(f.dev, strings.ReplaceAll(e.Name(), "!", "/")))
		}
	}
	return nodes, nil
}

// hasParts reports whether a disk has all of the partitions; some may be there twice, which the later lookup refuses. A disk that
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

// sysPath returns the directory of a disk below /sys/devices, "" for none.
func (f finder) sysPath(node string) string {
	dir, _ := filepath.EvalSymlinks(filepath.Join(f.sys, "block", strings.ReplaceAll(strings.TrimPrefix(node, f.dev+"/"), "/", "!")))
	return dir
}

// serials returns the serial numbers of a disk: its own (virtio; NVMe and MMC on the device), that of SCSI's vital product data
// page 0x80, and those of its parents, such as a USB device; some may be empty.
func (f finder) serials(node string) []string {
	dir := f.sysPath(node)
	page := sysText(dir, "device/vpd_pg80")
	list := []string{page[min(4, len(page)):]}
	for up := dir; strings.HasPrefix(up, f.sys+"/devices/"); up = filepath.Dir(up) {
		list = append(list, sysText(up, "serial"))
	}
	for i, s := range list {
		list[i] = strings.Trim(s, " \n\x00")
	}
	return list
}

func (f finder) onBus(node, piece string) bool {
	return strings.Contains(f.sysPath(node)+"/", "/"+strings.Trim(piece, "/")+"/")
}

// ErrNoBootDisk is wrapped by the error if the running root file system is not on a disk, as in an initramfs.
var ErrNoBootDisk = errors.New("the root file system is not on a partition of a disk")
