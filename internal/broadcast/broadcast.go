// Package broadcast passes the events of a job to any number of readers. No reader delays the job: a slow one misses the oldest events.
package broadcast

import (
	"slices"
	"sync"
)

// backlog is the number of events that wait for a reader.
const backlog = 64

// Events is a writer of events, one a Write. The zero value is ready. Safe for concurrent use.
type Events struct {
	mu      sync.Mutex
	last    []byte
	readers map[chan []byte]bool
}

// Write implements io.Writer. It never fails and never waits.
func (e *Events) Write(event []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last = slices.Clone(event)
	for r := range e.readers {
		push(r, e.last)
	}
	return len(event), nil
}

// push makes room by dropping the oldest event: the newest one may be the result. The caller holds the lock, so nothing else is pushed.
func push(r chan []byte, event []byte) {
	for {
		select {
		case r <- event:
			return
		default:
		}
		select {
		case <-r:
		default:
		}
	}
}

// Read returns the last event that was written, if any, and all later ones until stop is called. Nobody may change their bytes.
func (e *Events) Read() (events <-chan []byte, stop func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := make(chan []byte, backlog)
	if e.readers == nil {
		e.readers = map[chan []byte]bool{}
	}
	if e.readers[r] = true; e.last != nil {
		r <- e.last
	}
	return r, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.readers, r)
	}
}
