package provision

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// finish is everything after the last byte of the images, up to the verdict.
func (r *run) finish(ctx context.Context, u *unit) error {
	dev := u.device()
	u.step("flush", 0)
	if err := dev.do(u.writer.Flush); err != nil {
		return u.medium("flushing", err)
	}
	if err := r.readBack(ctx, u); err != nil {
		return err
	}
	if err := r.fill(ctx, u); err != nil {
		return err
	}
	if err := u.close(); err != nil {
		return u.medium("closing", err)
	}
	u.step("kernel", 0)
	if err := r.Kernel(ctx, u.disk, u.parts); err != nil {
		return fmt.Errorf("%s: %w", u.Name, err)
	}
	if err := r.setLatch(ctx, u); err != nil {
		return err
	}
	return r.pass(ctx, u)
}

// readBack compares all images with what the medium has. What differs is written again, once.
func (r *run) readBack(ctx context.Context, u *unit) error {
	total := int64(0)
	for _, pl := range r.Payloads {
		total += pl.Doc.Map.ImageSize()
		if pl.keepUnmapped() {
			total += pl.Doc.Map.MappedBytes() - pl.Doc.Map.ImageSize()
		}
	}
	u.step("readback", total)
	bad, n := make([][]badRange, len(r.Payloads)), 0
	for i, pl := range r.Payloads {
		base, _, err := pl.place(u)
		if err != nil {
			return err
		}
		if bad[i], err = pl.compare(ctx, u.device(), base, func(k int64) { u.tile.done.Add(k) }); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return u.medium("reading back", err)
		}
		for _, b := range bad[i] {
			if n++; u.mended || n > maxBad {
				return u.medium("reading back", b.err)
			}
			u.retry("readback", b.Offset, b.err)
		}
	}
	if n == 0 {
		return nil
	}
	u.bad, u.mended, u.payload = bad, true, 0
	return errMend
}

// fill does what is not in an image: the table of a whole-disk image, empty file systems, the identity.
func (r *run) fill(ctx context.Context, u *unit) (err error) {
	dev := u.device()
	defer func() {
		if medium, _ := errors.AsType[*MediumError](err); err != nil && medium == nil && dev.failed.Load() {
			err = u.medium("writing", err)
		}
	}()
	if r.Plan.Image != nil {
		u.step("table", 0)
		if u.parts, err = r.fitTable(u); err != nil {
			return err
		}
	}
	for _, p := range u.parts {
		if p.Filesystem == "" {
			continue
		}
		u.step("filesystem", 0)
		w := Window{Medium: dev, Offset: p.Offset, Length: p.Length}
		if _, err := makeFilesystem(w, label(p.Name)); err != nil {
			return fmt.Errorf("%s: file system of partition %s: %w", u.Name, p.Name, err)
		}
		if err := dev.Sync(); err != nil {
			return err
		}
	}
	if r.Plan.Identity == nil {
		return nil
	}
	u.step("identity", 0)
	w, err := u.window(r.Plan.Identity.Partition)
	if err != nil {
		return err
	}
	id, err := r.Plan.Identity.write(ctx, r.Web, w, *u.got, u.before)
	if err != nil {
		return fmt.Errorf("%s: identity: %w", u.Name, err)
	}
	u.set(func() { u.id = id })
	return nil
}

// label is the name of a file system, of at most 11 characters as FAT has it.
func label(name string) string { return strings.ToUpper(name[:min(len(name), 11)]) }

// setLatch writes the latch onto the device. It is the last change of the medium.
func (r *run) setLatch(ctx context.Context, u *unit) error {
	if r.Plan.Latch == nil {
		return nil
	}
	u.step("latch", 0)
	if err := u.open(ctx, r.Open); err != nil {
		return err
	}
	dev := u.device()
	line, err := Seal(Latch{Kind: "latch", Serial: u.got.Serial, Unit: u.key, Station: r.Plan.Record.Station, Plan: r.Plan.Sum, Time: time.Now().UTC()}, r.Station)
	if err != nil {
		return err
	}
	w, err := u.window(r.Plan.Identity.Partition)
	if err == nil {
		err = r.Spool.intend(digest(line))
	}
	if err != nil {
		return err
	}
	fs, err := openFilesystem(w)
	if err == nil {
		err = putFiles(fs, map[string][]byte{latchFile: line})
	}
	if err == nil {
		err = dev.Sync()
	}
	if err == nil {
		files := maps.Clone(u.id.Files)
		files[latchFile] = line
		err = compareFiles(w, files)
	}
	if err != nil {
		return u.medium("writing the latch", err)
	}
	u.set(func() { u.latch = digest(line) })
	return u.medium("closing", u.close())
}

