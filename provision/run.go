package provision

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Job is one run over some targets. Every field without a note is required.
type Job struct {
	Plan     *Plan
	Host     Host
	Payloads []*Payload
	Open     func(ctx context.Context, d *Disk) (Device, error) // exclusively
	// Kernel has the kernel read the partition table again, compares it with parts (none: there is no GPT), and sets
	// the boot state up. The device is closed then.
	Kernel func(ctx context.Context, d *Disk, parts []Placed) error

	Allocator Allocator // nil without an identity
	Web       *Web
	Spool     *Spool
	Station   crypto.Signer
	Factory   crypto.PublicKey // of tokens; nil without a latch
	Token     []byte           // may be nil
	Operator  string
	Version   string          // of the program
	Now       time.Time       // trusted
	Code      func(error) int // exit code of an error
	Board     *Board

	Fan   FanOptions
	Stall time.Duration // an operation of a device that takes longer is none; 0 is 2 minutes
	Check bool          // compare only: write nothing but the record
}

// Result is how one unit ended.
type Result struct {
	Name    string  `json:"name"`
	Serial  string  `json:"serial,omitempty"`
	Verdict Verdict `json:"verdict"`
	Code    int     `json:"code"`
	Error   string  `json:"error,omitempty"`
	Record  int64   `json:"record"` // its number in the spool, 0 when it could not be kept
	Err     error   `json:"-"`
}

// Run provisions the targets by the steps of the package comment. Each gets a verdict and a record, whatever happens
// to the others. The error is about the run itself: a record could not be kept.
func Run(ctx context.Context, job Job, targets []Target) ([]Result, error) {
	if job.Stall == 0 {
		job.Stall = 2 * time.Minute
	}
	if job.Board == nil {
		job.Board = new(Board)
	}
	r := &run{Job: job}
	for _, t := range targets {
		u := &unit{Target: t, disk: t.Disk, fresh: true, board: job.Board, tile: job.Board.add(t.Name, fmt.Sprintf("%s %d MB", t.Disk.Model, t.Disk.Size/1e6))}
		u.key, u.strong = t.Disk.Key(t.Name)
		r.units = append(r.units, u)
	}
	for _, u := range r.units {
		if u.Refused != nil {
			r.settle(ctx, u, u.Refused)
		}
	}
	for pending := r.alive(); len(pending) > 0; pending = r.alive() {
		r.round(ctx, pending)
	}
	return r.results, errors.Join(r.errs...)
}

type run struct {
	Job
	units []*unit

	mu      sync.Mutex
	results []Result
	errs    []error
	serials map[string]*unit // that were given out in this run
}

// alive are the units without a verdict.
func (r *run) alive() []*unit {
	return slices.DeleteFunc(slices.Clone(r.units), func(u *unit) bool { return u.over })
}

// round takes the units as far as they get together. One that lags behind, that has ranges to be written again, or
// whose device is tried again, is there in the next round, when the others are done.
func (r *run) round(ctx context.Context, units []*unit) {
	fresh := slices.DeleteFunc(slices.Clone(units), func(u *unit) bool { return !u.fresh })
	r.each(ctx, fresh, r.begin)
	for i := range r.Payloads {
		r.spread(ctx, i, slices.DeleteFunc(slices.Clone(units), func(u *unit) bool { return u.over || u.fresh || u.payload != i }))
	}
	whole := slices.DeleteFunc(slices.Clone(units), func(u *unit) bool { return u.over || u.fresh || u.payload != len(r.Payloads) })
	if r.Check {
		r.each(ctx, whole, r.finishCheck)
		return
	}
	r.each(ctx, whole, r.finish)
}

