package record

import (
	"crypto"
	"os"
	"path/filepath"
	"time"

	"updater/internal/atomicfile"
)

// intention says that a latch is about to be written. The station seals it. It lies in the spool, in a file of its own.
type intention struct {
	Kind     string    `json:"kind"`     // intention
	Latch    string    `json:"latch"`    // sha256 of the latch
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

// Intend notes durably that a latch will be written to a unit before its record.
func (s *Spool) Intend(latch []byte, unit string) error {
	return s.locked(func() error {
		last, line, err := s.last()
		if err != nil {
			return err
		}
		i := intention{Kind: "intention", Latch: Digest(latch), Unit: unit, Sequence: last, Time: time.Now().UTC()}
		if line != nil {
			i.Previous = Digest(line)
		}
		sealed, err := Seal(i, s.key)
		if err != nil {
			return err
		}
		return atomicfile.Write(s.intention(latch), sealed, 0o644)
	})
}

// Interrupted reports whether a run of this station wrote this latch to this unit in the last seven days and ended before it kept its
// record. The intention counts only in the chain of records that it was made in. A damaged spool opens no latch.
func (s *Spool) Interrupted(latch []byte, unit string, now time.Time) bool {
	line, err := os.ReadFile(s.intention(latch))
	if err != nil {
		return false
	}
	var i intention
	if err := Unseal(line, "intention", &i, s.key.Public()); err != nil {
		return false
	}
	if i.Latch != Digest(latch) || i.Unit != unit || now.Sub(i.Time) > intentionAge || !s.has(i.Sequence, i.Previous) {
		return false
	}
	done := false
	n, err := Verify(s.dir, []crypto.PublicKey{s.key.Public()}, func(r *Record) error {
		done = done || r.Latch == i.Latch && r.Verdict == Pass
		return nil
	})
	return err == nil && n >= i.Sequence && !done
}

// has reports whether a record's line has this sha256; record 0 has none.
func (s *Spool) has(n int64, digest string) bool {
	if n == 0 {
		return digest == ""
	}
	line, err := os.ReadFile(s.path(n))
	return err == nil && Digest(line) == digest
}

// Completed forgets what was intended.
func (s *Spool) Completed(latch []byte) {
	_ = os.Remove(s.intention(latch)) // one that stays is harmless: its record exists
}
