package gpt

import "fmt"

// Fit describes the changes of [Table.Fit].
type Fit struct {
	OldLBA, NewLBA     int64 // sector of the backup header, before and after
	Grown              int   // number of the partition that grew, 0 for none
	GrownFrom, GrownTo int64 // its size in bytes
}

// Fit changes a primary copy, in memory, to one of a disk of so many sectors: the backup goes to the last sectors, and the last usable sector
// follows. grow lets the partition that ends last reach to the end of the disk, in whole MiB. A partition that does not fit is an error.
func (t *Table) Fit(sectors int64, grow bool) (Fit, error) {
	fit := Fit{OldLBA: t.AlternateLBA(), NewLBA: sectors - 1}
	end := sectors - 1 - t.EntrySectors() // of the sectors that partitions may use
	var last Entry
	for _, e := range t.Entries() {
		if e.Last > last.Last {
			last = e
		}
	}
	if last.Last >= end {
		return fit, fmt.Errorf("partition %d ends at sector %d, the disk of %d sectors has room up to %d", last.Number, last.Last, sectors, end-1)
	}
	if first := t.lbaAt(offFirst); first < 2 || first >= end {
		return fit, fmt.Errorf("first usable sector is %d, expected 2 to %d", first, end-1)
	}
	if t.EntriesLBA()+t.EntrySectors() > end {
		return fit, fmt.Errorf("entries of the primary partition table are at sector %d, the disk of %d sectors has room up to %d", t.EntriesLBA(),
			sectors, end-1)
	}
	if fit.OldLBA != fit.NewLBA || t.lbaAt(offLast) >= end {
		t.put(offLast, end-1)
	}
	t.put(offAlternate, sectors-1)
	newEnd := (t.lbaAt(offLast) + 1) * t.sector / mib * mib / t.sector
	if grow && last.Number != 0 && newEnd-1 > last.Last {
		fit.Grown, fit.GrownFrom, fit.GrownTo = last.Number, (last.Last+1-last.First)*t.sector, (newEnd-last.First)*t.sector
		le.PutUint64(t.entry(last.Number)[offLastLBA:], uint64(newEnd-1))
	}
	return fit, nil
}
