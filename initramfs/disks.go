package initramfs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"
)

// look is the polling interval in the absence of uevents.
const look = 250 * time.Millisecond

// Block is a block device: a disk or a partition.
type Block struct {
	Node string // "/dev/vda1"
	Disk string // node of the disk that holds it
	Seq  string // sequence number of the disk, unique since boot (diskseq); "" before Linux 5.15
}

// notDisks are name prefixes of virtual block devices.
var notDisks = []string{"loop", "ram", "dm-", "zram", "nbd", "md"}

// Blocks lists the block devices of nonzero size, sorted by node, so that a disk precedes its partitions. It omits loop, RAM,
// network, device-mapper and md devices.
func Blocks() ([]Block, error) {
	dirs, err := filepath.Glob("/sys/class/block/*")
	if err != nil {
		return nil, err
	}
	var blocks []Block
	for _, dir := range dirs {
		name := filepath.Base(dir)
		if slices.ContainsFunc(notDisks, func(p string) bool { return strings.HasPrefix(name, p) }) {
			continue
		}
		size, err := os.ReadFile(dir + "/size")
		if err != nil || strings.TrimSpace(string(size)) == "0" {
			continue
		}
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			continue // unplugged in the meantime
		}
		b := Block{Node: node(name), Disk: node(name)}
		if _, err := os.Stat(dir + "/partition"); err == nil {
			real = filepath.Dir(real)
			b.Disk = node(filepath.Base(real))
		}
		if seq, err := os.ReadFile(real + "/diskseq"); err == nil { // since 5.15
			b.Seq = strings.TrimSpace(string(seq))
		}
		blocks = append(blocks, b)
	}
	sort.Slice(blocks, func(i, j int) bool { return blocks[i].Node < blocks[j].Node })
	return blocks, nil
}

func node(name string) string { return "/dev/" + strings.ReplaceAll(name, "!", "/") }

// waitDisk waits for the device's own disk. After timeout it returns the error of FindDisk, with the block devices present
// and the hardware no packed module drives.
func (r *runner) waitDisk(ctx context.Context, timeout time.Duration) (string, error) {
	for deadline := time.Now().Add(timeout); ; {
		disk, err := r.device.FindDisk()
		if err == nil {
			return disk, nil
		}
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		if time.Now().After(deadline) {
			unmatched := strings.Join(r.loader.Unmatched(), " ")
			return "", fmt.Errorf("%w; block devices after %s: %s; devices without a module: %s", err, timeout, names(""), unmatched)
		}
		if err := r.wait(look); err != nil {
			return "", err
		}
	}
}

// of reports whether a block device belongs to a disk: it is the disk, a partition of it, or a boot area of the same eMMC.
func (b Block) of(disk string) bool {
	return disk != "" && (b.Disk == disk || strings.HasPrefix(b.Disk, disk+"boot") || b.Disk == disk+"rpmb")
}

// names lists the block devices for messages, without those of the device's own disk ("" is unknown).
func names(own string) string {
	blocks, _ := Blocks()
	var list []string
	for _, b := range blocks {
		if !b.of(own) {
			list = append(list, b.Node)
		}
	}
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}