// pass keeps the record and spends the serial.
func (r *run) pass(ctx context.Context, u *unit) error {
	if err := r.end(ctx, u, Pass, nil); err != nil {
		return err
	}
	if u.latch != "" {
		r.Spool.completed(u.latch)
	}
	if u.got == nil || r.Check {
		return nil
	}
	if err := r.Allocator.Commit(context.WithoutCancel(ctx), u.claim(), u.got.Serial); err != nil {
		// It stays reserved for this unit, so nobody else gets it.
		r.failed(fmt.Errorf("%s passed, but serial %s could not be marked as used: %w", u.Name, u.got.Serial, err))
	}
	return nil
}

func (r *run) failed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs = append(r.errs, err)
}

// settle decides what becomes of a unit after a step. An error of the medium is tried again on a device that is opened
// anew, once.
func (r *run) settle(ctx context.Context, u *unit, err error) {
	medium, isMedium := errors.AsType[*MediumError](err)
	switch {
	case err == nil, errors.Is(err, errMend), u.over:
	case ctx.Err() == nil && isMedium && !u.again && !r.Check && !errors.Is(err, errStalled):
		u.retry(medium.Step, 0, err)
		_ = u.close()
		u.fresh, u.again, u.mended = true, true, false
		u.payload, u.at, u.bad, u.out = 0, 0, nil, nil
	default:
		if kept := r.end(ctx, u, u.verdictOf(err), err); kept != nil {
			r.failed(kept)
		}
	}
}

// verdictOf is the verdict of a unit that ended with err.
func (u *unit) verdictOf(err error) Verdict {
	is := func(target any) bool { return errors.As(err, target) }
	switch {
	case is(new(*MediumError)):
		return Quarantine
	case u.Refused != nil, is(new(*RefusedError)), is(new(*TooSmallError)), is(new(*LatchedError)):
		return Refused
	}
	return Fail
}

// end gives a unit its verdict: the serial of one that did not pass goes back, and the record is kept.
func (r *run) end(ctx context.Context, u *unit, v Verdict, cause error) error {
	dead := false
	if dev := u.device(); dev != nil {
		if dead = dev.dead.Load(); dead {
			go func() { _ = dev.Close() }() // it may hang as well
		} else {
			_ = u.close() // what matters was flushed and read back by then
		}
	}
	if v != Pass && u.got != nil {
		if err := r.Allocator.Release(context.WithoutCancel(ctx), u.claim(), u.got.Serial); err != nil {
			cause = fmt.Errorf("%w; serial %s could not be given back: %w", cause, u.got.Serial, err)
		}
	}
	rec := r.record(u, v, cause)
	err := r.Spool.Append(rec)
	if err != nil {
		err = fmt.Errorf("keeping the record of %s: %w", u.Name, err)
		if v == Pass { // without a record it is no pass
			v, cause = Fail, err
			rec.Code, rec.Error = r.Code(err), err.Error()
		}
		rec.Sequence = 0
	}
	res := Result{Name: u.Name, Verdict: v, Code: rec.Code, Error: rec.Error, Record: rec.Sequence, Err: cause}
	if u.got != nil {
		res.Serial = u.got.Serial
	}
	r.mu.Lock()
	r.results = append(r.results, res)
	r.mu.Unlock()
	u.set(func() { u.over = true })
	u.board.set(u.tile, func(t *Tile) { t.Verdict, t.Error, t.Step = v, res.Error, "done" })
	return err
}

// record is what is kept of a unit.
func (r *run) record(u *unit, v Verdict, cause error) *Record {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.endStep()
	rec := &Record{
		Time: time.Now().UTC(), Station: r.Plan.Record.Station, Operator: r.Operator, Updater: r.Version, Run: "provision",
		Plan: PlanID{Name: r.Plan.Name, SHA256: r.Plan.Sum}, Verdict: v, Latch: u.latch,
		Unit:   Unit{Name: u.Name, Key: u.key, Strong: u.strong, Disk: *u.disk},
		Images: []ImageRecord{}, Steps: slices.Clone(u.steps), Retries: append([]Retry{}, u.retries...),
	}
	if r.Check {
		rec.Run = "check"
	}
	if cause != nil {
		rec.Code, rec.Error = r.Code(cause), cause.Error()
	}
	for _, pl := range r.Payloads {
		rec.Images = append(rec.Images, pl.record())
	}
	switch {
	case u.id != nil:
		rec.Identity = u.id.record(r.Plan.Identity)
	case u.got != nil:
		rec.Identity = &IDRecord{Serial: u.got.Serial, Variables: u.got.Variables}
	case u.before.Serial != "":
		rec.Identity = &IDRecord{Serial: u.before.Serial}
	}
	return rec
}

// record leaves the private key out.
func (i *Identity) record(rule *IdentityRule) *IDRecord {
	rec := &IDRecord{Serial: i.Serial, Variables: i.Variables, Key: i.Key, Certificate: i.Certificate, Files: map[string]string{}}
	for name, data := range i.Files {
		if rule.Key == nil || name != rule.Key.File {
			rec.Files[name] = digest(data)
		}
	}
	return rec
}