// each does something with all units at a time, and gives up those whose device does not answer.
func (r *run) each(ctx context.Context, units []*unit, do func(ctx context.Context, u *unit) error) {
	type end struct {
		u   *unit
		err error
	}
	ends := make(chan end, len(units))
	open := map[*unit]bool{}
	for _, u := range units {
		open[u] = true
		go func() { ends <- end{u, do(ctx, u)} }()
	}
	tick := time.NewTicker(time.Second / 4)
	defer tick.Stop()
	for len(open) > 0 {
		select {
		case e := <-ends:
			if open[e.u] {
				delete(open, e.u)
				r.settle(ctx, e.u, e.err)
			}
		case <-tick.C:
			for u := range open {
				if dev := u.device(); dev != nil && dev.stalled(r.Stall) {
					delete(open, u)
					r.settle(ctx, u, u.medium("waiting", errStalled))
				}
			}
		}
	}
}

// spread sends payload i to the units that need it.
func (r *run) spread(ctx context.Context, i int, units []*unit) {
	pl := r.Payloads[i]
	var with []*unit
	var outs []*Out
	for _, u := range units {
		out, err := r.outOf(ctx, u, i)
		switch {
		case err != nil:
			r.settle(ctx, u, err)
		case out == nil:
			u.payload, u.at = i+1, 0
		default:
			with, outs = append(with, u), append(outs, out)
		}
	}
	if len(outs) == 0 {
		return
	}
	err := pl.stream(ctx, outs, r.Fan)
	for j, u := range with {
		out := outs[j]
		switch {
		case err != nil && !out.Behind:
			r.settle(ctx, u, err)
		case out.Behind: // it goes on with the next round
			u.out = out
		case out.Err != nil:
			r.settle(ctx, u, u.medium("writing", out.Err))
		default:
			u.payload, u.at, u.out = i+1, 0, nil
		}
	}
}

// outOf makes the unit's place in a fan of payload i; nil when it has all of it.
func (r *run) outOf(ctx context.Context, u *unit, i int) (*Out, error) {
	if u.out != nil { // it was left behind: its last write has to end first
		if !u.out.Wait(r.Stall) {
			u.device().dead.Store(true)
			return nil, u.medium("writing", errStalled)
		}
		if u.out.Err != nil {
			return nil, u.medium("writing", u.out.Err)
		}
		u.retry("behind", u.out.At, errors.New("it was too slow for the others"))
		u.at, u.out = u.out.At, nil
	}
	pl := r.Payloads[i]
	base, _, err := pl.place(u)
	if err != nil {
		return nil, err
	}
	size := pl.Doc.Map.ImageSize()
	out := &Out{Sink: shifted{Sink: u.sink(), off: base}, At: u.at, Keep: pl.keepUnmapped(), Done: &u.tile.done}
	step, total := "write", pl.Doc.Map.MappedBytes()
	switch {
	case r.Check:
		out.Sink, step = &checkSink{u: u, base: base, skip: r.Plan.changing(u, pl)}, "check"
	case u.mended:
		if out, err = u.mend(ctx, out, i); out == nil || err != nil {
			return nil, err
		}
		step, total = "repair", 0
	}
	if u.at >= size {
		return nil, nil
	}
	u.step(step, total)
	return out, nil
}

// mend makes an out that writes only the bad ranges; nil when there is none of payload i.
func (u *unit) mend(_ context.Context, out *Out, i int) (*Out, error) {
	if i >= len(u.bad) || len(u.bad[i]) == 0 {
		return nil, nil
	}
	mapped := false
	for _, b := range u.bad[i] {
		if !b.zero {
			mapped = true
			continue
		}
		if err := out.Sink.Zero(b.Offset, b.Length); err != nil {
			return nil, u.medium("writing", err)
		}
	}
	if !mapped {
		return nil, nil
	}
	out.Want, out.Keep = inside(u.bad[i]), true
	return out, nil
}

// sink is the unit's paced writer, watched.
func (u *unit) sink() Sink { return pacedSink{u.device(), u.writer} }

type pacedSink struct {
	dev *watched
	w   Writer
}

func (s pacedSink) WriteAt(p []byte, off int64) (n int, err error) {
	err = s.dev.do(func() error { n, err = s.w.WriteAt(p, off); return err })
	return n, err
}
func (s pacedSink) Zero(off, length int64) error {
	return s.dev.do(func() error { return s.w.Zero(off, length) })
}
