package update

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"updater/bmap"
	"updater/verify"
)

// readers is the number of goroutines that read back: one hashes while the other waits for the medium.
const readers = 2

// readBackSize is the length of one read; larger ones gain nothing with O_DIRECT.
const readBackSize = 1 << 20

// maxRepair is the most ranges that a repair takes on: more are no accident.
const maxRepair = 64

// readBack compares the medium with the signed document: mapped ranges by checksum, unmapped bytes with
// zero (unless they may be anything), and the whole image where the document has its checksum. What differs
// is written again, once.
func (r *run) readBack(ctx context.Context, doc *Document, target Target) error {
	bad, err := r.compareAll(ctx, doc, target)
	if err != nil {
		return err
	}
	if len(bad) > 0 {
		if err := r.repair(ctx, doc, target, bad); err != nil {
			return err
		}
	}
	return r.checkWhole(ctx, doc, target)
}

// ReadBacker reads from the medium, past the page cache. It is called from several goroutines at a time.
type ReadBacker interface {
	ReadBackAt(p []byte, off int64) (n int, err error)
}

// CheckSlot compares what a slot holds with the document of what was installed into it, as an install does before it
// switches, and writes nothing. Errors: [ReadBackError], [ImageError], the cause of a cancelled context.
func CheckSlot(ctx context.Context, doc *Document, slot ReadBacker, progress *Progress) error {
	r := &run{timer: newTimer(progress)}
	bad, err := r.compareAll(ctx, doc, slot)
	if err == nil && len(bad) > 0 {
		err = mismatch(bad)
	}
	if err != nil {
		return err
	}
	return r.checkWhole(ctx, doc, slot)
}

// part is a range of the bmap, or with an index of -1 an unmapped span.
type part struct {
	bmap.Span
	index int
	err   error // how it differs
}

// parts yields what has to be compared, ranges first.
func (r *run) parts(doc *Document, yield func(part) bool) {
	for i, rng := range doc.Map.Ranges() {
		if !yield(part{Span: bmap.Span{Offset: rng.Offset, Length: rng.Length}, index: i}) {
			return
		}
	}
	if doc.Unmapped != UnmappedZero {
		return
	}
	for gap := range doc.Map.Gaps() {
		if !yield(part{Span: gap, index: -1}) {
			return
		}
	}
}

// compareAll reads everything back with several readers and returns what differs, ascending. A read that fails is
// an error.
func (r *run) compareAll(ctx context.Context, doc *Document, target ReadBacker) ([]part, error) {
	total := doc.Map.ImageSize()
	if doc.Unmapped != UnmappedZero {
		total = doc.Map.MappedBytes()
	}
	r.phaseOf(PhaseReadBack, total)
	var mu sync.Mutex
	var bad []part
	work := make(chan part)
	group, gctx := errgroup.WithContext(ctx)
	for range readers {
		group.Go(func() error {
			buf := make([]byte, readBackSize)
			for p := range work {
				if err := r.check(gctx, doc.Map, &p, target, buf); err != nil {
					return err
				}
				if p.err != nil {
					mu.Lock()
					bad = append(bad, p)
					mu.Unlock()
				}
			}
			return nil
		})
	}
	group.Go(func() (err error) {
		defer close(work)
		r.parts(doc, func(p part) bool {
			err = send(gctx, work, p)
			return err == nil
		})
		return err
	})
	if err := group.Wait(); err != nil {
		if cause := cancelled(ctx); cause != nil {
			return nil, cause
		}
		return nil, err
	}
	slices.SortFunc(bad, func(a, b part) int { return cmp.Compare(a.Offset, b.Offset) })
	return bad, nil
}

// check compares one part; p.err says how it differs.
func (r *run) check(ctx context.Context, m *bmap.Map, p *part, target ReadBacker, buf []byte) error {
	p.err = nil
	if p.index < 0 {
		return r.eachPiece(ctx, p.Span, target, buf, func(b []byte, off int64) error {
			if i := firstNonZero(b); i < len(b) && p.err == nil {
				p.err = fmt.Errorf("unmapped byte %d is %#02x, expected zero", off+int64(i), b[i])
			}
			return nil
		})
	}
	sum := m.NewHash()
	err := r.eachPiece(ctx, p.Span, target, buf, func(b []byte, _ int64) error {
		sum.Write(b)
		return nil
	})
	if err == nil {
		p.err = compare(sum, m, p.index, m.Range(p.index))
	}
	return err
}

