package line

import (
	"sync"

	"updater/provision/identity"
	"updater/provision/medium"
	"updater/provision/record"
)

// stage is how far a unit is. It moves forward, and once back to preparing, after an error of the medium.
type stage int

const (
	preparing  stage = iota // opening the disk, reserving the serial, writing the partition table
	writing                 // the images, in a fan with others
	behind                  // it left the fan; it goes on in another one once the others are done
	verifying               // flushing and reading back, or, in a check, comparing the parts in no image
	repairing               // rewriting ranges that read back wrong
	completing              // file systems, identity, boot state, latch
	settled                 // it has its verdict; nothing changes any more
)

// life is the history of a unit. It is guarded: a unit that hangs gets its verdict from another goroutine than its own.
type life struct {
	mu      sync.Mutex
	stage   stage
	attempt int // from 0
	facts
}

// facts are the data for the record of a unit.
type facts struct {
	dev     *medium.Medium  // nil while it is closed
	held    string          // serial that the medium claims
	foreign *identity.Found // identity on it that this station did not make
	got     *identity.Reservation
	id      *identity.Identity
	latch   []byte
	log     record.Log
}

// is reports whether the unit is at a stage.
func (l *life) is(s stage) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stage == s
}

// enter moves to a stage, unless the unit is settled.
func (l *life) enter(s stage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stage != settled {
		l.stage = s
	}
}

// restart begins a second attempt; it returns false after the second one.
func (l *life) restart() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.attempt > 0 || l.stage == settled {
		return false
	}
	l.attempt++
	l.stage = preparing
	return true
}

// settle ends the life and returns its facts; first is false if it was settled before.
func (l *life) settle(done int64) (_ facts, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first = l.stage != settled
	l.stage = settled
	l.log.End(done)
	return l.facts, first
}

// note changes the facts.
func (l *life) note(change func(*facts)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.facts)
}

// retry records a retry and its reason.
func (l *life) retry(step string, off int64, why error) {
	l.note(func(f *facts) { f.log.Retry(step, off, why) })
}

// device is the open disk, nil while it is closed.
func (l *life) device() *medium.Medium {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dev
}
