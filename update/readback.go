package update

import (
	"context"
	"fmt"
	"io"
	"math"
	"sort"
	"sync"

	"golang.org/x/sync/errgroup"

	"updater/bmap"
)

// MaxRepair is the largest number of mismatches that are repaired. More are not an accident of the medium.
const MaxRepair = 64

// Readers of an install. During the writing, two hash while the third waits for the medium. Afterwards the memory of the image stream is free
// for more, which keep a fast medium busy.
const (
	earlyReaders = 3
	lateReaders  = 6
)

// ReadBacker reads from the medium, past the page cache. It is called from several goroutines at a time, also while the medium is written
// elsewhere.
type ReadBacker interface {
	ReadBackAt(p []byte, off int64) (n int, err error)
}

// Medium is the medium that a repair reads and writes. Any error poisons it: nothing is retried.
type Medium interface {
	ReadBacker
	io.WriterAt
	Zero(off, length int64) error // the bytes read as zero
	Flush() error                 // all data is on stable storage once it returns nil
}

// ReadBack compares a medium with the map of an image and repairs it. Installs, copies and the factory line all use it.
type ReadBack struct {
	Map      *bmap.Map     // every range has a checksum
	Unmapped string        // UnmappedZero requires every hole to read as zero; otherwise holes are not read
	Offset   int64         // of the image on the medium, bytes
	Readers  int           // goroutines that read at a time; 0 is 1
	Sizes    Sizes         // zero is the default
	Progress func(n int64) // counts the bytes read, 0 for a piece of a hole that is zeroed; called from every reader; may be nil
}

// Mismatch is a range of the image, or a hole, that the medium does not hold.
type Mismatch struct {
	bmap.Span       // in the image
	Index     int   // of the range in the map, -1 for a hole
	Err       error // a *verify.MismatchError, or the first byte of the hole that is not zero
}

// Bytes is the number of bytes that Compare reads.
func (b ReadBack) Bytes() int64 {
	if b.Unmapped == UnmappedZero {
		return b.Map.ImageSize()
	}
	return b.Map.MappedBytes()
}

// Compare reads the image back from the medium and returns the mismatches, in ascending order. The error is a [ReadBackError] if
// the medium cannot be read, or the cause of a cancelled context.
func (b ReadBack) Compare(ctx context.Context, medium ReadBacker) ([]Mismatch, error) {
	return b.compare(ctx, medium, func(context.Context, int64) error { return nil })
}

