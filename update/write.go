package update

import (
	"context"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"iter"

	"updater/bmap"
	"updater/verify"
)

// The memory of the write phase: as many buffers of chunkSize as the longest range that is held until its end is known
// takes, and ahead more, which keep every stage busy.
const (
	chunkSize = 512 << 10
	heldRange = 4 << 20 // a range up to this length is compared before its first byte is written
	ahead     = 7
)

// buffers is the number of buffers for a map.
func buffers(m *bmap.Map) int {
	var longest int64
	for _, rng := range m.Ranges() {
		if rng.Length <= heldRange {
			longest = max(longest, rng.Length)
		}
	}
	return ahead + int((longest+chunkSize-1)/chunkSize)
}

// gapAhead is the span of the image whose unmapped blocks are treated before its data is written: zeroing drops
// cached pages, so it comes first.
const gapAhead = 8 << 20

// chunk is a piece of one range, or the end of the image.
type chunk struct {
	buf   []byte // of chunkSize capacity; buf[:n] is the piece
	index int
	rng   bmap.Range
	off   int64 // in the image
	last  bool  // of its range
	end   bool  // no piece: the image ended properly, and all of it matched
}

// recycle gives the buffer back to the reader.
func (c chunk) recycle(ctx context.Context, free chan<- []byte) error {
	if c.end {
		return nil
	}
	return send(ctx, free, c.buf[:chunkSize])
}

// write streams the image into the target: device, decoder and hash run at the same time, and ranges that the
// target holds already are left out.
func (r *run) write(ctx context.Context, doc *Document, target Target) error {
	r.held = newHeld(doc.Map, target, r.Rewrite)
	image, want := r.Image, r.held.lacks
	if sparse, ok := r.Image.(Sparse); ok && !r.Rewrite {
		d, lacks, err := r.planFetch(ctx, doc, sparse)
		if err != nil {
			return err
		}
		defer d.close()
		image, want = d, lacks
	}
	r.phaseOf(PhaseWrite, doc.Map.MappedBytes())
	return stream(ctx, doc.Map, image, want, func(ctx context.Context, in <-chan chunk, free chan<- []byte) error {
		return r.writeRanges(ctx, doc, target, in, free)
	})
}

// readRanges cuts the image stream into chunks of the ranges that want asks for, and reads it to its proper end.
func readRanges(ctx context.Context, m *bmap.Map, image Image, want func(context.Context, int, bmap.Range) (bool, error), free <-chan []byte, out chan<- chunk) error {
	var at int64
	for i, rng := range m.Ranges() {
		if want != nil {
			if ok, err := want(ctx, i, rng); err != nil {
				return err
			} else if !ok {
				continue
			}
		}
		if err := image.Skip(rng.Offset - at); err != nil {
			return &SourceError{Offset: at, Err: err}
		}
		at = rng.Offset
		for end := rng.Offset + rng.Length; at < end; {
			buf, err := receive(ctx, free)
			if err != nil {
				return err
			}
			if buf == nil {
				buf = make([]byte, chunkSize)
			}
			buf = buf[:min(int64(chunkSize), end-at)]
			if n, err := io.ReadFull(image, buf); err != nil {
				return &SourceError{Offset: at + int64(n), Err: endsEarly(err, m)}
			}
			c := chunk{buf: buf, index: i, rng: rng, off: at}
			at += int64(len(buf))
			c.last = at == end
			if err := send(ctx, out, c); err != nil {
				return err
			}
		}
	}
	if err := image.Skip(m.ImageSize() - at); err != nil {
		return &SourceError{Offset: at, Err: err}
	}
	if err := image.End(); err != nil {
		return &SourceError{Offset: m.ImageSize(), Err: err}
	}
	return send(ctx, out, chunk{end: true})
}

// endsEarly says of an end of file where the bmap promised more.
func endsEarly(err error, m *bmap.Map) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("it ends there, the bmap says %d bytes: %w", m.ImageSize(), io.ErrUnexpectedEOF)
	}
	return err
}

// compare judges a finished range by its signed checksum.
func compare(sum hash.Hash, m *bmap.Map, index int, rng bmap.Range) error {
	if got := hex.EncodeToString(sum.Sum(nil)); got != rng.Checksum {
		return &verify.MismatchError{
			Object: fmt.Sprintf("range %d (blocks %d-%d)", index, rng.First, rng.Last),
			Offset: rng.Offset, Length: rng.Length, Type: m.ChecksumType(), Got: got, Want: rng.Checksum,
		}
	}
	return nil
}

// writeRanges treats the gaps of each span of the image and then writes the span's chunks, in ascending order.
func (r *run) writeRanges(ctx context.Context, doc *Document, target Target, in <-chan chunk, free chan<- []byte) error {
	gaps := r.newGaps(doc, target)
	defer gaps.stop()
	before := target.WrittenOut()
	for c := range in {
		to := doc.Map.ImageSize()
		if !c.end {
			to = min(to, (c.off/gapAhead+1)*gapAhead)
		}
		if err := gaps.upTo(ctx, to); err != nil {
			return &WriteError{Slot: r.Slot, Err: err}
		}
		if c.end {
			return nil
		}
		if err := r.writeChunk(c, target); err != nil {
			return &WriteError{Slot: r.Slot, Err: err}
		}
		r.progress.set(target.WrittenOut() - before + r.held.equal.Load())
		if err := c.recycle(ctx, free); err != nil {
			return err
		}
	}
	return cancelled(ctx) // the stage that ended early has the error
}

func (r *run) writeChunk(c chunk, target Target) error {
	if equal, err := r.held.holds(c); equal || err != nil {
		return err
	}
	r.written += int64(len(c.buf))
	_, err := target.WriteAt(c.buf, c.off)
	return err
}

// gaps treats the unmapped bytes of the image, ascending.
type gaps struct {
	next  func() (bmap.Span, bool)
	stop  func()
	cur   bmap.Span // what is left of the current gap
	treat func(ctx context.Context, gap bmap.Span) error
}

func (r *run) newGaps(doc *Document, target Target) *gaps {
	g := new(gaps)
	g.next, g.stop = iter.Pull(doc.Map.Gaps())
	g.treat = func(ctx context.Context, gap bmap.Span) error {
		switch doc.Unmapped {
		case UnmappedKeep:
			return nil
		case UnmappedDiscard:
			return target.Discard(gap.Offset, gap.Length)
		}
		if zero, err := r.held.isZero(ctx, gap); zero || err != nil {
			return err
		}
		return target.Zero(gap.Offset, gap.Length)
	}
	return g
}

// upTo treats every gap before the offset to.
func (g *gaps) upTo(ctx context.Context, to int64) error {
	for {
		if g.cur.Length == 0 {
			var ok bool
			if g.cur, ok = g.next(); !ok {
				return nil
			}
		}
		n := min(g.cur.Length, to-g.cur.Offset)
		if n <= 0 {
			return nil
		}
		if err := g.treat(ctx, bmap.Span{Offset: g.cur.Offset, Length: n}); err != nil {
			return err
		}
		g.cur.Offset, g.cur.Length = g.cur.Offset+n, g.cur.Length-n
	}
}

func send[T any](ctx context.Context, ch chan<- T, v T) error {
	select {
	case ch <- v:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func receive[T any](ctx context.Context, ch <-chan T) (T, error) {
	select {
	case v := <-ch:
		return v, nil
	case <-ctx.Done():
		var zero T
		return zero, context.Cause(ctx)
	}
}
