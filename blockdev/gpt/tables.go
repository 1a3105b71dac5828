package gpt

import (
	"cmp"
	"errors"
	"fmt"
)

// primaryLBA is the sector of the primary header.
const primaryLBA = 1

// Tables are the good copies of the table of a disk.
type Tables struct {
	Primary, Backup       *Table // nil is a bad copy
	PrimaryErr, BackupErr error  // why the copy is bad

	size, sectors int64 // of the disk
	unprotected   bool  // the MBR was read, and has no protective entry
}

// Read reads the MBR and both copies from a disk of size bytes. The backup is looked for in the sector that the primary names,
// else in the last one. It never fails: a copy that cannot be read is a bad copy.
func Read(r Reader, size, sector int64) *Tables {
	t := ReadCopies(r, size, sector)
	t.unprotected = !Protective(r)
	return t
}

// ReadCopies is [Read] without the MBR.
func ReadCopies(r Reader, size, sector int64) *Tables {
	t := ReadHead(r, size, sector)
	backup := max(t.sectors-1, primaryLBA+1)
	if t.Primary != nil {
		backup = t.Primary.AlternateLBA()
	}
	t.Backup, t.BackupErr = ReadCopy(r, size, sector, backup)
	if t.Primary == nil && t.Backup != nil && t.Backup.AlternateLBA() != primaryLBA {
		t.BackupErr = fmt.Errorf("backup partition table at sector %d: the other copy is at sector %d, expected 1", backup, t.Backup.AlternateLBA())
		t.Backup = nil
	}
	return t
}

// ReadHead is [ReadCopies] where only the beginning of the disk can be read: there is no backup.
func ReadHead(r Reader, size, sector int64) *Tables {
	t := &Tables{size: size, sectors: size / sector, BackupErr: fmt.Errorf("backup partition table: not looked for: %w", ErrNoSignature)}
	t.Primary, t.PrimaryErr = ReadCopy(r, size, sector, primaryLBA)
	return t
}

// Table is the copy that counts: the primary, else the backup. The error has the reasons of both; it wraps [ErrNoSignature] if neither copy is there.
func (t *Tables) Table() (*Table, error) {
	switch {
	case t.Primary != nil:
		return t.Primary, nil
	case t.Backup != nil:
		return t.Backup, nil
	case t.Absent():
		return nil, fmt.Errorf("no GUID partition table: %w in sectors 1 and %d", ErrNoSignature, t.sectors-1)
	case errors.Is(t.PrimaryErr, ErrNoSignature): // the more useful reason first
		return nil, errors.Join(t.BackupErr, t.PrimaryErr)
	}
	return nil, errors.Join(t.PrimaryErr, t.BackupErr)
}

// Partitions lists the used entries of the copy that counts. An entry that is not inside the disk, or overlaps another one or a
// good copy of the table, is an error.
func (t *Tables) Partitions() ([]Entry, error) {
	used, err := t.Table()
	if err != nil {
		return nil, err
	}
	list, err := used.Partitions(t.sectors)
	if err == nil && t.Backup != nil && t.Backup != used {
		err = overlap(append(t.Backup.places(), list...))
	}
	return list, err
}

// Absent reports whether the disk has no table at all, rather than a damaged one.
func (t *Tables) Absent() bool {
	return errors.Is(t.PrimaryErr, ErrNoSignature) && errors.Is(t.BackupErr, ErrNoSignature)
}

// Faults returns the faults of a usable table, as Linux would judge it.
func (t *Tables) Faults() (list []error) {
	switch {
	case t.Primary == nil:
		list = append(list, fmt.Errorf("%w; the backup serves, but Linux finds no partitions without gpt on its command line", t.PrimaryErr))
	case t.Backup == nil:
		list = append(list, t.BackupErr)
	case !t.Primary.SameContent(t.Backup):
		list = append(list, errors.New("the backup partition table differs from the primary one, which counts"))
	}
	used, err := t.Table()
	if err != nil {
		return append(list, err)
	}
	if t.unprotected {
		list = append(list, errors.New("the MBR does not protect the partition table; Linux ignores the table"))
	}
	if first, last := used.lbaAt(offFirst), used.lbaAt(offLast); first > last || last >= t.sectors {
		list = append(list, fmt.Errorf("usable sectors are %d-%d, expected inside the disk of %d sectors; Linux ignores the table", first, last, t.sectors))
	}
	if w := used.width(); w != minEntry {
		list = append(list, fmt.Errorf("partition table has entries of %d bytes, Linux takes only %d", w, minEntry))
	}
	return list
}

