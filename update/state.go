package update

import "time"

// State is the data that a device keeps between installs. A nil State remembers nothing and has a floor of 0.
type State interface {
	// Floor is the lowest rollback index that may be installed. An install never changes it.
	Floor() int64
	// Release describes the release that was installed completely into every role of a slot. Its Outcome is OutcomeInstalled, or
	// OutcomeBad if the slot was marked bad since. The record is zero when the slot holds no such release.
	Release(slot string) Record
	// Record notes the content of the partitions of a slot, in one change. It is on stable storage once Record returns nil.
	Record(records ...Record) error
}

// Outcome is how far an install got.
type Outcome string

// The outcomes.
const (
	OutcomeWriting   Outcome = "writing"   // the first byte may have changed
	OutcomeFailed    Outcome = "failed"    // the install ended with an error
	OutcomeInstalled Outcome = "installed" // the whole image was read back
	OutcomeBad       Outcome = "bad"       // it was installed, and marked bad since
)

// Record describes one install in a State.
type Record struct {
	Slot, Role    string
	Outcome       Outcome
	Detail        string // the error of a failed one
	Version       string
	RollbackIndex int64     // 0 means none
	ImageChecksum string    // hex, of the whole image; "" if the document has none
	BmapChecksum  string    // hex sha256 of the signed document
	Release       string    // identity of the release, package release
	Created       time.Time // of the release; zero is none
	Signed        time.Time // of the newest signature
	Signers       []string  // fingerprints of the keys that signed
	Size          int64     // of the image, bytes
	Seconds       Timings   // of the phases so far; nil with OutcomeWriting
	At            time.Time // trusted time
}

// record notes an outcome in the state. Nothing is written before OutcomeWriting is durable.
func (r *run) record(o Outcome, detail string) error {
	if r.State == nil {
		return nil
	}
	var records []Record
	for _, p := range r.parts {
		rec := p.Record(r.Slot, p.role, o, r.Policy.Time)
		rec.Version, rec.RollbackIndex = r.release.Version(), r.release.Order().RollbackIndex
		rec.Release, rec.Created, rec.Detail = r.release.Identity(), r.release.Order().Created, detail
		if o != OutcomeWriting {
			rec.Seconds = r.soFar()
		}
		records = append(records, rec)
	}
	if err := r.State.Record(records...); err != nil {
		return err
	}
	r.noted = o
	return nil
}

// Record describes the document's image in a partition of a slot.
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

// ended records a failed install. It adds nothing to the error, which is reported anyway. A slot that was read back completely stays
// recorded as installed: only its activation failed.
func (r *run) ended(err error) {
	if r.noted == OutcomeWriting { // only an error ends an install that is noted so
		_ = r.record(OutcomeFailed, err.Error())
	}
}