// compare is Compare that waits until ready returns nil before it reads up to an offset of the image. ready fails only when the context ends.
// Readers beyond earlyReaders begin once everything is ready.
func (b ReadBack) compare(ctx context.Context, medium ReadBacker, ready func(ctx context.Context, end int64) error) ([]Mismatch, error) {
	var mu sync.Mutex
	var bad []Mismatch
	work := make(chan Mismatch)
	group, gctx := errgroup.WithContext(ctx)
	for i := range max(b.Readers, 1) {
		group.Go(func() error {
			if i >= earlyReaders && ready(gctx, math.MaxInt64) != nil {
				return nil
			}
			var buf []byte
			for m := range work {
				if buf == nil {
					buf = b.buffer()
				}
				if err := b.check(gctx, &m, medium, buf); err != nil {
					return err
				}
				if m.Err != nil {
					mu.Lock()
					bad = append(bad, m)
					mu.Unlock()
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(work)
		b.each(func(m Mismatch) bool { return ready(gctx, m.Offset+m.Length) == nil && send(gctx, work, m) == nil })
		return cancelled(gctx)
	})
	err := group.Wait()
	if cause := cancelled(ctx); cause != nil {
		err = cause
	}
	if err != nil {
		return nil, err
	}
	sort.Slice(bad, func(i, j int) bool { return bad[i].Offset < bad[j].Offset })
	return bad, nil
}

// Repair writes the mismatches once more, from a second stream of the image whose checksums are checked before, flushes, and compares
// them again. A nil error means that the medium holds the image now. Errors: [ReadBackError] if anything still differs, if reopen is
// nil or if there are more than [MaxRepair] mismatches; [SourceError], [ImageError], [WriteError], the cause of a cancelled context.
func (b ReadBack) Repair(ctx context.Context, medium Medium, bad []Mismatch, reopen func(context.Context) (ImageCloser, error)) error {
	if !repairable(bad, reopen) {
		return b.mismatch(bad)
	}
	if err := b.rewrite(ctx, medium, bad, reopen); err != nil {
		return err
	}
	if err := medium.Flush(); err != nil {
		return &WriteError{Err: err}
	}
	still, err := b.recheck(ctx, medium, bad)
	if err == nil && len(still) > 0 {
		err = b.mismatch(still)
	}
	return err
}

// recheck compares the rewritten ranges and holes and returns the remaining mismatches.
func (b ReadBack) recheck(ctx context.Context, medium ReadBacker, again []Mismatch) (still []Mismatch, err error) {
	buf := b.buffer()
	for _, m := range again {
		if err := b.check(ctx, &m, medium, buf); err != nil {
			return nil, err
		}
		if m.Err != nil {
			still = append(still, m)
		}
	}
	return still, nil
}

func repairable(bad []Mismatch, reopen func(context.Context) (ImageCloser, error)) bool {
	return len(bad) <= MaxRepair && reopen != nil
}

func (b ReadBack) buffer() []byte { return make([]byte, b.Sizes.orDefault().Read) }

// each yields the ranges and holes to compare, ascending.
func (b ReadBack) each(yield func(Mismatch) bool) {
	at := int64(0)
	hole := func(end int64) bool {
		return at == end || b.Unmapped != UnmappedZero || yield(Mismatch{Span: bmap.Span{Offset: at, Length: end - at}, Index: -1})
	}
	for i, rng := range b.Map.Ranges() {
		if !hole(rng.Offset) || !yield(Mismatch{Span: bmap.Span{Offset: rng.Offset, Length: rng.Length}, Index: i}) {
			return
		}
		at = rng.Offset + rng.Length
	}
	hole(b.Map.ImageSize())
}

// check compares one range or hole and sets m.Err if it differs.
func (b ReadBack) check(ctx context.Context, m *Mismatch, medium ReadBacker, buf []byte) error {
	m.Err = nil
	if m.Index < 0 {
		return b.read(ctx, m.Span, medium, buf, func(p []byte, off int64) {
			if i := FirstNonZero(p); i >= 0 && m.Err == nil {
				m.Err = fmt.Errorf("unmapped byte at %d is %#02x, expected zero", off+int64(i), p[i])
			}
		})
	}
	sum := b.Map.NewHash()
	err := b.read(ctx, m.Span, medium, buf, func(p []byte, _ int64) { sum.Write(p) })
	if err == nil {
		m.Err = compare(sum, b.Map, m.Index, b.Map.Range(m.Index))
	}
	return err
}

// read reads a span of the image from the medium, in parts of at most len(buf) bytes; take gets the offset on the medium.
func (b ReadBack) read(ctx context.Context, s bmap.Span, medium ReadBacker, buf []byte, take func(p []byte, off int64)) error {
	for off, end := b.Offset+s.Offset, b.Offset+s.Offset+s.Length; off < end; {
		if err := cancelled(ctx); err != nil {
			return err
		}
		p := buf[:min(int64(len(buf)), end-off)]
		if _, err := medium.ReadBackAt(p, off); err != nil {
			return &ReadBackError{Offset: off, Err: err}
		}
		take(p, off)
		b.count(int64(len(p)))
		off += int64(len(p))
	}
	return nil
}

func (b ReadBack) count(n int64) {
	if b.Progress != nil {
		b.Progress(n)
	}
}

// rewrite zeroes the holes and streams the ranges.
func (b ReadBack) rewrite(ctx context.Context, medium Medium, bad []Mismatch, reopen func(context.Context) (ImageCloser, error)) error {
	image, err := reopen(ctx)
	if err != nil {
		return &SourceError{Err: err}
	}
	defer func() { _ = image.Close() }() // it was only read
	wanted := map[int]bool{}
	for _, m := range bad {
		if m.Index >= 0 {
			wanted[m.Index] = true
		} else if err := b.zero(ctx, medium, b.Offset+m.Offset, m.Length); err != nil {
			return err
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	want := func(_ context.Context, i int, _ bmap.Range) (bool, error) { return wanted[i], nil }
	return b.Sizes.stream(ctx, b.Map, image, want, func(ctx context.Context, in <-chan chunk, free chan<- []byte) error {
		for c := range in {
			if c.end {
				return nil
			}
			if _, err := medium.WriteAt(c.buf, b.Offset+c.off); err != nil {
				return &WriteError{Err: err}
			}
			if err := c.recycle(ctx, free); err != nil {
				return err
			}
		}
		return cancelled(ctx)
	})
}

// zero zeroes a hole in pieces, each of which is progress.
func (b ReadBack) zero(ctx context.Context, medium Medium, off, length int64) error {
	for piece := b.Sizes.orDefault().Piece; length > 0; off, length = off+piece, length-piece {
		if err := cancelled(ctx); err != nil {
			return err
		}
		if err := medium.Zero(off, min(piece, length)); err != nil {
			return &WriteError{Err: err}
		}
		b.count(0)
	}
	return nil
}

// mismatch returns the error for mismatches.
func (b ReadBack) mismatch(bad []Mismatch) error {
	e := &ReadBackError{Offset: b.Offset + bad[0].Offset, Err: bad[0].Err}
	for _, m := range bad {
		e.Ranges = append(e.Ranges, bmap.Span{Offset: b.Offset + m.Offset, Length: m.Length})
	}
	return e
}

// checkWhole compares the medium with the map's <ImageChecksum>, which is over the image with zeros in its holes.
func (b ReadBack) checkWhole(ctx context.Context, medium ReadBacker) error {
	sum, buf := b.Map.NewHash(), b.buffer()
	var at int64
	for _, rng := range b.Map.Ranges() {
		hashZeros(sum, rng.Offset-at)
		span := bmap.Span{Offset: rng.Offset, Length: rng.Length}
		if err := b.read(ctx, span, medium, buf, func(p []byte, _ int64) { sum.Write(p) }); err != nil {
			return err
		}
		at = rng.Offset + rng.Length
	}
	hashZeros(sum, b.Map.ImageSize()-at)
	return compareWhole(sum, b.Map, wholeChecksum(b.Map)) // every range matched: after an error the document contradicts itself
}