// Restored is the copy that replaces a bad or different one, nil if both are good and equal. The primary counts if they differ.
// It is an error if the place of the copy is not certain, or overlaps a partition or the other copy.
func (t *Tables) Restored(r Reader) (*Table, error) {
	used, err := t.Table()
	switch {
	case err != nil:
		return nil, err
	case t.Primary == nil:
		at, err := t.primaryEntries(r)
		if err != nil {
			return nil, fmt.Errorf("restoring the primary partition table: %w", err)
		}
		return t.free(used, used.At(primaryLBA, used.HeaderLBA(), at))
	case t.Backup == nil:
		lba := used.AlternateLBA()
		if lba >= t.sectors {
			return nil, fmt.Errorf("restoring the backup partition table: the primary one places it at sector %d, outside the disk of %d sectors", lba,
				t.sectors)
		}
		return t.free(used, used.At(lba, primaryLBA, lba-used.EntrySectors()))
	case !t.Primary.SameContent(t.Backup):
		return t.free(used, used.At(t.Backup.HeaderLBA(), primaryLBA, t.Backup.EntriesLBA()))
	}
	return nil, nil
}

// Reach returns the bytes at the beginning of the disk that hold the MBR and the primary copy, and those at its end that hold the
// backup. A bad copy counts at its proper place. One copy must be good.
func (t *Tables) Reach(r Reader) (head, tail int64) {
	primary, backup := t.Primary, t.Backup
	if primary == nil {
		primary, _ = t.Restored(r) // nil where its place is not certain
	}
	if primary == nil {
		primary = backup.At(primaryLBA, backup.HeaderLBA(), primaryLBA+1)
	}
	if backup == nil {
		backup = primary.Mirror()
	}
	head = (primary.EntriesLBA() + primary.EntrySectors()) * primary.sector
	return head, t.size - min(backup.EntriesLBA(), backup.HeaderLBA())*backup.sector
}

// free refuses a copy that overlaps a partition or the copy that stays.
func (t *Tables) free(stays, c *Table) (*Table, error) {
	if c.EntriesLBA() <= primaryLBA || c.EntriesLBA()+c.EntrySectors() > t.sectors {
		return nil, fmt.Errorf("restoring the %s partition table: no place for its entries", copyName(c.HeaderLBA()))
	}
	for _, e := range append(c.Entries(), stays.places()...) {
		if err := cmp.Or(overlap([]Entry{c.places()[0], e}), overlap([]Entry{c.places()[1], e})); err != nil {
			return nil, fmt.Errorf("restoring the %s partition table: %w", copyName(c.HeaderLBA()), err)
		}
	}
	return c, nil
}

// primaryEntries finds the place of the entries of a bad primary copy: where its header says, if the header is good; where the
// same entries stand already, directly before the first usable sector or after the header; or after the header, if the first
// usable sector leaves no other place. A boot loader may lie between header and entries, so no place is guessed.
func (t *Tables) primaryEntries(r Reader) (int64, error) {
	b := t.Backup
	raw := make([]byte, b.sector)
	if h := (&Table{sector: b.sector}); readFull(r, raw, primaryLBA*b.sector) == nil && h.parseHeader(raw, primaryLBA) == nil {
		return h.EntriesLBA(), nil
	}
	const usual = primaryLBA + 1
	behind := b.lbaAt(offFirst) - b.EntrySectors()
	for _, at := range []int64{behind, usual} { // a tool that moves the entries may leave the old ones behind
		found := make([]byte, len(b.entries))
		if readFull(r, found, at*b.sector) == nil && string(found) == string(b.entries) {
			return at, nil
		}
	}
	if behind == usual {
		return usual, nil
	}
	return 0, fmt.Errorf("its header is damaged (%w) and the entries are neither at sector %d nor at %d", t.PrimaryErr, usual, behind)
}
