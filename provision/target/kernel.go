package target

import (
	"fmt"
	"path/filepath"
	"strconv"

	"updater/provision/plan"
)

// extent is where a partition is, in bytes.
type extent struct{ offset, length int64 }

// kernelPartitions are the partitions that the kernel knows of a disk, by number.
func (h Host) kernelPartitions(d *Disk) (map[int]extent, error) {
	found := map[int]extent{}
	names, _ := filepath.Glob(h.sys("block", filepath.Base(d.Path), "*", "partition"))
	for _, name := range names {
		dir := filepath.Dir(name)
		var fields [3]int64
		for i, file := range []string{"partition", "start", "size"} {
			n, err := strconv.ParseInt(attribute(filepath.Join(dir, file)), 10, 64)
			if err != nil {
				return nil, fmt.Errorf("reading %s of %s: %w", file, dir, err)
			}
			fields[i] = n
		}
		found[int(fields[0])] = extent{fields[1] * sysfsSector, fields[2] * sysfsSector}
	}
	return found, nil
}

// KnowsPartitions reports whether the kernel knows any partition of a disk. It does not if it has no parser for GPT.
func (h Host) KnowsPartitions(d *Disk) bool {
	names, _ := filepath.Glob(h.sys("block", filepath.Base(d.Path), "*", "partition"))
	return len(names) > 0
}

// CheckKernel compares the partitions that the kernel knows of a disk with those that were written.
func (h Host) CheckKernel(d *Disk, parts []plan.Placed) error {
	found, err := h.kernelPartitions(d)
	if err != nil {
		return err
	}
	for _, p := range parts {
		got, ok := found[p.Number]
		if !ok {
			return fmt.Errorf("the kernel does not know partition %d %q of %s", p.Number, p.Name, d.Path)
		}
		if got != (extent{p.Offset, p.Length}) {
			return fmt.Errorf("the kernel has partition %d %q of %s at %d with %d bytes, expected at %d with %d",
				p.Number, p.Name, d.Path, got.offset, got.length, p.Offset, p.Length)
		}
		delete(found, p.Number)
	}
	for number := range found {
		return fmt.Errorf("the kernel has partition %d of %s, which is not in the table", number, d.Path)
	}
	return nil
}
