package survey

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"updater/blockdev"
	"updater/device"
	"updater/device/config"
)

// Options select the disk and the machine.
type Options struct {
	Disk    string // node of a whole disk, or a disk image file; "" is this machine and the disk that it booted from
	Root    string // of the running system, "/" on a device; "" where only the disk counts, as for a disk image
	Backend string // value of boot.backend; "" is the one whose traces are found
	Product string // for the configuration; "" leaves it open
}

// Survey is the result of [Look].
type Survey struct {
	Options
	Boot    []string // lines of [boot] besides backend and tries
	Tries   int      // the most sensible value for the boot loader
	Slots   []Slot
	State   string   // partition for the state store; "" for none
	Found   []string // evidence, a sentence each
	Unknown []string // facts that could not be determined, with the next step
	Has     bool     // the boot loader's state names the slots already
	dialect string
}

// Slot is one slot of the draft.
type Slot struct {
	Name              string
	Partitions, Files map[string]string // by role
	Lines             []string          // further keys
}

// Look reads the disk and the machine. Errors: those of [blockdev.OpenDisk] and [blockdev.BootDisk].
func Look(o Options) (*Survey, error) {
	if o.Backend != "" && !slices.Contains(device.Backends(), o.Backend) {
		return nil, config.Requestf("--backend %s: no such boot loader; expected %s", o.Backend, strings.Join(device.Backends(), ", "))
	}
	if o.Disk == "" {
		path, err := blockdev.BootDisk()
		if err != nil {
			return nil, err
		}
		o.Disk, o.Root = path, "/"
	}
	disk, err := blockdev.OpenDisk(o.Disk)
	if err != nil {
		return nil, err
	}
	defer disk.Close()
	l := &look{Survey: &Survey{Options: o, Tries: 3}, disk: disk}
	defer l.close()
	l.found("disk %s: %d partitions, sectors of %d bytes", o.Disk, len(disk.Partitions()), disk.SectorSize())
	l.pairs()
	l.volumes()
	l.loader()
	l.store()
	l.machine()
	return l.Survey, nil
}

// look is a survey under way.
type look struct {
	*Survey
	disk    *blockdev.Disk
	vols    []volume
	inSlot  map[int]bool // partitions of slots, by their numbers
	kernels bool         // slots have ChromeOS kernel partitions
	devices []*blockdev.Device
}

func (l *look) close() {
	for _, d := range l.devices {
		d.Close()
	}
}

func (l *look) found(format string, a ...any) { l.Found = append(l.Found, fmt.Sprintf(format, a...)) }
func (l *look) unknown(format string, a ...any) {
	l.Unknown = append(l.Unknown, fmt.Sprintf(format, a...))
}

// plain matches labels that a configuration names as they are.
var plain = regexp.MustCompile(`^[A-Za-z0-9._ +-]+$`)

// spec is a partition as a configuration names it: by its label where that is unique.
func (l *look) spec(p blockdev.Partition) string {
	if _, err := l.disk.Find("PARTLABEL=" + p.Label); plain.MatchString(p.Label) && err == nil {
		return "PARTLABEL=" + p.Label
	}
	return "PARTUUID=" + p.UUID
}

// suffixes are the endings of the labels of two slots.
var suffixes = [][2]string{{"_a", "_b"}, {"-a", "-b"}, {".a", ".b"}, {"_A", "_B"}, {"-A", "-B"}, {".A", ".B"}, {"0", "1"}, {"1", "2"}}

// shared matches labels of partitions that belong to no slot, even where there are two of them.
var shared = regexp.MustCompile(`(?i)env|state|misc|persist|recovery|data|^disk|^part`)

