package update

import (
	"context"
	"encoding/hex"
	"fmt"
	"hash"
	"io"

	"updater/bmap"
	"updater/verify"
)

// The memory of the write phase: buffers of chunkSize, of which heldRange bytes may wait for the end of
// their range. Twice that keeps the reader busy while a range is held.
const (
	chunkSize = 512 << 10
	heldRange = 4 << 20 // a range up to this length is compared before its first byte is written
	chunks    = 2 * heldRange / chunkSize
)

// chunk is a piece of one range.
type chunk struct {
	buf   []byte // of chunkSize capacity; buf[:n] is the piece
	index int
	rng   bmap.Range
	off   int64 // in the image
	last  bool  // of its range
}

// write streams the image into the target: device, decoder and hash run at the same time.
func (r *run) write(ctx context.Context, doc *Document, target Target) error {
	r.phaseOf(PhaseWrite, doc.Map.MappedBytes())
	return stream(ctx, doc.Map, r.Image, func(ctx context.Context, in <-chan chunk, free chan<- []byte) error {
		return r.writeRanges(ctx, doc, target, in, free)
	})
}

// readRanges cuts the image stream into chunks of its mapped ranges, and reads it to its proper end.
func readRanges(ctx context.Context, m *bmap.Map, image Image, free <-chan []byte, out chan<- chunk) error {
	var at int64
	for i, rng := range m.Ranges() {
		if err := image.Skip(rng.Offset - at); err != nil {
			return &SourceError{Offset: at, Err: err}
		}
		at = rng.Offset
		for end := rng.Offset + rng.Length; at < end; {
			buf, err := receive(ctx, free)
			if err != nil {
				return err
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
	return nil
}

// endsEarly says of an end of file where the bmap promised more.
func endsEarly(err error, m *bmap.Map) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("it ends there, the bmap says %d bytes: %w", m.ImageSize(), io.ErrUnexpectedEOF)
	}
	return err
}

// checkRanges compares each range with its signed checksum. A range that fits heldRange is passed on only
// after that; a longer one, of a foreign bmap, flows through and is judged at its end, before the switch.
func checkRanges(ctx context.Context, m *bmap.Map, in <-chan chunk, out chan<- chunk) error {
	var held []chunk
	sum := m.NewHash()
	for c := range in {
		sum.Write(c.buf)
		held = append(held, c)
		if c.last {
			if err := compare(sum, m, c.index, c.rng); err != nil {
				return &ImageError{Err: err}
			}
			sum.Reset()
		}
		if c.last || c.rng.Length > heldRange {
			for _, h := range held {
				if err := send(ctx, out, h); err != nil {
					return err
				}
			}
			held = held[:0]
		}
	}
	return nil
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

// writeRanges zeroes the gap before each range and writes its chunks, in ascending order.
func (r *run) writeRanges(ctx context.Context, doc *Document, target Target, in <-chan chunk, free chan<- []byte) error {
	var at int64
	complete := doc.Map.Len() == 0
	zeroTo := func(end int64) error {
		if doc.KeepUnmapped || end == at {
			return nil
		}
		return target.Zero(at, end-at)
	}
	for c := range in {
		if err := zeroTo(c.off); err != nil {
			return &WriteError{Slot: r.Slot, Err: err}
		}
		if _, err := target.WriteAt(c.buf, c.off); err != nil {
			return &WriteError{Slot: r.Slot, Err: err}
		}
		at = c.off + int64(len(c.buf))
		complete = c.last && c.index == doc.Map.Len()-1
		r.progress.add(int64(len(c.buf)))
		if err := send(ctx, free, c.buf[:chunkSize]); err != nil {
			return err
		}
	}
	if !complete {
		return cancelled(ctx) // the stage that ended early has the error
	}
	if err := zeroTo(doc.Map.ImageSize()); err != nil {
		return &WriteError{Slot: r.Slot, Err: err}
	}
	return nil
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
