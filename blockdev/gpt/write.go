package gpt

import (
	"bytes"
	"errors"
	"fmt"
)

// Medium is a whole disk.
type Medium interface {
	Reader
	WriteAt(p []byte, off int64) (n int, err error)
	Sync() error // earlier writes are on stable storage once it returns nil
}

// ErrNotWritten is wrapped by the error if the medium does not hold the bytes that were written to it.
var ErrNotWritten = errors.New("the medium does not hold what was written")

const (
	usualCount = 128
	mib        = 1 << 20
)

// New makes the primary copy of a table with 128 entries of 128 bytes in the usual place.
func New(sectors, sector int64, disk GUID, entries []Entry) (*Table, error) {
	const length = usualCount * minEntry
	n := sectorsOf(length, sector)
	if sectors < 2*n+4 {
		return nil, fmt.Errorf("%d sectors are too few for a partition table", sectors)
	}
	t := &Table{sector: sector, header: make([]byte, minHeader), entries: make([]byte, length)}
	copy(t.header, signature)
	le.PutUint32(t.header[8:], 0x10000) // revision 1.0
	le.PutUint32(t.header[offHeaderSize:], minHeader)
	copy(t.header[offDiskGUID:], disk[:])
	le.PutUint32(t.header[offCount:], usualCount)
	le.PutUint32(t.header[offWidth:], minEntry)
	for at, lba := range map[int]int64{
		offMyLBA: primaryLBA, offAlternate: sectors - 1, offEntriesLBA: primaryLBA + 1, offFirst: primaryLBA + 1 + n, offLast: sectors - n - 2,
	} {
		t.put(at, lba)
	}
	for _, e := range entries {
		if err := t.setEntry(e); err != nil {
			return nil, err
		}
		if e.First < t.lbaAt(offFirst) || e.Last > t.lbaAt(offLast) {
			return nil, fmt.Errorf("%s is not inside the usable sectors %d-%d", e, t.lbaAt(offFirst), t.lbaAt(offLast))
		}
	}
	_, err := t.Partitions(sectors)
	return t, err
}

// Mirror is the backup that belongs to a primary copy: its header at AlternateLBA, its entries directly before it.
func (t *Table) Mirror() *Table {
	lba := t.AlternateLBA()
	return t.At(lba, t.HeaderLBA(), lba-t.EntrySectors())
}

// Write writes both copies of a table and the MBR: the backup, a flush, the primary, a flush. A power cut leaves one whole copy,
// the old or the new one. Each copy is read back after its flush; the backup is on the medium before the primary changes. It returns nil
// once everything is on stable storage. An error is final: the medium holds the old or the new bytes.
func Write(m Medium, primary *Table, mbr []byte) error {
	sector0 := make([]byte, primary.sector)
	if err := readFull(m, sector0, 0); err != nil && primary.sector > mbrSize {
		return err
	}
	copy(sector0, mbr)
	if err := WritePieces(m, primary.Mirror().Pieces()...); err != nil {
		return err
	}
	p := primary.Pieces()
	return WritePieces(m, p[0], Piece{0, sector0}, p[1])
}

// WritePieces writes pieces in their order, flushes, and reads them back. It returns nil once all of them are on stable storage.
func WritePieces(m Medium, pieces ...Piece) error {
	for _, p := range pieces {
		if _, err := m.WriteAt(p.Data, p.Offset); err != nil {
			return err
		}
	}
	if err := m.Sync(); err != nil {
		return err
	}
	for _, p := range pieces {
		got := make([]byte, len(p.Data))
		if err := readFull(m, got, p.Offset); err != nil {
			return err
		}
		if !bytes.Equal(got, p.Data) {
			return fmt.Errorf("reading back the partition table at byte %d: %w", p.Offset, ErrNotWritten)
		}
	}
	return nil
}
