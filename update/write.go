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

// chunk is a part of one range, or the end of the image.
type chunk struct {
	buf   []byte // the data, in a buffer of Sizes.Chunk
	index int
	rng   bmap.Range
	off   int64 // in the image
	last  bool  // of its range
	end   bool  // no data: the image ended properly and all of it matched
}

// recycle returns the buffer to the reader, whose channel has room for all buffers. Its error is the cause of a cancelled context.
func (c chunk) recycle(ctx context.Context, free chan<- []byte) error {
	if !c.end {
		free <- c.buf[:cap(c.buf)]
	}
	return cancelled(ctx)
}

// write streams the image into the target; device, decoder and hash run at the same time. Ranges that the target already holds are
// skipped.
func (p *part) write(ctx context.Context) error {
	if _, err := p.prepare(ctx); err != nil {
		return err
	}
	p.phaseOf(PhaseWrite, p.Map.MappedBytes())
	if err := p.stream(ctx, p.Map, p.image, p.want, p.writeRanges); err != nil || p.unmade == nil || len(p.unmade()) == 0 {
		return err
	}
	return p.refetch(ctx, p.unmade())
}

// rangeReader is the stage that divides the image stream into chunks of the ranges that want selects, and reads it to its end.
type rangeReader struct {
	m     *bmap.Map
	image Image
	want  selection
	free  <-chan []byte
	out   chan<- chunk
	size  int64 // of a buffer
	at    int64 // in the image
}

// selection reports whether a range of the map is needed; nil selects all.
type selection func(ctx context.Context, index int, rng bmap.Range) (bool, error)

func (r *rangeReader) run(ctx context.Context) error {
	for i, rng := range r.m.Ranges() {
		if r.want != nil {
			if ok, err := r.want(ctx, i, rng); err != nil {
				return err
			} else if !ok {
				continue
			}
		}
		if err := r.read(ctx, i, rng); err != nil {
			return err
		}
	}
	if err := r.image.Skip(r.m.ImageSize() - r.at); err != nil {
		return &SourceError{Offset: r.at, Err: err}
	}
	if err := r.image.End(); err != nil {
		return &SourceError{Offset: r.m.ImageSize(), Err: err}
	}
	return send(ctx, r.out, chunk{end: true})
}

// read sends the chunks of one range.
func (r *rangeReader) read(ctx context.Context, index int, rng bmap.Range) error {
	if err := r.image.Skip(rng.Offset - r.at); err != nil {
		return &SourceError{Offset: r.at, Err: err}
	}
	r.at = rng.Offset
	for end := rng.Offset + rng.Length; r.at < end; {
		buf, err := receive(ctx, r.free)
		if err != nil {
			return err
		}
		if buf == nil {
			buf = make([]byte, r.size)
		}
		buf = buf[:min(r.size, end-r.at)]
		if n, err := io.ReadFull(r.image, buf); err != nil {
			return &SourceError{Offset: r.at + int64(n), Err: endsEarly(err, r.m)}
		}
		c := chunk{buf: buf, index: index, rng: rng, off: r.at}
		r.at += int64(len(buf))
		c.last = r.at == end
		if err := send(ctx, r.out, c); err != nil {
			return err
		}
	}
	return nil
}

// endsEarly explains an end of file before the size of the bmap.
func endsEarly(err error, m *bmap.Map) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("it ends there, the bmap says %d bytes: %w", m.ImageSize(), io.ErrUnexpectedEOF)
	}
	return err
}

// compare compares a finished range with its signed checksum.
func compare(sum hash.Hash, m *bmap.Map, index int, rng bmap.Range) error {
	if got := hex.EncodeToString(sum.Sum(nil)); got != rng.Checksum {
		return &verify.MismatchError{
			Object: fmt.Sprintf("range %d (blocks %d-%d)", index, rng.First, rng.Last),
			Offset: rng.Offset, Length: rng.Length, Type: m.ChecksumType(), Got: got, Want: rng.Checksum,
		}
	}
	return nil
}

// writeRanges writes the image in ascending order, in each unit of Sizes.Gap the holes first and then the chunks.
func (p *part) writeRanges(ctx context.Context, in <-chan chunk, free chan<- []byte) error {
	gaps := p.newGaps()
	defer gaps.stop()
	before := p.target.WrittenOut()
	for c := range in {
		to := p.Map.ImageSize()
		if !c.end {
			to = min(to, (c.off/p.Gap+1)*p.Gap)
		}
		if err := gaps.upTo(ctx, to); err != nil {
			return err
		}
		if c.end {
			return nil
		}
		if err := p.writeChunk(c); err != nil {
			return err
		}
		if err := p.behind.passed(c.off+int64(len(c.buf)), p.target.Barriers()); err != nil {
			return err
		}
		p.progress.set(p.target.WrittenOut() - before + p.held.equal.Load())
		if err := c.recycle(ctx, free); err != nil {
			return err
		}
	}
	return cancelled(ctx) // otherwise the stage that ended early has the error
}

func (p *part) writeChunk(c chunk) error {
	if p.held.holds(c) {
		return nil
	}
	p.written += int64(len(c.buf))
	_, err := p.target.WriteAt(c.buf, c.off)
	return p.writing(err)
}

// writing makes an error of the medium one of the slot.
func (p *part) writing(err error) error {
	if err == nil {
		return nil
	}
	return &WriteError{Slot: p.Slot, Err: err}
}

// gaps applies the policy for unmapped blocks to the holes of the image, ascending, in pieces.
type gaps struct {
	next  func() (bmap.Span, bool)
	stop  func()
	cur   bmap.Span // the rest of the current hole
	piece int64
	treat func(ctx context.Context, gap bmap.Span) error
}

func (p *part) newGaps() *gaps {
	g := &gaps{piece: p.Piece}
	g.next, g.stop = iter.Pull(p.Map.Gaps())
	g.treat = func(ctx context.Context, gap bmap.Span) error {
		p.progress.move()
		switch p.Unmapped {
		case UnmappedKeep:
			return nil
		case UnmappedDiscard:
			return p.writing(p.target.Discard(gap.Offset, gap.Length))
		}
		if zero, err := p.held.isZero(ctx, gap); zero || err != nil {
			return err
		}
		return p.writing(p.target.Zero(gap.Offset, gap.Length))
	}
	return g
}

// upTo treats every hole before the offset to.
func (g *gaps) upTo(ctx context.Context, to int64) error {
	for {
		if g.cur.Length == 0 {
			var ok bool
			if g.cur, ok = g.next(); !ok {
				return nil
			}
		}
		n := min(g.cur.Length, to-g.cur.Offset, g.piece)
		if n <= 0 {
			return nil
		}
		if err := cancelled(ctx); err != nil {
			return err
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
