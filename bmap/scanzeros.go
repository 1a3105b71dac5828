package bmap

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
)

// scanZeros reads the whole image and returns the runs of blocks with a nonzero byte. Runs of two pieces may
// touch.
func scanZeros(ctx context.Context, r io.ReaderAt, size, blockSize int64, m *meter) ([]Span, error) {
	pieceSize := max(gapPiece, blockSize)
	pieces := make([][]Span, ceilDiv(size, pieceSize))
	var total atomic.Int64
	err := forEach(ctx, len(pieces), nil, func(ctx context.Context, w *worker, i int) error {
		piece := Span{int64(i) * pieceSize, min(pieceSize, size-int64(i)*pieceSize)}
		at, err := w.read(ctx, r, piece, func(offset int64, data []byte) error {
			before := len(pieces[i])
			pieces[i] = appendNonZero(pieces[i], offset, data, blockSize)
			if total.Add(int64(len(pieces[i])-before)) > MaxRanges {
				return fmt.Errorf("map would need more than %d ranges: choose a larger block than %d bytes", MaxRanges, blockSize)
			}
			m.add(int64(len(data)))
			return nil
		})
		return readError(at, err)
	})
	if err != nil {
		return nil, err
	}
	var all []Span
	for _, spans := range pieces {
		all = append(all, spans...)
	}
	return all, nil
}

// appendNonZero appends the runs of blocks in data, at offset of the image, that have a nonzero byte. If a block is larger than
// data, only its part in data counts; toBlocks rounds outwards.
func appendNonZero(spans []Span, offset int64, data []byte, blockSize int64) []Span {
	for len(data) > 0 {
		n := min(int64(len(data)), blockSize-offset%blockSize)
		if zeros := int64(leadingZeros(data[:n])); zeros < n {
			if k := len(spans); k > 0 && spans[k-1].Offset+spans[k-1].Length == offset {
				spans[k-1].Length += n
			} else {
				spans = append(spans, Span{offset, n})
			}
		}
		offset, data = offset+n, data[n:]
	}
	return spans
}
