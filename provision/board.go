package provision

import (
	"sync"
	"sync/atomic"
	"time"
)

// Board is what an operator looks at: one tile for each unit. Safe for concurrent use.
type Board struct {
	// OnStep, when set before the run, is called at the start of each step of a unit and with its verdict.
	OnStep func(t Tile)

	mu    sync.Mutex
	tiles []*tile
}

// Tile is the state of one unit.
type Tile struct {
	Name    string
	Disk    string // model and size
	Serial  string // "" before it is known
	Step    string
	Done    int64 // bytes of the step; Total is 0 where that is not known
	Total   int64
	Began   time.Time // of the step
	Verdict Verdict   // "" while it works
	Error   string
}

type tile struct {
	state Tile
	done  atomic.Int64
}

// Tiles returns the state of all units.
func (b *Board) Tiles() []Tile {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]Tile, len(b.tiles))
	for i, t := range b.tiles {
		all[i] = t.state
		all[i].Done = t.done.Load()
	}
	return all
}

func (b *Board) add(name, disk string) *tile {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := &tile{state: Tile{Name: name, Disk: disk, Step: "waiting", Began: time.Now()}}
	b.tiles = append(b.tiles, t)
	return t
}

// set changes a tile and tells whoever watches.
func (b *Board) set(t *tile, change func(*Tile)) {
	b.mu.Lock()
	change(&t.state)
	state := t.state
	b.mu.Unlock()
	if b.OnStep != nil {
		b.OnStep(state)
	}
}
