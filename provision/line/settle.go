package line

import (
	"context"
	"errors"
	"fmt"
	"time"

	"updater/provision/board"
	"updater/provision/identity"
	"updater/provision/medium"
	"updater/provision/plan"
	"updater/provision/record"
)

// settle decides about a unit after a stage. An error of the medium restarts it once, on a disk that is opened again.
func (r *run) settle(ctx context.Context, u *unit, err error) {
	if err == nil || u.is(settled) {
		return
	}
	bad, isMedium := errors.AsType[*medium.Error](err)
	if isMedium && ctx.Err() == nil && !r.Check && !errors.Is(err, medium.ErrStalled) && u.restart() {
		u.retry(bad.Step, 0, err)
		_ = u.close() // it failed anyway
	} else {
		r.end(ctx, u, verdictOf(u, err), err)
	}
}

// verdictOf is the verdict of a unit that ended with err.
func verdictOf(u *unit, err error) record.Verdict {
	is := func(target any) bool { return errors.As(err, target) }
	switch {
	case is(new(*medium.Error)):
		return record.Quarantine
	case u.Refused != nil, is(new(*plan.RefusedError)), is(new(*plan.TooSmallError)), is(new(*record.LatchedError)):
		return record.Refused
	}
	return record.Fail
}

// pass gives the verdict pass, keeps the record and spends the serial.
func (r *run) pass(ctx context.Context, u *unit) error {
	f, ok := r.end(ctx, u, record.Pass, nil)
	if !ok {
		return nil
	}
	if f.latch != nil {
		r.Spool.Completed(f.latch)
	}
	if !r.Check {
		r.Spool.Ended(u.claim.Unit)
	}
	if f.got == nil || r.Check {
		return nil
	}
	if err := r.Allocator.Commit(context.WithoutCancel(ctx), u.claim, f.got.Serial); err != nil { // it stays reserved for this unit
		r.failed(fmt.Errorf("%s passed, but its serial %s could not be spent: %w", u.Name, f.got.Serial, err))
	}
	return nil
}

func (r *run) failed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs = append(r.errs, err)
}

// end gives a unit its verdict: the serial of one that did not pass goes back, and the record is kept. It returns false if the unit
// had a verdict before, or if it cannot pass because its record was not kept.
func (r *run) end(ctx context.Context, u *unit, v record.Verdict, cause error) (facts, bool) {
	f, first := u.settle(u.slot.Done().Load())
	if !first {
		return f, false
	}
	if f.dev != nil {
		_ = f.dev.Close() // the content was flushed and read back by then
	}
	if v != record.Pass && f.got != nil {
		if err := r.Allocator.Release(context.WithoutCancel(ctx), u.claim, f.got.Serial); err != nil {
			cause = fmt.Errorf("%w; serial %s could not be given back: %w", cause, f.got.Serial, err)
		}
	}
	rec := r.record(u, f, v)
	if cause != nil {
		rec.Code, rec.Error = r.Code(cause), cause.Error()
	}
	err := r.Spool.Append(rec)
	if err != nil {
		err = fmt.Errorf("keeping the record of %s: %w", u.Name, err)
		r.failed(err)
		rec.Sequence = 0
		if v == record.Pass { // without a record it is not a pass
			v, cause = record.Fail, err
			rec.Code, rec.Error = r.Code(err), err.Error()
		}
	}
	res := Result{Name: u.Name, Verdict: v, Code: rec.Code, Error: rec.Error, Record: rec.Sequence, Err: cause}
	if f.got != nil {
		res.Serial = f.got.Serial
	}
	r.mu.Lock()
	r.results = append(r.results, res)
	r.mu.Unlock()
	u.slot.Set(func(t *board.Tile) { t.Verdict, t.Error, t.Step = v, res.Error, "done" })
	return f, err == nil
}

// record is the record of a unit, without the error.
func (r *run) record(u *unit, f facts, v record.Verdict) *record.Record {
	rec := &record.Record{
		Time: time.Now().UTC(), Station: r.Plan.Record.Station, Operator: r.Operator, Updater: r.Version, Run: "provision",
		Plan: record.Plan{Name: r.Plan.Name, SHA256: r.Plan.Sum}, Verdict: v,
		Unit:   record.Unit{Name: u.Name, Key: u.claim.Unit, Strong: u.claim.Strong, Disk: u.Disk.Disk},
		Images: []record.Image{}, Steps: append([]record.Step{}, f.log.Steps...), Retries: append([]record.Retry{}, f.log.Retries...),
	}
	if r.Check {
		rec.Run = "check"
	}
	if f.foreign != nil && v != record.Refused {
		rec.Discarded = &record.Discarded{Serial: f.foreign.Serial, Key: f.foreign.Key, Certificate: f.foreign.Certificate}
	}
	if f.latch != nil {
		rec.Latch = record.Digest(f.latch)
	}
	for _, pl := range r.Payloads {
		rec.Images = append(rec.Images, pl.Record())
	}
	switch {
	case f.id != nil:
		rec.Identity = identityOf(f.id)
	case f.got != nil:
		rec.Identity = &record.Identity{Serial: f.got.Serial, Variables: f.got.Variables}
	case f.held != "":
		rec.Identity = &record.Identity{Serial: f.held}
	}
	return rec
}

// identityOf leaves the private key out.
func identityOf(id *identity.Identity) *record.Identity {
	rec := &record.Identity{Serial: id.Serial, Variables: id.Variables, Key: id.Key, Certificate: id.Certificate, Files: map[string]string{}}
	for name, data := range id.Files {
		if name != id.Secret {
			rec.Files[name] = record.Digest(data)
		}
	}
	return rec
}
