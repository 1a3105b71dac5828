// Package board shows a running factory line to its operator.
package board

import (
	"sync"
	"sync/atomic"
	"time"

	"updater/provision/record"
)

// Board is the state of all units for an operator: one tile for each. Safe for concurrent use.
type Board struct {
	// OnStep, if set before the run, is called at the start of each step of a unit and with its verdict, from several goroutines.
	OnStep func(t Tile)

	mu    sync.Mutex
	slots []*Slot
}

// Tile is the state of one unit.
type Tile struct {
	Name    string
	Disk    string // model and size
	Serial  string // "" until it is reserved
	Step    string
	Done    int64 // bytes of the step; Total is 0 if that is unknown
	Total   int64
	Began   time.Time      // of the step
	Verdict record.Verdict // "" until it has one
	Error   string
}

// Slot is the place of one unit on a board.
type Slot struct {
	board *Board
	state Tile // guarded by the board
	done  atomic.Int64
}

// Tiles returns the state of all units.
func (b *Board) Tiles() []Tile {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]Tile, len(b.slots))
	for i, s := range b.slots {
		all[i] = s.state
		all[i].Done = s.done.Load()
	}
	return all
}

// Add adds a unit. One that runs again keeps its place.
func (b *Board) Add(name, disk string) *Slot {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.slots {
		if s.state.Name == name {
			s.state = Tile{Name: name, Disk: disk, Step: "waiting", Began: time.Now()}
			s.done.Store(0)
			return s
		}
	}
	s := &Slot{board: b, state: Tile{Name: name, Disk: disk, Step: "waiting", Began: time.Now()}}
	b.slots = append(b.slots, s)
	return s
}

// Set changes the unit's tile and calls OnStep.
func (s *Slot) Set(change func(*Tile)) {
	s.board.mu.Lock()
	change(&s.state)
	state := s.state
	s.board.mu.Unlock()
	if s.board.OnStep != nil {
		s.board.OnStep(state)
	}
}

// Done counts the bytes of the current step.
func (s *Slot) Done() *atomic.Int64 { return &s.done }
