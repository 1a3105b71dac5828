package bmap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
)

// gapPiece is the part of a gap that one worker reads at once, so that workers share a huge hole.
const gapPiece = 16 << 20

// A NotZeroError is a nonzero byte of the image in a hole reported by the file system.
type NotZeroError struct{ Offset int64 }

func (e *NotZeroError) Error() string {
	return fmt.Sprintf("byte %d is not zero, but lies in a hole of the image", e.Offset)
}

// readImage fills in the checksum of every range, and fails on a byte of the gaps that is not zero.
func (m *Map) readImage(ctx context.Context, r io.ReaderAt, gaps []Span, progress *meter) error {
	var pieces []Span
	for _, gap := range gaps {
		for ; gap.Length > 0; gap.Offset, gap.Length = gap.Offset+gapPiece, gap.Length-gapPiece {
			pieces = append(pieces, Span{gap.Offset, min(gap.Length, gapPiece)})
		}
	}
	m.sums = make([]byte, len(m.blocks)*m.algorithm.size)
	err := forEach(ctx, len(m.blocks)+len(pieces), m.NewHash, func(ctx context.Context, w *worker, i int) error {
		if i >= len(m.blocks) {
			return w.checkZero(ctx, r, pieces[i-len(m.blocks)], progress)
		}
		b := m.blocks[i]
		offset := b.first * m.blockSize
		length := min((b.last-b.first+1)*m.blockSize, m.imageSize-offset)
		sum, at, err := w.sum(ctx, r, Span{offset, length}, progress)
		if err != nil {
			return readError(at, err)
		}
		copy(m.sum(i), sum)
		return nil
	})
	if err != nil {
		return err
	}
	m.summed = slices.Repeat([]bool{true}, len(m.blocks))
	return nil
}

// checkZero checks that a gap reads as zero.
func (w *worker) checkZero(ctx context.Context, r io.ReaderAt, s Span, m *meter) error {
	at, err := w.read(ctx, r, s, func(offset int64, data []byte) error {
		if n := leadingZeros(data); n < len(data) {
			return &NotZeroError{offset + int64(n)}
		}
		m.add(int64(len(data)))
		return nil
	})
	if bad, ok := errors.AsType[*NotZeroError](err); ok {
		return bad
	}
	return readError(at, err)
}

func readError(at int64, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("reading at byte %d: %w", at, err)
}

// leadingZeros returns how many zero bytes data starts with.
func leadingZeros(data []byte) int {
	var zero [4096]byte
	n := 0
	for n < len(data) {
		k := min(len(zero), len(data)-n)
		if !bytes.Equal(data[n:n+k], zero[:k]) {
			break
		}
		n += k
	}
	for n < len(data) && data[n] == 0 {
		n++
	}
	return n
}
