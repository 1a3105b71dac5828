package blockdev

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Facts describe the device behind a [Device], as the kernel reports it, for logs and results. Unknown values are zero. Source:
// Documentation/ABI/stable/sysfs-block.
type Facts struct {
	Name           string   `json:"name"`
	Kind           string   `json:"kind"` // "block device" or "file"
	Size           int64    `json:"size"` // bytes
	LogicalBlock   int64    `json:"logical_block,omitempty"`
	PhysicalBlock  int64    `json:"physical_block,omitempty"`
	WriteCache     string   `json:"write_cache,omitempty"` // "write back", "write through"
	FUA            bool     `json:"fua,omitempty"`
	DiscardMax     int64    `json:"discard_max,omitempty"`      // bytes per command
	WriteZeroesMax int64    `json:"write_zeroes_max,omitempty"` // bytes per command
	Rotational     bool     `json:"rotational,omitempty"`
	Removable      bool     `json:"removable,omitempty"`
	ReadOnly       bool     `json:"read_only,omitempty"`
	Holders        []string `json:"holders,omitempty"`
	Model          string   `json:"model,omitempty"`
	Firmware       string   `json:"firmware,omitempty"`
	EMMC           *EMMC    `json:"emmc,omitempty"`
	MaxRatio       int64    `json:"bdi_max_ratio,omitempty"` // per cent of dirty memory
}

// String formats the facts for one line of a log.
func (f Facts) String() string {
	words := []string{f.Name + ", " + f.Kind}
	if f.Model != "" {
		words = append(words, strings.TrimSpace(f.Model+" "+f.Firmware))
	}
	if f.LogicalBlock > 0 {
		words = append(words, fmt.Sprintf("blocks of %d/%d bytes", f.LogicalBlock, f.PhysicalBlock))
	}
	if f.WriteCache != "" {
		words = append(words, "cache "+f.WriteCache)
	}
	if f.EMMC != nil {
		words = append(words, f.EMMC.String())
	}
	if len(f.Holders) > 0 {
		words = append(words, "held by "+strings.Join(f.Holders, " "))
	}
	return strings.Join(words, ", ")
}

// Facts reads the current facts from sysfs.
func (d *Device) Facts() Facts {
	f := Facts{Name: d.name, Size: d.size, Kind: "file"}
	if d.sysfs == "" {
		return f
	}
	f.Kind = "block device"
	number := func(name string) int64 {
		n, _ := strconv.ParseInt(sysText(d.sysfs, name), 10, 64)
		return n
	}
	f.LogicalBlock, f.PhysicalBlock = number("queue/logical_block_size"), number("queue/physical_block_size")
	f.WriteCache, f.FUA = sysText(d.sysfs, "queue/write_cache"), number("queue/fua") == 1
	f.DiscardMax, f.WriteZeroesMax = number("queue/discard_max_bytes"), number("queue/write_zeroes_max_bytes")
	f.Rotational, f.Removable = number("queue/rotational") == 1, number("removable") == 1
	f.MaxRatio = number("bdi/max_ratio")
	f.ReadOnly = sysText(d.sysfs, "ro") == "1" || sysText(d.node, "ro") == "1"
	for _, name := range []string{"device/model", "device/name"} {
		if f.Model == "" {
			f.Model = sysText(d.sysfs, name)
		}
	}
	for _, name := range []string{"device/firmware_rev", "device/fwrev", "device/rev"} {
		if f.Firmware == "" {
			f.Firmware = sysText(d.sysfs, name)
		}
	}
	f.EMMC = emmc(d.sysfs)
	holders, _ := filepath.Glob(filepath.Join(d.node, "holders", "*"))
	for _, h := range holders {
		f.Holders = append(f.Holders, filepath.Base(h))
	}
	return f
}

// sysText reads an attribute in a folder of sysfs, "" for none.
func sysText(dir, name string) string {
	b, _ := os.ReadFile(filepath.Join(dir, name))
	return strings.TrimSpace(string(b))
}

// builtIn reports whether a disk is known to be a built-in medium: neither removable, a card, nor on USB, and not made of other disks.
func builtIn(sysfs string) bool {
	slaves, err := os.ReadDir(filepath.Join(sysfs, "slaves"))
	return err == nil && len(slaves) == 0 && sysText(sysfs, "removable") == "0" && sysText(sysfs, "device/removable") != "removable" &&
		sysText(sysfs, "device/type") != "SD" && !strings.Contains(sysfs, "/usb")
}

// sysfsOf returns the directories of a block device and of its whole disk in sysfs, "" for none.
func sysfsOf(f *os.File) (node, disk string) {
	var st unix.Stat_t
	_ = unix.Fstat(int(f.Fd()), &st) // a regular file has device number 0, which is no block device
	node, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))))
	if err != nil {
		return "", ""
	}
	if _, err := os.Stat(filepath.Join(node, "partition")); err == nil {
		return node, filepath.Dir(node)
	}
	return node, node
}
