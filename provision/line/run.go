package line

import (
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"updater/provision/board"
	"updater/provision/fan"
	"updater/provision/identity"
	"updater/provision/medium"
	"updater/provision/plan"
	"updater/provision/record"
	"updater/provision/target"
)

// Host is the machine that the targets are attached to.
type Host interface {
	// Open opens a target exclusively, if it is still the disk that was selected.
	Open(ctx context.Context, d *target.Disk) (medium.Device, error)
	// Earlier returns the device that a target is already, by the partitions of its table. It refuses a target that the plan must not change:
	// the plan is for another product, or below the floor of the device. floor is a floor known from elsewhere. Nothing on the target has been
	// written by then.
	Earlier(m target.Medium, old []plan.Placed, floor int64) (Earlier, error)
	// Boot makes a written target, which is closed by then, bootable: the kernel reads its partition table again and must find
	// parts (none if the disk has no GPT), and the boot state gets its first slot. The state store of the device gets the floor.
	Boot(ctx context.Context, d *target.Disk, parts []plan.Placed, floor int64) error
}

// Earlier is the device that a target was before.
type Earlier struct {
	Device bool  // it has the slots of a device, and its state store, if it has one, was used
	Floor  int64 // of its state store
}

// Job is one run over some targets. Every field without a note is required.
type Job struct {
	Plan     *plan.Plan
	Host     Host
	Payloads []*medium.Payload

	Allocator identity.Allocator  // nil without an identity
	Web       *identity.Web       // for certificates from an address; may be nil
	Issuers   []*x509.Certificate // of the devices' certificates; may be nil
	Spool     *record.Spool
	Key       crypto.Signer    // of the station
	Factory   crypto.PublicKey // of tokens; nil without a latch
	Token     []byte           // may be nil
	Operator  string
	Version   string          // of the program
	Now       time.Time       // trusted
	Code      func(error) int // exit code of an error
	Board     *board.Board    // may be nil

	Fan   fan.Options
	Stall time.Duration // after which a device that does not complete an operation is given up; 0 is 2 minutes
	Check bool          // compare only: nothing is written but the record
}

// Result is the outcome of one unit.
type Result struct {
	Name    string         `json:"name"`
	Serial  string         `json:"serial,omitempty"`
	Verdict record.Verdict `json:"verdict"`
	Code    int            `json:"code"`
	Error   string         `json:"error,omitempty"`
	Record  int64          `json:"record"` // its number in the spool, 0 if it could not be kept
	Err     error          `json:"-"`
}

// String is the result on one line.
func (r Result) String() string {
	text := r.Name + ": " + board.Word(r.Verdict)
	if r.Serial != "" {
		text += ", serial " + r.Serial
	}
	if r.Record > 0 {
		text += fmt.Sprintf(", record %d", r.Record)
	}
	if r.Error != "" {
		text += ": " + r.Error
	}
	return text
}

// FailedError reports that not all targets passed.
type FailedError struct {
	Failed, All int
	Code        int // the exit code that all failed targets share, else 0
}

func (e *FailedError) Error() string {
	return fmt.Sprintf("%d of %d targets did not pass", e.Failed, e.All)
}

// Together is nil only if every target passed, else a [FailedError].
func Together(results []Result) error {
	e := &FailedError{All: len(results)}
	for _, r := range results {
		if r.Verdict == record.Pass {
			continue
		}
		if e.Failed++; e.Failed == 1 {
			e.Code = r.Code
		} else if e.Code != r.Code {
			e.Code = 0
		}
	}
	if e.Failed == 0 {
		return nil
	}
	return e
}

// Latest replaces the results of units that ran again.
func Latest(results, more []Result) []Result {
	for _, r := range more {
		results = slices.DeleteFunc(results, func(old Result) bool { return old.Name == r.Name })
	}
	return append(results, more...)
}

// Run provisions the targets by the steps of the package comment. Each gets a verdict and a record, whatever happens to the others.
// The error is about the run itself: a record could not be kept, or a serial could not be spent.
func Run(ctx context.Context, job Job, targets []target.Target) ([]Result, error) {
	job.Stall = cmp.Or(job.Stall, 2*time.Minute)
	if job.Board == nil {
		job.Board = new(board.Board)
	}
	r := &run{Job: job}
	for _, t := range targets {
		r.units = append(r.units, newUnit(t, job.Board))
	}
	for _, u := range r.units {
		if u.Refused != nil {
			r.settle(ctx, u, u.Refused)
		}
	}
	for len(r.at(settled)) < len(r.units) {
		r.round(ctx)
	}
	return r.results, errors.Join(r.errs...)
}