// pairs finds partitions whose labels differ in the name of the slot.
func (l *look) pairs() {
	l.inSlot = map[int]bool{}
	parts := l.disk.Partitions()
	for _, first := range parts {
		for _, suffix := range suffixes {
			base, ok := strings.CutSuffix(first.Label, suffix[0])
			i := slices.IndexFunc(parts, func(p blockdev.Partition) bool { return p.Label == base+suffix[1] })
			if !ok || i < 0 || base == "" || shared.MatchString(base) || l.inSlot[first.Number] {
				continue
			}
			l.pair(l.role(base), first, parts[i])
			l.kernels = l.kernels || strings.EqualFold(strings.Trim(base, "_-."), "kern")
		}
	}
	if len(l.Slots) == 0 {
		l.unknown("no two partitions have labels such as rootfs_a and rootfs_b: name the partitions of the slots")
		l.pair("rootfs", blockdev.Partition{}, blockdev.Partition{})
		l.Slots[0].Partitions["rootfs"], l.Slots[1].Partitions["rootfs"] = "PARTLABEL=rootfs_a", "PARTLABEL=rootfs_b"
	}
}

// pair gives both slots a role.
func (l *look) pair(role string, two ...blockdev.Partition) {
	if len(l.Slots) == 0 {
		for _, name := range []string{"A", "B"} {
			l.Slots = append(l.Slots, Slot{Name: name, Partitions: map[string]string{}, Files: map[string]string{}})
		}
	}
	for i, p := range two {
		l.Slots[i].Partitions[role], l.inSlot[p.Number] = l.spec(p), true
		if p.Number == 0 {
			continue
		}
		l.found("role %s of slot %s: partition %d, label %q, %d MiB", role, l.Slots[i].Name, p.Number, p.Label, p.Size>>20)
	}
	if two[0].Size != two[1].Size {
		l.unknown("role %s has partitions of different sizes: an image must fit the smaller one", role)
	}
}

// role names the content of the partitions of a label.
func (l *look) role(base string) string {
	name := strings.Trim(strings.ToLower(base), "_-. ")
	role := map[string]string{"kern": "kernel", "root": "rootfs", "system": "rootfs", "rootfs": "rootfs"}[name]
	if role == "" || len(l.Slots) > 0 && l.Slots[0].Partitions[role] != "" {
		role = regexp.MustCompile(`[^a-z0-9_]`).ReplaceAllString(name, "_")
	}
	return role
}

// store finds the partition of the state store.
func (l *look) store() {
	for _, p := range l.disk.Partitions() {
		if regexp.MustCompile(`(?i)^(updater[-_])?state$`).MatchString(p.Label) && l.spec(p) == "PARTLABEL="+p.Label {
			l.State = l.spec(p)
			l.found("state store: partition %d, label %q", p.Number, p.Label)
			return
		}
	}
	l.unknown("no partition is labelled state: without a state store there is no rollback protection, and slots of several roles take no update; " +
		"make one of 1 to 8 MiB, or name a file on the data partition")
}

// machine adds facts that only a running system knows.
func (l *look) machine() {
	if l.Root == "" {
		l.unknown("the machine that this disk is for: product, hardware revision and firmware")
	} else if names := l.read("sys/firmware/devicetree/base/compatible"); names != "" {
		l.found("the device tree calls the machine %q", strings.Split(strings.TrimRight(names, "\x00"), "\x00"))
	} else if name := l.read("sys/class/dmi/id/product_name"); name != "" {
		l.found("the firmware calls the machine %q", strings.TrimSpace(name))
	}
	if l.Product == "" {
		l.unknown("product: the name that your releases carry; without it no release is refused for being another product's")
	}
	l.unknown("keyring: put the certificate of your release key into the folder keys beside this file")
}

// read returns a file of the running system, "" for none.
func (l *look) read(name string) string {
	if l.Root == "" {
		return ""
	}
	data, err := readSmall(filepath.Join(l.Root, name))
	if err != nil {
		return ""
	}
	return string(data)
}

// quote makes a basic string of TOML. Its text comes from labels that plain passes, and from this package.
func quote(s string) string { return strconv.Quote(s) }
