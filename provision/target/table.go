package target

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"updater/blockdev/gpt"
	"updater/blockdev/mbr"
	"updater/provision/plan"
)

// Medium is a whole disk that was opened exclusively. Any error of a write or flush is final. Writes are on stable storage only
// after Sync.
type Medium interface {
	io.WriterAt
	Zero(off, length int64) error
	Sync() error
	ReadBackAt(p []byte, off int64) (n int, err error) // from the medium, past the page cache
	Size() int64                                       // bytes
}

// Layout is the partition table of one disk.
type Layout struct {
	GUID   string // "" makes a new one
	Parts  []plan.Placed
	Sector int // logical sector size, bytes
}

// Write writes the table, the backup before the primary one, and compares both with the medium afterwards. The first MiB of every
// partition but keep is zeroed, so that no old file system shows through. The table is on stable storage once it returns nil.
func (l Layout) Write(m Medium, keep string) error {
	table, err := l.table(m.Size())
	if err != nil {
		return err
	}
	for _, p := range l.Parts {
		if p.Name == keep {
			continue
		}
		if err := m.Zero(p.Offset, min(p.Length, plan.Align)); err != nil {
			return err
		}
	}
	if err := gpt.Write(m, table, gpt.ProtectiveMBR(m.Size()/int64(l.Sector))); err != nil {
		return fmt.Errorf("writing the partition table: %w", err)
	}
	return l.Check(m)
}

func (l Layout) table(size int64) (*gpt.Table, error) {
	sector := int64(l.Sector)
	disk, err := guid(l.GUID)
	if err != nil {
		return nil, err
	}
	var entries []gpt.Entry
	for _, p := range l.Parts {
		e := gpt.Entry{
			Number: p.Number, First: p.Offset / sector, Last: (p.Offset+p.Length)/sector - 1, Attributes: p.Attributes, Name: p.Name,
		}
		if e.Type, err = gpt.ParseGUID(p.TypeGUID()); err != nil {
			return nil, err
		}
		if e.GUID, err = guid(p.GUID); err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return gpt.New(size/sector, sector, disk, entries)
}

func guid(s string) (gpt.GUID, error) {
	if s == "" {
		return gpt.NewGUID(), nil
	}
	return gpt.ParseGUID(s)
}

// Check compares both copies of the table on the medium with each other and with the layout.
func (l Layout) Check(m Medium) error {
	found, err := ReadBackTable(m, l.Sector)
	if err != nil {
		return err
	}
	if len(found) != len(l.Parts) {
		return fmt.Errorf("reading the partition table back: found %d partitions, expected %d", len(found), len(l.Parts))
	}
	for _, want := range l.Parts {
		i := slices.IndexFunc(found, func(p plan.Placed) bool { return p.Number == want.Number })
		if i < 0 {
			return fmt.Errorf("reading the partition table back: partition %d is missing", want.Number)
		}
		if got := found[i]; !same(got, want) {
			return fmt.Errorf("reading the partition table back: partition %d is %q of %d bytes at %d, expected %q of %d bytes at %d",
				want.Number, got.Name, got.Length, got.Offset, want.Name, want.Length, want.Offset)
		}
	}
	return nil
}

func same(got, want plan.Placed) bool {
	return got.Name == want.Name && got.TypeGUID() == want.TypeGUID() && got.Attributes == want.Attributes &&
		got.Offset == want.Offset && got.Length == want.Length && (want.GUID == "" || strings.EqualFold(got.GUID, want.GUID))
}

// ErrNoGPT is wrapped by the error of [ReadTable] on a disk without a GUID partition table.
var ErrNoGPT = gpt.ErrNoSignature

// ReadTable reads the partitions of a disk from the copy of the table that is good, the primary one if both are.
func ReadTable(m Medium, sector int) ([]plan.Placed, error) {
	return placed(gpt.Read(m, m.Size(), int64(sector)), sector)
}

// ReadBackTable reads both copies of the table from the medium. It is an error if they differ, if the backup is not in the last
// sector, or if Linux would ignore the table.
func ReadBackTable(m Medium, sector int) ([]plan.Placed, error) {
	tables := gpt.Read(m, m.Size(), int64(sector))
	err := errors.Join(tables.Faults()...)
	if last := m.Size()/int64(sector) - 1; err == nil && tables.Primary.AlternateLBA() != last {
		err = fmt.Errorf("the backup is in sector %d, expected the last one, %d", tables.Primary.AlternateLBA(), last)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the partition table back: %w", err)
	}
	return placed(tables, sector)
}

// ReadOldTable reads the partitions of a disk that was in use, by GPT or MBR. Those of an MBR have no name, and their PARTUUID as GUID.
func ReadOldTable(m Medium, sector int) ([]plan.Placed, error) {
	parts, err := ReadTable(m, sector)
	if err == nil {
		return parts, nil
	}
	list, err := mbr.Read(m, m.Size(), int64(sector))
	for _, p := range list {
		parts = append(parts, plan.Placed{Partition: plan.Partition{GUID: p.UUID}, Number: p.Number, Offset: p.Offset, Length: p.Size})
	}
	return parts, err
}

// TableGUID is the GUID of the table on a disk, "" if there is none.
func TableGUID(m Medium, sector int) string {
	tables := gpt.Read(m, m.Size(), int64(sector))
	switch {
	case tables.Primary != nil:
		return tables.Primary.DiskGUID().String()
	case tables.Backup != nil:
		return tables.Backup.DiskGUID().String()
	}
	return ""
}

// NewGUID makes a random GUID.
func NewGUID() string { return gpt.NewGUID().String() }

func placed(tables *gpt.Tables, sector int) ([]plan.Placed, error) {
	entries, err := tables.Partitions()
	if err != nil {
		return nil, err
	}
	var parts []plan.Placed
	for _, e := range entries {
		parts = append(parts, plan.Placed{
			Partition: plan.Partition{
				Name: e.Name, Type: strings.ToUpper(e.Type.String()), GUID: strings.ToUpper(e.GUID.String()), Attributes: e.Attributes,
			},
			Number: e.Number, Offset: e.First * int64(sector), Length: (e.Last - e.First + 1) * int64(sector),
		})
	}
	return parts, nil
}