type run struct {
	Job
	units   []*unit
	serials sync.Map // of this run, to *unit: no two units get one, wherever it comes from
	mu      sync.Mutex
	results []Result
	errs    []error
}

// at lists the units at a stage.
func (r *run) at(s stage) []*unit {
	return slices.DeleteFunc(slices.Clone(r.units), func(u *unit) bool { return !u.is(s) })
}

// round advances the units as far as they get together. The remaining units are behind, or begin again.
func (r *run) round(ctx context.Context) {
	r.each(ctx, r.at(preparing), r.prepare)
	r.each(ctx, r.at(behind), r.resume)
	for i := range r.Payloads {
		r.write(ctx, i)
	}
	r.each(ctx, r.at(verifying), r.verify)
	for _, u := range r.at(repairing) { // one at a time: each takes a stream of an image
		r.each(ctx, []*unit{u}, r.repair)
	}
	r.each(ctx, r.at(completing), r.complete)
}

// each calls do for all units at the same time, and gives up those whose device does not answer.
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
				if dev := u.device(); dev != nil && dev.Stalled(r.Stall) {
					delete(open, u)
					r.settle(ctx, u, dev.Fail("waiting", medium.ErrStalled))
				}
			}
		}
	}
}

// advance moves a unit to the beginning of an image, or past the last one.
func (r *run) advance(u *unit, payload int) {
	u.payload, u.at = payload, 0
	if payload < len(r.Payloads) {
		u.enter(writing)
	} else {
		u.enter(verifying)
	}
}

// write sends image i to the units that need it.
func (r *run) write(ctx context.Context, i int) {
	pl := r.Payloads[i]
	var units []*unit
	var outs []*fan.Out
	for _, u := range r.at(writing) {
		if u.payload != i {
			continue
		}
		out, err := r.outOf(u)
		if err != nil {
			r.settle(ctx, u, err)
			continue
		}
		units, outs = append(units, u), append(outs, out)
	}
	if len(outs) == 0 {
		return
	}
	image, err := pl.Open(ctx)
	if err == nil {
		err = fan.Run(ctx, pl.Doc.Map, image, outs, r.Fan)
		_ = image.Close() // it was only read
	}
	for j, u := range units {
		switch out := outs[j]; {
		case out.Behind:
			u.out = out
			u.enter(behind)
		case err != nil:
			r.settle(ctx, u, err)
		case out.Err != nil:
			r.settle(ctx, u, u.device().Fail(r.streaming(), out.Err))
		default:
			r.advance(u, i+1)
		}
	}
}

// streaming names the step for errors.
func (r *run) streaming() string {
	if r.Check {
		return "comparing"
	}
	return "writing"
}

// outOf is the unit's place in the fan of the image that it needs.
func (r *run) outOf(u *unit) (out *fan.Out, err error) {
	pl, step := r.Payloads[u.payload], "write"
	out = &fan.Out{At: u.at, Keep: pl.KeepsHoles(), Done: u.slot.Done()}
	if r.Check {
		step = "check"
		out.Sink, err = u.device().Checker(r.Plan, pl)
	} else {
		out.Sink, err = u.device().Sink(pl)
	}
	u.step(step, pl.Doc.Map.MappedBytes())
	return out, err
}

// resume waits for the last write in the fan that a unit left.
func (r *run) resume(_ context.Context, u *unit) error {
	out := u.out
	if !out.Wait(r.Stall) {
		u.device().GiveUp()
		return u.device().Fail(r.streaming(), medium.ErrStalled)
	}
	if out.Err != nil {
		return u.device().Fail(r.streaming(), out.Err)
	}
	u.retry("behind", out.At, errors.New("target fell behind; retrying separately"))
	u.out, u.at = nil, out.At
	if u.at >= r.Payloads[u.payload].Doc.Map.ImageSize() {
		r.advance(u, u.payload+1)
	} else {
		u.enter(writing)
	}
	return nil
}
