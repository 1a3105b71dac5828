package initramfs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// look is how often things are looked at again even without an event.
const look = 250 * time.Millisecond

// Block is a block device: a whole disk, or a partition.
type Block struct {
	Node string // "/dev/vda1"
	Disk string // node of the whole disk
}

// Blocks lists the block devices that have a size, disks before their partitions, by name. Loop, RAM and
// device-mapper devices are left out.
func Blocks() ([]Block, error) {
	dirs, err := filepath.Glob("/sys/class/block/*")
	if err != nil {
		return nil, err
	}
	var blocks []Block
	for _, dir := range dirs {
		name := filepath.Base(dir)
		if strings.HasPrefix(name, "loop") || strings.HasPrefix(name, "ram") || strings.HasPrefix(name, "dm-") || strings.HasPrefix(name, "zram") {
			continue
		}
		size, err := os.ReadFile(dir + "/size")
		if err != nil || strings.TrimSpace(string(size)) == "0" {
			continue
		}
		b := Block{Node: node(name), Disk: node(name)}
		if _, err := os.Stat(dir + "/partition"); err == nil {
			real, err := filepath.EvalSymlinks(dir)
			if err != nil {
				continue
			}
			b.Disk = node(filepath.Base(filepath.Dir(real)))
		}
		blocks = append(blocks, b)
	}
	slices.SortFunc(blocks, func(a, b Block) int { return strings.Compare(a.Node, b.Node) })
	return blocks, nil
}

func node(name string) string { return "/dev/" + strings.ReplaceAll(name, "!", "/") }

// WaitDisk waits until the block device exists. The error after timeout lists what is there instead, and
// which hardware no packed module drives.
func WaitDisk(ctx context.Context, l *Loader, ev *Uevents, path string, timeout time.Duration) error {
	for deadline := time.Now().Add(timeout); ; {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			if info, err := os.Stat(real); err == nil && info.Mode().Type() == os.ModeDevice {
				return nil
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("disk %s did not show up within %s; there are %s; no module for %s", path, timeout, names(), strings.Join(l.Unmatched(), " "))
		}
		if err := ev.Wait(l, look); err != nil {
			return err
		}
	}
}

// names lists the block devices for an error.
func names() string {
	blocks, err := Blocks()
	if err != nil || len(blocks) == 0 {
		return "no block devices"
	}
	var list []string
	for _, b := range blocks {
		list = append(list, b.Node)
	}
	return strings.Join(list, ", ")
}
