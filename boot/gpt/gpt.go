// Package gpt keeps the slot choice in the attributes of GPT partitions, as ChromeOS and Flatcar do: bits 48-51 are the
// priority, 52-55 the tries, 56 is set after a successful boot. The loader boots the partition with the highest priority that is
// successful or has tries left, and spends a try of one that is not successful (vboot, firmware/lib/cgptlib). A good boot writes
// nothing.
//
// The table has two copies. A change is four writes of a sector each, flushed one by one: the backup's entries, the backup's
// header, the primary's entries, the primary's header. Readers use the primary while it is whole: they see the old state
// through the first two writes, the backup's new state after the third, and the new state at the end, so the change is
// old-or-new. After the third write Linux finds no partitions unless gpt is on its command line; loaders do. A copy that is
// damaged or cannot be read is restored from the other one before anything else is changed.
package gpt

import (
	"cmp"
	"fmt"

	"updater/blockdev/gpt"
	"updater/boot"
	"updater/boot/scheme"
)

// Options configure the backend.
type Options struct {
	Primary   boot.Area      // the beginning of the disk, up to the end of the primary entries
	Backup    boot.Area      // the end of the disk, from the backup entries or further in front
	Size      int64          // of the disk, bytes
	Sector    int            // bytes of a sector of the disk
	Slots     []string       // their names
	Partition map[string]int // number of the slot's partition, from 1
}

// usual is the length in bytes of the usual entries, 128 of 128 bytes.
const usual = 16384

// PrimarySize is the length of the primary area of a usual table, BackupSize that of the backup area, in bytes.
func PrimarySize(sector int) int64 { return int64(2*sector + usual) }

// BackupSize is described at [PrimarySize].
func BackupSize(sector int) int64 { return int64(usual + sector) }

// New returns the backend. booted is the running slot, "" outside every slot.
func New(o Options, booted string) (*scheme.Backend, error) {
	if o.Primary.Size()+o.Backup.Size() > o.Size {
		return nil, fmt.Errorf("%w: areas of the partition tables have %d and %d bytes, the disk has %d", boot.ErrState, o.Primary.Size(), o.Backup.Size(),
			o.Size)
	}
	for _, s := range o.Slots {
		if o.Partition[s] < 1 {
			return nil, fmt.Errorf("%w: slot %s is partition %d, expected 1 or more", boot.ErrState, s, o.Partition[s])
		}
	}
	return scheme.New(&store{o}, o.Slots, booted)
}

type store struct{ Options }

// Rules implements [scheme.Store].
func (s *store) Rules() scheme.Rules { return scheme.Rules{MaxTries: 15, SwitchAtomic: true} }

// Load implements [scheme.Store].
func (s *store) Load() (scheme.Record, []boot.Finding, error) {
	tables := gpt.ReadCopies(s, s.Size, int64(s.Sector))
	used, err := tables.Table()
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", boot.ErrState, err)
	}
	for _, slot := range s.Slots {
		if n := s.Partition[slot]; n > used.Count() {
			return nil, nil, fmt.Errorf("%w: slot %s is partition %d, the table has %d entries", boot.ErrState, slot, n, used.Count())
		}
	}
	r := &record{store: s, primary: tables.Primary, backup: tables.Backup, used: used}
	if r.restored, err = tables.Restored(s); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", boot.ErrState, err)
	}
	if err := s.within(r.restored); err != nil {
		return nil, nil, err
	}
	switch {
	case r.restored == nil:
		return r, nil, nil
	case r.primary == nil:
		r.primary = r.restored
		return r, []boot.Finding{boot.Warn(boot.RemedyRepair+"; until then Linux needs gpt on its command line", "%v", tables.PrimaryErr)}, nil
	}
	r.backup = r.restored
	bad := cmp.Or(tables.BackupErr, fmt.Errorf("backup partition table %s differs from the primary one, which counts", s.Backup))
	return r, []boot.Finding{boot.Warn(boot.RemedyRepair, "%v", bad)}, nil
}

// Repair implements [scheme.Store].
func (s *store) Repair(string) error {
	rec, _, err := s.Load()
	if err != nil {
		return err
	}
	return rec.(*record).repair()
}

// Settle implements [scheme.Settler].
func (s *store) Settle(changed func(scheme.Record) bool) error {
	return scheme.SettleByRepair(s, changed)
}

type record struct {
	*store
	primary, backup *gpt.Table // as they are on the disk, or will be after repair
	used            *gpt.Table // the copy that readers use
	restored        *gpt.Table // replaces a bad copy; nil when both are good and alike
}

func (r *record) repair() error {
	if r.restored == nil {
		return nil
	}
	for _, p := range r.restored.Pieces() {
		if err := r.write(p, nil); err != nil {
			return err
		}
	}
	return nil
}

// change makes a copy hold the attributes of entries: first the entries, then the header, each durable and read back. In between
// the copy is bad, and readers use the other one.
func (r *record) change(old, entries *gpt.Table) error {
	before := old.Pieces()
	for i, p := range entries.At(old.HeaderLBA(), old.AlternateLBA(), old.EntriesLBA()).Pieces() {
		if err := r.write(p, before[i].Data); err != nil {
			return err
		}
	}
	return nil
}

// Entry implements [scheme.Record].
func (r *record) Entry(slot string) scheme.Entry {
	a := r.used.Attributes(r.Partition[slot])
	return scheme.Entry{Priority: int(a >> 48 & 15), Tries: int(a >> 52 & 15), Good: a>>56&1 == 1}
}

// Save implements [scheme.Record].
func (r *record) Save(t *scheme.Table) error {
	next := r.used.Clone()
	prio := scheme.Place(t, func(s string) int { return r.Entry(s).Priority }, 15)
	for _, s := range r.Slots {
		e, n := t.Get(s), r.Partition[s]
		a := next.Attributes(n) &^ (0x1ff << 48)
		a |= uint64(prio[s])<<48 | uint64(e.Tries)<<52
		if e.Good {
			a |= 1 << 56
		}
		next.SetAttributes(n, a)
	}
	if next.SameContent(r.used) {
		return nil
	}
	if err := r.repair(); err != nil {
		return err
	}
	if err := r.change(r.backup, next); err != nil {
		return err
	}
	return r.change(r.primary, next)
}
