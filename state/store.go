package state

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Area is the fixed-size medium of the store: a small partition, a window of a disk, or a file.
type Area interface {
	io.WriterAt
	Size() int64                                 // bytes
	Sync() error                                 // previous writes are on stable storage, the drive's cache flushed
	ReadBackAt(p []byte, off int64) (int, error) // from the medium, past the page cache
	String() string                              // names it in errors
}

// Error reports a store that cannot be used, or a change that may not be stored.
type Error struct {
	Area string
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("state store %s: %v", e.Area, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// Store is an open state store. Not safe for concurrent use. Hold the lock of the boot state: only one process may change a
// store at a time.
type Store struct {
	area   Area
	room   int // bytes of one copy
	copies [2]readCopy
	state  State
	gen    uint64 // of the newest copy; 0 if no copy is good
	broken error  // the error of a change; the content of the medium is unknown
}

// readCopy is the result of reading one copy.
type readCopy struct {
	offset int64
	gen    uint64
	state  State
	blank  bool  // never written
	err    error // why it is bad; nil if it is good
}

// Open reads both copies from the medium. It writes nothing. The state is that of the newer good copy; without one it is fallback,
// and [Store.Lost] returns the reason. It is an error if the area is too small, if neither copy can be read, or if a copy has a
// later format.
func Open(area Area, fallback State) (*Store, error) {
	fail := func(err error) (*Store, error) { return nil, &Error{Area: area.String(), Err: err} }
	half := area.Size() / 2 &^ (align - 1)
	if half < align {
		return fail(fmt.Errorf("area has %d bytes, expected at least %d", area.Size(), 2*align))
	}
	s := &Store{area: area, room: int(min(half, maxCopy)), state: fallback.Clone()}
	for i := range s.copies {
		s.copies[i] = readOne(area, int64(i)*half, s.room)
		switch c := s.copies[i]; {
		case errors.Is(c.err, errLater):
			return fail(fmt.Errorf("copy %d is %w; use the version of updater that wrote it, or a later one", i+1, c.err))
		case c.err == nil && (s.gen == 0 || c.gen > s.gen):
			s.gen, s.state = c.gen, c.state
		}
	}
	if unreadable(s.copies[0].err) && unreadable(s.copies[1].err) {
		return fail(errors.Join(s.copies[0].err, s.copies[1].err))
	}
	return s, nil
}

// State returns a copy of the state.
func (s *Store) State() State { return s.state.Clone() }

// New reports whether the store was never written.
func (s *Store) New() bool { return s.gen == 0 && s.copies[0].blank && s.copies[1].blank }

// Lost returns the reason why the state is the fallback, "" if it is not. A store that was never written is lost too.
func (s *Store) Lost() string {
	switch {
	case s.gen > 0:
		return ""
	case s.New():
		return "it is empty"
	}
	return fmt.Sprintf("both copies are lost: copy 1 %v; copy 2 %v", s.copies[0].err, s.copies[1].err)
}

// Degraded returns the fault of one copy while the other is good, "" for none.
func (s *Store) Degraded() string {
	for i, c := range s.copies {
		if s.gen > 0 && c.err != nil {
			return fmt.Sprintf("copy %d %v; the other one counts", i+1, c.err)
		}
	}
	return ""
}

// Heal rewrites bad copies. Both copies are good when it returns nil.
func (s *Store) Heal() error {
	if s.broken != nil {
		return s.broken
	}
	for range s.copies {
		if s.copies[0].err == nil && s.copies[1].err == nil {
			return nil
		}
		if err := s.write(s.state); err != nil {
			return err
		}
	}
	return nil
}

// Update changes the state durably: when it returns nil, the new state is on stable storage and was read back, and no copy is bad.
// If change changes nothing, only bad copies are written. After an error the medium holds the old state or the new one, and
// every later call returns that error. The floor never falls, whatever change does.
func (s *Store) Update(change func(*State)) error {
	next := s.state.Clone()
	change(&next)
	next.Floor = max(next.Floor, s.state.Floor)
	before, _ := s.state.marshal(s.room - headerSize)
	after, err := next.marshal(s.room - headerSize) // write returns it
	if err == nil && bytes.Equal(before, after) {
		return s.Heal()
	}
	raised := next.Floor > s.state.Floor || s.gen == 0
	if err := s.write(next); err != nil || !raised {
		return err
	}
	return s.write(next) // the other copy too
}

// write stores next in the bad or the older copy, and reads it back.
func (s *Store) write(next State) error {
	if s.broken != nil {
		return s.broken
	}
	to := &s.copies[0]
	if one := &s.copies[1]; to.err == nil && one.gen < to.gen { // a bad one has generation 0
		to = one
	}
	data, err := encode(next, s.gen+1, s.room)
	if err != nil {
		return &Error{Area: s.area.String(), Err: err}
	}
	if err := s.put(data, to.offset); err != nil {
		s.broken = &Error{Area: s.area.String(), Err: err}
		return s.broken
	}
	s.gen, s.state = s.gen+1, next
	*to = readCopy{offset: to.offset, gen: s.gen}
	return nil
}

func (s *Store) put(data []byte, off int64) error {
	if _, err := s.area.WriteAt(data, off); err != nil {
		return err
	}
	if err := s.area.Sync(); err != nil {
		return err
	}
	got := make([]byte, len(data))
	if _, err := s.area.ReadBackAt(got, off); err != nil {
		return err
	}
	if !bytes.Equal(got, data) {
		return fmt.Errorf("reading back at %d: the medium does not hold what was written", off)
	}
	return nil
}
