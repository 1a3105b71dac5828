package provision

import (
	"fmt"
	"strings"
)

// align is where partitions begin and how they are rounded: it suits every erase block and sector size.
const align = 1 << 20

// tableBytes is what a partition table of 128 entries takes at either end of the disk, for any sector size:
// protective MBR, header and entries with sectors of 4096 bytes.
const tableBytes = 6 * 4096

// Placed is a partition with its place on a disk.
type Placed struct {
	PartitionRule
	Number int   // from 1
	Offset int64 // bytes
	Length int64 // bytes
}

// TooSmallError says that a disk cannot hold what the plan puts on it.
type TooSmallError struct {
	Disk string
	Size int64 // bytes
	Need int64 // bytes
	Why  string
}

func (e *TooSmallError) Error() string {
	return fmt.Sprintf("%s has %d bytes, %d are needed: %s", e.Disk, e.Size, e.Need, e.Why)
}

// Place lays the plan's partitions out on a disk of size bytes, in their order, each on a border of 1 MiB. A
// percentage is of what the tables at both ends leave. It refuses a disk that is too small ([TooSmallError]).
func (p *Plan) Place(disk string, size int64) ([]Placed, error) {
	if err := p.Disk.admits(disk, size); err != nil {
		return nil, err
	}
	first := int64(align)
	end := (size - tableBytes) / align * align
	usable := max(end-first, 0)
	lengths, fixed := make([]int64, len(p.Partition)), int64(0)
	rest := -1
	for i, part := range p.Partition {
		switch {
		case part.Size.Rest:
			rest, lengths[i] = i, align
		case part.Size.Percent > 0:
			lengths[i] = usable / 100 * part.Size.Percent / align * align
		default:
			if part.Size.Bytes > size {
				return nil, &TooSmallError{Disk: disk, Size: size, Need: part.Size.Bytes, Why: "partition " + part.Name}
			}
			lengths[i] = (part.Size.Bytes + align - 1) / align * align
		}
		if lengths[i] == 0 {
			return nil, &TooSmallError{Disk: disk, Size: size, Need: align*101 + first + tableBytes, Why: fmt.Sprintf("%d%% of it for partition %s is nothing", part.Size.Percent, part.Name)}
		}
		fixed += lengths[i]
	}
	if fixed > usable {
		return nil, &TooSmallError{Disk: disk, Size: size, Need: first + fixed + tableBytes, Why: "the partitions " + p.sizes(lengths)}
	}
	if rest >= 0 {
		lengths[rest] += usable - fixed
	}
	placed, at := make([]Placed, len(lengths)), first
	for i, n := range lengths {
		placed[i] = Placed{PartitionRule: p.Partition[i], Number: i + 1, Offset: at, Length: n}
		at += n
	}
	return placed, nil
}

// sizes lists what the partitions take, for an error.
func (p *Plan) sizes(lengths []int64) string {
	var list []string
	for i, n := range lengths {
		list = append(list, fmt.Sprintf("%s %d MiB", p.Partition[i].Name, n/align))
	}
	return strings.Join(list, ", ") + " and the partition tables"
}

// admits refuses a disk outside the plan's window of sizes.
func (r DiskRule) admits(disk string, size int64) error {
	if r.Min > 0 && size < int64(r.Min) {
		return &TooSmallError{Disk: disk, Size: size, Need: int64(r.Min), Why: "disk.min of the plan"}
	}
	if r.Max > 0 && size > int64(r.Max) {
		return &RefusedError{Target: disk, Reason: fmt.Sprintf("it has %d bytes, the plan allows at most %d", size, r.Max)}
	}
	return nil
}
