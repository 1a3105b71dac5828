// Package gpt keeps the slot choice in the attributes of GPT partitions, as ChromeOS and Flatcar do: bits
// 48-51 are the priority, 52-55 the tries, 56 says successful. The loader takes the partition with the
// highest priority that is successful or has tries left, and spends one of the tries of one that is not
// successful (vboot, firmware/lib/cgptlib). A good boot writes nothing.
//
// There are two copies of the table. A change is four writes of a sector each, flushed one by one: the backup's
// entries, the backup's header, the primary's entries, the primary's header. Readers take the primary while
// it is whole, so that they see the old state through the first two, the backup's new state after the
// third, and the new state at the end: the change is old-or-new. After the third write Linux finds no
// partitions unless gpt is on its command line; loaders do. A copy that is not whole is restored from the other
// one before anything else is changed.
package gpt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"updater/boot"
	"updater/boot/scheme"
)

// Options are what the backend needs.
type Options struct {
	Primary, Backup boot.Area // of [PrimarySize] and [BackupSize]
	Sector          int       // bytes of a sector of the disk
	Slots           []string
	Partition       map[string]int // number of the slot's partition, from 1
}

// New returns the backend. booted is the running slot, "" outside every slot.
func New(o Options, booted string) (*scheme.Backend, error) {
	if o.Primary.Size() != PrimarySize(o.Sector) || o.Backup.Size() != BackupSize(o.Sector) {
		return nil, fmt.Errorf("%w: the areas of the partition tables have %d and %d bytes", boot.ErrState, o.Primary.Size(), o.Backup.Size())
	}
	for _, s := range o.Slots {
		if n := o.Partition[s]; n < 1 || n > entryCount {
			return nil, fmt.Errorf("%w: slot %s is partition %d, expected 1 to %d", boot.ErrState, s, n, entryCount)
		}
	}
	return scheme.New(&store{o}, o.Slots, booted)
}

type store struct{ Options }

// Rules implements [scheme.Store].
func (s *store) Rules() scheme.Rules { return scheme.Rules{MaxTries: 15, SwitchAtomic: true} }

// Load implements [scheme.Store].
func (s *store) Load() (scheme.Record, []boot.Finding, error) {
	r := &record{
		store: s, primary: &table{area: s.Primary, sector: s.Sector, primary: true}, backup: &table{area: s.Backup, sector: s.Sector},
	}
	perr, berr := r.primary.read(), r.backup.read()
	for _, err := range []error{perr, berr} {
		if err != nil && !errors.Is(err, errBad) {
			return nil, nil, err
		}
	}
	const remedy = boot.RemedyRepair + "; until then Linux needs gpt on its command line"
	switch {
	case perr != nil && berr != nil:
		return nil, nil, fmt.Errorf("%w: %w", boot.ErrState, errors.Join(perr, berr))
	case perr != nil:
		r.damaged = r.primary
		return r, []boot.Finding{boot.Warn(remedy, "%v", perr)}, nil
	case berr != nil:
		r.damaged = r.backup
		return r, []boot.Finding{boot.Warn(boot.RemedyRepair, "%v", berr)}, nil
	case !bytes.Equal(r.primary.entries, r.backup.entries):
		r.damaged = r.backup
		return r, []boot.Finding{boot.Warn(boot.RemedyRepair, "%s differs from the primary one, which counts", r.backup)}, nil
	}
	return r, nil, nil
}

// Repair implements [scheme.Store].
func (s *store) Repair(string) error {
	rec, _, err := s.Load()
	if err != nil {
		return err
	}
	return rec.(*record).repair()
}

type record struct {
	*store
	primary, backup *table
	damaged         *table // the copy that does not count; nil when both are whole and alike
}

// counts is the copy that readers take.
func (r *record) counts() *table {
	if r.damaged == r.primary {
		return r.backup
	}
	return r.primary
}

func (r *record) repair() error {
	if r.damaged == nil {
		return nil
	}
	from, to := r.counts(), r.damaged
	r.damaged = nil
	return to.write(from.entries, to.copyOf(from))
}

func (r *record) attributes(entries []byte, slot string) []byte {
	return entries[(r.Partition[slot]-1)*entrySize+offAttributes:][:8]
}

// Entry implements [scheme.Record].
func (r *record) Entry(slot string) scheme.Entry {
	a := binary.LittleEndian.Uint64(r.attributes(r.counts().entries, slot))
	return scheme.Entry{Priority: int(a >> 48 & 15), Tries: int(a >> 52 & 15), Good: a>>56&1 == 1}
}

// Save implements [scheme.Record].
func (r *record) Save(t *scheme.Table) error {
	entries := bytes.Clone(r.counts().entries)
	prio := scheme.Place(t, func(s string) int { return r.Entry(s).Priority }, 15)
	for _, s := range r.Slots {
		e, at := t.Get(s), r.attributes(entries, s)
		a := binary.LittleEndian.Uint64(at) &^ (0x1ff << 48)
		a |= uint64(prio[s])<<48 | uint64(e.Tries)<<52
		if e.Good {
			a |= 1 << 56
		}
		binary.LittleEndian.PutUint64(at, a)
	}
	if bytes.Equal(entries, r.counts().entries) {
		return nil
	}
	if err := r.repair(); err != nil {
		return err
	}
	if err := r.backup.write(entries, r.backup.header); err != nil {
		return err
	}
	return r.primary.write(entries, r.primary.header)
}
