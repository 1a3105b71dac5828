package plan

import (
	"fmt"
	"strings"
)

// Align is the alignment of partitions in bytes: a multiple of every erase block and sector size in use.
const Align = 1 << 20

// tableBytes is the space of a partition table of 128 entries at either end of the disk, for any sector size: protective
// MBR, header and entries with sectors of 4096 bytes.
const tableBytes = 6 * 4096

// partitionTypes are the short names of partition types (UEFI specification, section 5.3.3; Discoverable Partitions).
var partitionTypes = map[string]string{
	"":          "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
	"linux":     "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
	"esp":       "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
	"swap":      "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F",
	"bios-boot": "21686148-6449-6E6F-744E-656564454649",
}

// TypeGUID is the partition's type as a GUID in upper case.
func (p Partition) TypeGUID() string {
	if guid := partitionTypes[p.Type]; guid != "" {
		return guid
	}
	return strings.ToUpper(p.Type)
}

// Placed is a partition with its place on a disk.
type Placed struct {
	Partition
	Number int   // from 1
	Offset int64 // bytes
	Length int64 // bytes
}

// TooSmallError reports a disk or a partition that cannot hold what the plan puts into it.
type TooSmallError struct {
	Disk string
	Size int64  // bytes
	Need int64  // bytes
	Why  string // what needs them
}

func (e *TooSmallError) Error() string {
	return fmt.Sprintf("%s has %d bytes, expected at least %d for %s", e.Disk, e.Size, e.Need, e.Why)
}

// RefusedError reports why a target must not be written.
type RefusedError struct {
	Target, Reason string
	Err            error // the cause; may be nil
}

func (e *RefusedError) Error() string { return fmt.Sprintf("%s is refused: %s", e.Target, e.Reason) }
func (e *RefusedError) Unwrap() error { return e.Err }

// Place lays the plan's partitions out on a disk of size bytes, in their order, aligned to [Align]. A percentage is of the
// space between the tables at both ends. Errors: [TooSmallError], [RefusedError] for a disk above disk.max.
func (p *Plan) Place(disk string, size int64) ([]Placed, error) {
	if err := p.Disk.Admit(disk, size); err != nil {
		return nil, err
	}
	const first = int64(Align)
	usable := max((size-tableBytes)/Align*Align-first, 0)
	lengths, fixed, rest := make([]int64, len(p.Partition)), int64(0), -1
	for i, part := range p.Partition {
		n, err := part.length(disk, size, usable)
		if err != nil {
			return nil, err
		}
		if part.Size.Rest {
			rest = i
		}
		lengths[i] = n
		fixed += n
	}
	if fixed > usable {
		return nil, &TooSmallError{Disk: disk, Size: size, Need: first + fixed + tableBytes, Why: "the partitions " + p.sizes(lengths)}
	}
	if rest >= 0 {
		lengths[rest] += usable - fixed
	}
	placed, at := make([]Placed, len(lengths)), first
	for i, n := range lengths {
		placed[i] = Placed{Partition: p.Partition[i], Number: i + 1, Offset: at, Length: n}
		at += n
	}
	return placed, nil
}

// length is the minimum size of the partition, in bytes.
func (p Partition) length(disk string, size, usable int64) (int64, error) {
	switch {
	case p.Size.Rest:
		return Align, nil
	case p.Size.Percent > 0:
		n := usable / 100 * p.Size.Percent / Align * Align
		if n == 0 {
			return 0, &TooSmallError{
				Disk: disk, Size: size, Need: Align*102 + tableBytes, Why: fmt.Sprintf("partition %s of %d%%", p.Name, p.Size.Percent),
			}
		}
		return n, nil
	case p.Size.Bytes > size:
		return 0, &TooSmallError{Disk: disk, Size: size, Need: p.Size.Bytes, Why: "partition " + p.Name}
	}
	return (p.Size.Bytes + Align - 1) / Align * Align, nil
}

// sizes lists the sizes of the partitions, for an error.
func (p *Plan) sizes(lengths []int64) string {
	var list []string
	for i, n := range lengths {
		list = append(list, fmt.Sprintf("%s %d MiB", p.Partition[i].Name, n/Align))
	}
	return strings.Join(list, ", ") + " and the partition tables"
}

// Admit refuses a disk outside of disk.min and disk.max. Errors: [TooSmallError], [RefusedError].
func (d Disk) Admit(disk string, size int64) error {
	if d.Min > 0 && size < int64(d.Min) {
		return &TooSmallError{Disk: disk, Size: size, Need: int64(d.Min), Why: "disk.min of the plan"}
	}
	if d.Max > 0 && size > int64(d.Max) {
		return &RefusedError{Target: disk, Reason: fmt.Sprintf("it has %d bytes, the plan allows at most %d", size, d.Max)}
	}
	return nil
}
