package update

import "time"

// State is what a device remembers between installs. A nil State remembers nothing, and its floor is 0.
type State interface {
	// Floor is the lowest rollback index that may be installed. An install never changes it.
	Floor() int64
	// Record notes what a partition of a slot holds; it is on stable storage when Record returns nil.
	Record(r Record) error
}

// Outcome is how far an install has come.
type Outcome string

// The outcomes.
const (
	OutcomeWriting   Outcome = "writing"   // its first byte may have changed
	OutcomeFailed    Outcome = "failed"    // it ended with an error
	OutcomeInstalled Outcome = "installed" // all of it was read back
)

// Record is what is remembered of an install.
type Record struct {
	Slot, Role    string
	Outcome       Outcome
	Detail        string // why it failed
	Version       string
	RollbackIndex int64     // 0 is none
	ImageChecksum string    // hex, of the whole image, when the document has it
	BmapChecksum  string    // hex sha256 of the signed document
	Signed        time.Time // the newest of its signatures
	Signers       []string  // fingerprints of the keys that signed
	Size          int64     // of the image, bytes
	Seconds       Timings   // of the phases so far; nil at the beginning
	At            time.Time // trusted time
}

// record has the state remember an outcome. Nothing is written before OutcomeWriting is remembered.
func (r *run) record(doc *Document, o Outcome, detail string) error {
	if r.State == nil {
		return nil
	}
	rec := doc.Record(r.Slot, r.Role, o, r.Policy.Time)
	rec.Detail = detail
	if o != OutcomeWriting {
		rec.Seconds = r.soFar()
	}
	if err := r.State.Record(rec); err != nil {
		return err
	}
	r.noted = o
	return nil
}

// Record is what is remembered of the document's image in a partition of a slot.
func (d *Document) Record(slot, role string, o Outcome, at time.Time) Record {
	u := d.update()
	rec := Record{
		Slot: slot, Role: role, Outcome: o, At: at,
		Version: u.Version, RollbackIndex: u.RollbackIndex, ImageChecksum: u.ImageChecksum, BmapChecksum: d.Checksum, Size: d.Map.ImageSize(),
	}
	for _, s := range d.Signers {
		rec.Signers = append(rec.Signers, s.Fingerprint)
		if s.Time.After(rec.Signed) {
			rec.Signed = s.Time
		}
	}
	return rec
}

// ended notes why an install failed, if it did. It adds nothing to an error that is reported anyway, and takes nothing
// back from a slot that was read back whole: only its activation failed.
func (r *run) ended(doc *Document, err error) {
	if err != nil && r.noted == OutcomeWriting {
		_ = r.record(doc, OutcomeFailed, err.Error())
	}
}
