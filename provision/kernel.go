package provision

import (
	"fmt"
	"path/filepath"
	"strconv"
)

// Partitions is how many partitions the kernel knows of a disk.
func (h Host) Partitions(d *Disk) int {
	names, _ := filepath.Glob(h.sys("block", filepath.Base(d.Path), "*", "partition"))
	return len(names)
}

// CheckKernel compares the partitions that the kernel knows of a disk with the table that was written.
func (h Host) CheckKernel(d *Disk, parts []Placed) error {
	found := map[int][2]int64{}
	names, _ := filepath.Glob(h.sys("block", filepath.Base(d.Path), "*", "partition"))
	for _, name := range names {
		number, err := strconv.Atoi(attribute(name))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		start, err1 := strconv.ParseInt(attribute(filepath.Join(filepath.Dir(name), "start")), 10, 64)
		size, err2 := strconv.ParseInt(attribute(filepath.Join(filepath.Dir(name), "size")), 10, 64)
		if err1 != nil || err2 != nil {
			return fmt.Errorf("%s has no start and size", filepath.Dir(name))
		}
		found[number] = [2]int64{start * 512, size * 512} // sysfs counts in 512 bytes, always
	}
	for _, p := range parts {
		got, ok := found[p.Number]
		if !ok {
			return fmt.Errorf("the kernel does not see partition %d %q of %s", p.Number, p.Name, d.Path)
		}
		if got != [2]int64{p.Offset, p.Length} {
			return fmt.Errorf("the kernel sees partition %d %q of %s at %d with %d bytes, expected %d with %d", p.Number, p.Name, d.Path, got[0], got[1], p.Offset, p.Length)
		}
		delete(found, p.Number)
	}
	for number := range found {
		return fmt.Errorf("the kernel sees a partition %d of %s that is not in the table", number, d.Path)
	}
	return nil
}
