package state

import (
	"slices"
	"time"
)

// The bounds of a [Fleet].
const (
	maxFailures = 32
	MaxReports  = 8
)

// Fleet is the state of a device that follows a channel.
type Fleet struct {
	Seen     Seen      `json:"seen,omitzero"`
	Installs int64     `json:"installs,omitempty"` // that began to write
	Trial    Trial     `json:"trial,omitzero"`
	Rollback Rollback  `json:"rollback,omitzero"`
	Failures []Failure `json:"failures,omitempty"` // the newest last, bounded
	Reports  []Report  `json:"reports,omitempty"`  // not delivered yet, the newest last, at most MaxReports
	Reported Report    `json:"reported,omitzero"`  // that was delivered last, without its text
}

// Seen is the newest channel document that was accepted.
type Seen struct {
	Channel string    `json:"channel"`
	Created time.Time `json:"created"`
	SHA256  string    `json:"sha256"` // of the signed bytes
}

// Trial is a slot that was made the next choice and was not marked good since.
type Trial struct {
	Slot    string `json:"slot"`
	Release string `json:"release"`           // identity
	Attempt int64  `json:"attempt,omitempty"` // of the channel; 0 for an install by a person
	Lost    int    `json:"lost,omitempty"`    // times that it did not come up for a reason unknown to the boot loader's state
	Ended   bool   `json:"ended,omitempty"`   // it is not the choice now; only Lost counts
}

// Rollback is a rollback that was begun. Its report is true once the slot is the next choice.
type Rollback struct {
	To     string `json:"to"` // slot
	Report Report `json:"report"`
}

// Failure is a release that did not prove itself here.
type Failure struct {
	Release string    `json:"release"` // identity
	Version string    `json:"version,omitempty"`
	Attempt int64     `json:"attempt"` // from 1
	At      time.Time `json:"at"`
	Detail  string    `json:"detail,omitempty"`
}

// Outcome is the outcome that a [Report] has.
type Outcome string

// The outcomes.
const (
	ReportGood     Outcome = "good"      // it ran and was marked good
	ReportFellBack Outcome = "fell-back" // it did not prove itself
	ReportFailed   Outcome = "failed"    // its install ended with an error
	ReportDamaged  Outcome = "damaged"   // a slot no longer holds it as it was installed
)

// Report is an outcome for the server of a fleet.
type Report struct {
	Outcome       Outcome   `json:"outcome"`
	Install       int64     `json:"install"` // number of the install on this device
	Release       string    `json:"release"` // identity
	Version       string    `json:"version,omitempty"`
	RollbackIndex int64     `json:"rollback_index,omitempty"`
	Slot          string    `json:"slot,omitempty"`
	Detail        string    `json:"detail,omitempty"`
	Attempt       int64     `json:"attempt,omitempty"` // by which it was installed; 0 for a person
	At            time.Time `json:"at,omitzero"`       // trusted time
}

// Same reports whether two reports are of the same outcome of the same install.
func (r Report) Same(o Report) bool {
	return r.Outcome == o.Outcome && r.Install == o.Install && r.Release == o.Release
}

// Queue adds a report, unless it is already waiting or was the last one delivered. The oldest one makes room.
func (f *Fleet) Queue(r Report) {
	if r.Same(f.Reported) || slices.ContainsFunc(f.Reports, r.Same) {
		return
	}
	r.Version, r.Detail = clip(r.Version), clip(r.Detail)
	f.Reports = append(f.Reports, r)
	f.Reports = f.Reports[max(len(f.Reports)-MaxReports, 0):]
}

// Delivered removes a report.
func (f *Fleet) Delivered(r Report) {
	f.Reports = slices.DeleteFunc(f.Reports, r.Same)
	f.Reported = Report{Outcome: r.Outcome, Install: r.Install, Release: r.Release}
}

// Fail remembers that a release failed.
func (f *Fleet) Fail(n Failure) {
	n.Version, n.Detail, n.Attempt = clip(n.Version), clip(n.Detail), max(n.Attempt, 1)
	f.Works(n.Release)
	f.Failures = append(f.Failures, n)
	f.Failures = f.Failures[max(len(f.Failures)-maxFailures, 0):]
}

// Works forgets the failure of a release.
func (f *Fleet) Works(identity string) {
	f.Failures = slices.DeleteFunc(f.Failures, func(n Failure) bool { return n.Release == identity })
}

func (f Fleet) clone() Fleet {
	f.Failures, f.Reports = slices.Clone(f.Failures), slices.Clone(f.Reports)
	return f
}

// shorten drops the oldest report, or, without reports, the oldest failure but the last, and reports whether there was any.
func (f *Fleet) shorten() bool {
	switch {
	case len(f.Reports) > 0:
		f.Reports = f.Reports[1:]
	case len(f.Failures) > 1:
		f.Failures = f.Failures[1:]
	default:
		return false
	}
	return true
}
