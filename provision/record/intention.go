package record

import (
	"crypto"
	"os"
	"path/filepath"
	"time"

	"updater/internal/atomicfile"
)

// intention states that a unit, or its latch, is about to be written. The station seals it. It lies in the spool, in a file of its own.
type intention struct {
	Kind     string    `json:"kind"`     // intention of a latch, or beginning of a unit
	Latch    string    `json:"latch"`    // sha256 of the latch
	Table    string    `json:"table"`    // GUID of the partition table that the unit gets, "" if other disks have it too
	Floor    int64     `json:"floor"`    // of the device that the unit was before
	Unit     string    `json:"unit"`     // that it is for
	Sequence int64     `json:"sequence"` // number of the last record before it, 0 for none
	Previous string    `json:"previous"` // sha256 of that record's line
	Time     time.Time `json:"time"`
}

// intentionAge is how long an interrupted run may be completed.
const intentionAge = 7 * 24 * time.Hour

func (s *Spool) intention(latch []byte) string {
	return filepath.Join(s.dir, "latching-"+Digest(latch))
}

// Intend records durably that a latch will be written to a unit before its record.
func (s *Spool) Intend(latch []byte, unit string) error {
	return s.intend(s.intention(latch), intention{Kind: "intention", Latch: Digest(latch), Unit: unit})
}

// intend puts an intention behind the last record.
func (s *Spool) intend(path string, i intention) error {
	return s.locked(func() error {
		last, line, err := s.last()
		if err != nil {
			return err
		}
		i.Sequence, i.Time = last, time.Now().UTC()
		if line != nil {
			i.Previous = Digest(line)
		}
		sealed, err := Seal(i, s.key)
		if err != nil {
			return err
		}
		return atomicfile.Write(path, sealed, 0o644)
	})
}

// Interrupted reports whether a run of this station wrote this latch to this unit in the last seven days and ended before it kept its
// record. The intention counts only in the chain of records that it was made in. A damaged spool opens no latch.
func (s *Spool) Interrupted(latch []byte, unit string, now time.Time) bool {
	i, ok := s.intended(s.intention(latch), "intention", unit, now)
	return ok && i.Latch == Digest(latch) && !s.passed(i, func(r *Record) bool { return r.Latch == i.Latch })
}

// intended reads an intention for a unit of the last seven days, in this chain of records.
func (s *Spool) intended(path, kind, unit string, now time.Time) (i intention, ok bool) {
	line, err := os.ReadFile(path)
	if err == nil {
		err = Unseal(line, kind, &i, s.key.Public())
	}
	return i, err == nil && i.Unit == unit && now.Sub(i.Time) <= intentionAge && s.has(i.Sequence, i.Previous)
}

// passed reports whether a record of a pass is the one that was intended. A damaged spool counts as one.
func (s *Spool) passed(i intention, is func(*Record) bool) (done bool) {
	n, err := Verify(s.dir, []crypto.PublicKey{s.key.Public()}, func(r *Record) error {
		done = done || r.Verdict == Pass && is(r)
		return nil
	})
	return done || err != nil || n < i.Sequence
}

func (s *Spool) beginning(unit string) string {
	return filepath.Join(s.dir, "begun-"+Digest([]byte(unit)))
}

// Begin records durably, before the first byte is written, that a unit gets the partition table with this GUID, and the floor of the device
// that it was before. An empty GUID is one that other disks have too.
func (s *Spool) Begin(unit, table string, floor int64) error {
	return s.intend(s.beginning(unit), intention{Kind: "beginning", Unit: unit, Table: table, Floor: floor})
}

// Begun returns the floor of a unit that this station began in the last seven days and has not passed, so that a run which was cut off can be
// completed. A unit that only its place identifies must still have the partition table.
func (s *Spool) Begun(unit string, strong bool, table string, now time.Time) (floor int64, ok bool) {
	i, ok := s.intended(s.beginning(unit), "beginning", unit, now)
	ok = ok && (strong || table != "" && table == i.Table) &&
		!s.passed(i, func(r *Record) bool { return r.Sequence > i.Sequence && r.Unit.Key == unit && r.Run == "provision" })
	if !ok {
		return 0, false
	}
	return i.Floor, true
}

// Ended forgets that a unit was begun.
func (s *Spool) Ended(unit string) {
	_ = os.Remove(s.beginning(unit)) // one that stays is harmless: the record of the pass exists
}

// has reports whether a record's line has this sha256; record 0 has none.
func (s *Spool) has(n int64, digest string) bool {
	if n == 0 {
		return digest == ""
	}
	line, err := os.ReadFile(s.path(n))
	return err == nil && Digest(line) == digest
}

// Completed forgets the intention of a latch.
func (s *Spool) Completed(latch []byte) {
	_ = os.Remove(s.intention(latch)) // one that stays is harmless: its record exists
}
