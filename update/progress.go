package update

import (
	"sync"
	"sync/atomic"
)

// Phase is a part of an install, as shown to people.
type Phase string

// The phases, in their order.
const (
	PhaseCheck    Phase = "check"
	PhasePlan     Phase = "plan" // only for an image on a server: the slots are searched for its ranges
	PhaseWrite    Phase = "write"
	PhaseFlush    Phase = "flush"
	PhaseReadBack Phase = "readback"
	PhaseRepair   Phase = "repair" // only if something reads back wrong
	PhaseSwitch   Phase = "switch"
)

// Progress counts the work of an install. Readers sample it. Safe for concurrent use. The zero value is ready.
type Progress struct {
	// OnPhase, if set before the install, is called at the start of each phase from the installing goroutine.
	OnPhase func(p Phase, total int64, of Share)
	// OnFetch, if set before the install, is called before an image on a server is fetched.
	OnFetch func(f Fetch)

	mu    sync.Mutex
	phase Phase
	total int64
	done  atomic.Int64
	moves atomic.Int64
	image atomic.Pointer[consumed]
}

// Share names the image that a phase works on, one of several, and its place in the work of that phase. It is zero for one image, and
// for a phase of the whole install.
type Share struct {
	Role        string
	Before, All int64 // bytes: of the images before this one, and of all images
}

// consumed is an image that counts the bytes of its file.
type consumed interface{ Consumed() (read, total int64) }

// Moves changes whenever the install makes progress: with every phase, with the bytes of the image's file that are read, and with every
// piece of at most 64 MiB that is compared, zeroed, written or read back. It stays the same while the source, the medium or a hook stalls.
func (p *Progress) Moves() int64 {
	n := p.moves.Load()
	if image := p.image.Load(); image != nil {
		read, _ := (*image).Consumed()
		n += read
	}
	return n
}

// reads makes Moves count the bytes of an image that is read now.
func (p *Progress) reads(i Image) {
	if c, ok := i.(consumed); ok {
		p.image.Store(&c)
		p.move() // the previous image may have had as many bytes
	}
}

// Sample returns the current phase and its bytes done and in total; total is 0 if it is unknown.
func (p *Progress) Sample() (phase Phase, done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.phase, p.done.Load(), p.total
}

func (p *Progress) begin(phase Phase, total int64, of Share) {
	p.mu.Lock()
	p.phase, p.total = phase, total
	p.done.Store(0)
	p.mu.Unlock()
	p.move()
	if p.OnPhase != nil {
		p.OnPhase(phase, total, of)
	}
}

func (p *Progress) plan(f Fetch) {
	if p.OnFetch != nil {
		p.OnFetch(f)
	}
}

func (p *Progress) move()       { p.moves.Add(1) }
func (p *Progress) add(n int64) { p.done.Add(n); p.move() }
func (p *Progress) set(n int64) { p.done.Store(n); p.move() }
