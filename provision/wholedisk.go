package provision

import (
	"errors"
	"fmt"
	"slices"

	"github.com/diskfs/go-diskfs/partition/gpt"
)

// FitTable moves the backup partition table of a whole-disk image to the real end of the disk, and with grow gives
// the rest of the disk to the last partition. The backup is written first; both are read back. It returns the
// partitions. A disk without a GPT is left as it is, and cannot grow.
func FitTable(m Medium, sector int, grow bool) (parts []Placed, err error) {
	defer guard(&err)
	table, err := gpt.Read(tableFile{m}, sector, sector)
	if err != nil {
		if grow {
			return nil, fmt.Errorf("growing the last partition: %w", err)
		}
		return nil, nil //nolint:nilerr // an image may have an MBR
	}
	if table.RecoveredFromBackup {
		return nil, errors.New("the image's primary partition table is damaged")
	}
	if len(table.Partitions) == 0 {
		return nil, errors.New("the image has a partition table without partitions")
	}
	table.Resize(uint64(m.Size()))
	last := slices.MaxFunc(table.Partitions, func(a, b *gpt.Partition) int { return int(int64(a.End) - int64(b.End)) })
	if grow {
		end := table.LastDataSector()
		if blocks := uint64(align / sector); (end+1)/blocks*blocks > last.End {
			end = (end+1)/blocks*blocks - 1
		}
		if end > last.End {
			last.End, last.Size = end, 0
		}
	}
	if last.End > table.LastDataSector() {
		return nil, &TooSmallError{Disk: "the disk", Size: m.Size(), Need: int64(last.End+34) * int64(sector), Why: "partition " + last.Name}
	}
	for _, p := range table.Partitions {
		p.Size = (p.End - p.Start + 1) * uint64(sector)
		parts = append(parts, Placed{
			PartitionRule: PartitionRule{Name: p.Name, Type: string(p.Type), GUID: p.GUID, Attributes: p.Attributes},
			Number:        p.Index, Offset: int64(p.Start) * int64(sector), Length: int64(p.Size),
		})
	}
	table.ProtectiveMBR = true
	if err := table.Write(tableFile{m}, m.Size()); err != nil {
		return nil, fmt.Errorf("moving the backup partition table: %w", err)
	}
	if err := m.Sync(); err != nil {
		return nil, err
	}
	return parts, CheckTable(m, parts, sector)
}