// repair writes the bad parts again from the source, flushes, and reads them back. It happens once.
func (r *run) repair(ctx context.Context, doc *Document, target Target, bad []part) error {
	if len(bad) > maxRepair || r.Reopen == nil {
		return mismatch(bad)
	}
	r.phase(PhaseRepair)
	if err := r.rewrite(ctx, doc, target, bad); err != nil {
		return err
	}
	if err := target.Flush(); err != nil {
		return &WriteError{Slot: r.Slot, Err: err}
	}
	buf := make([]byte, readBackSize)
	var still []part
	for _, p := range bad {
		if err := r.check(ctx, doc.Map, &p, target, buf); err != nil {
			return err
		}
		if p.err != nil {
			still = append(still, p)
		}
		r.repaired += p.Length
	}
	if len(still) > 0 {
		return mismatch(still)
	}
	return nil
}

func (r *run) rewrite(ctx context.Context, doc *Document, target Target, bad []part) error {
	image, err := r.Reopen(ctx)
	if err != nil {
		return &SourceError{Err: err}
	}
	defer func() { _ = image.Close() }() // it was only read
	wanted := map[int]bool{}
	for _, p := range bad {
		if p.index >= 0 {
			wanted[p.index] = true
		} else if err := target.Zero(p.Offset, p.Length); err != nil {
			return &WriteError{Slot: r.Slot, Err: err}
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	want := func(_ context.Context, i int, _ bmap.Range) (bool, error) { return wanted[i], nil }
	return stream(ctx, doc.Map, image, want, func(ctx context.Context, in <-chan chunk, free chan<- []byte) error {
		for c := range in {
			if c.end {
				return nil
			}
			if _, err := target.WriteAt(c.buf, c.off); err != nil {
				return &WriteError{Slot: r.Slot, Err: err}
			}
			if err := c.recycle(ctx, free); err != nil {
				return err
			}
		}
		return cancelled(ctx)
	})
}

// mismatch is the error of parts that differ from the signed document.
func mismatch(bad []part) error {
	e := &ReadBackError{Offset: bad[0].Offset, Err: bad[0].err}
	for _, p := range bad {
		e.Ranges = append(e.Ranges, p.Span)
	}
	return e
}

// checkWhole checks <ImageChecksum>: the image with its unmapped blocks as zero.
func (r *run) checkWhole(ctx context.Context, doc *Document, target ReadBacker) error {
	u := doc.Map.Update()
	if u == nil || u.ImageChecksum == "" {
		return nil
	}
	r.phaseOf(PhaseReadBack, doc.Map.ImageSize())
	sum, buf := doc.Map.NewHash(), make([]byte, readBackSize)
	var at int64
	take := func(p []byte, _ int64) error { sum.Write(p); return nil }
	for _, rng := range doc.Map.Ranges() {
		hashZeros(sum, rng.Offset-at)
		if err := r.eachPiece(ctx, bmap.Span{Offset: rng.Offset, Length: rng.Length}, target, buf, take); err != nil {
			return err
		}
		at = rng.Offset + rng.Length
	}
	hashZeros(sum, doc.Map.ImageSize()-at)
	if got := hex.EncodeToString(sum.Sum(nil)); got != u.ImageChecksum {
		// Every range is what was signed, so it is the document that does not fit its image.
		return &ImageError{Err: &verify.MismatchError{
			Object: "the whole image", Length: doc.Map.ImageSize(), Type: doc.Map.ChecksumType(), Got: got, Want: u.ImageChecksum,
		}}
	}
	return nil
}

func hashZeros(sum hash.Hash, n int64) {
	for ; n > 0; n -= min(n, int64(len(zeros))) {
		sum.Write(zeros[:min(n, int64(len(zeros)))])
	}
}

// eachPiece reads a span from the medium in pieces of at most len(buf).
func (r *run) eachPiece(ctx context.Context, s bmap.Span, target ReadBacker, buf []byte, take func(p []byte, off int64) error) error {
	for off, end := s.Offset, s.Offset+s.Length; off < end; {
		if err := cancelled(ctx); err != nil {
			return err
		}
		p := buf[:min(int64(len(buf)), end-off)]
		if _, err := target.ReadBackAt(p, off); err != nil {
			return &ReadBackError{Offset: off, Err: err}
		}
		if err := take(p, off); err != nil {
			return err
		}
		r.progress.add(int64(len(p)))
		off += int64(len(p))
	}
	return nil
}
