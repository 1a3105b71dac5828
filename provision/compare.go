package provision

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"

	"updater/bmap"
)

// compareSize is the length of one read; one buffer of it is all that a read-back takes.
const compareSize = 256 << 10

// badRange is a part of an image that a medium does not hold.
type badRange struct {
	bmap.Span
	zero bool // it is unmapped and should be zero
	err  error
}

// maxBad is how many bad ranges are repaired; more are no accident.
const maxBad = 64

// compare reads an image back from a medium, past the page cache, and returns what differs from the signed document:
// ranges by their checksum, what is unmapped by being zero. An error is one of reading.
func (pl *Payload) compare(ctx context.Context, m Medium, base int64, count func(n int64)) (bad []badRange, err error) {
	buf := make([]byte, compareSize)
	each := func(s bmap.Span, take func(p []byte, off int64)) error {
		for off, end := s.Offset, s.Offset+s.Length; off < end; {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			p := buf[:min(int64(len(buf)), end-off)]
			if _, err := m.ReadBackAt(p, base+off); err != nil {
				return err
			}
			take(p, off)
			count(int64(len(p)))
			off += int64(len(p))
		}
		return nil
	}
	sum := pl.Doc.Map.NewHash()
	for i, rng := range pl.Doc.Map.Ranges() {
		sum.Reset()
		span := bmap.Span{Offset: rng.Offset, Length: rng.Length}
		if err := each(span, func(p []byte, _ int64) { sum.Write(p) }); err != nil {
			return nil, err
		}
		if got := hex.EncodeToString(sum.Sum(nil)); got != rng.Checksum {
			bad = append(bad, badRange{Span: span, err: fmt.Errorf("range %d (%s) read back at %d: %s begins with %.16s, the bmap says %.16s", i, rng, base+rng.Offset, pl.Doc.Map.ChecksumType(), got, rng.Checksum)})
		}
	}
	if pl.keepUnmapped() {
		return bad, nil
	}
	for gap := range pl.Doc.Map.Gaps() {
		var first error
		if err := each(gap, func(p []byte, off int64) {
			if i := firstNonZero(p); i >= 0 && first == nil {
				first = fmt.Errorf("unmapped byte read back at %d is %#02x, expected zero", base+off+int64(i), p[i])
			}
		}); err != nil {
			return nil, err
		}
		if first != nil {
			bad = append(bad, badRange{Span: gap, zero: true, err: first})
		}
	}
	return bad, nil
}

var zeros [4096]byte

func firstNonZero(p []byte) int {
	for at := 0; at < len(p); at += len(zeros) {
		part := p[at:min(at+len(zeros), len(p))]
		if !bytes.Equal(part, zeros[:len(part)]) {
			for i, b := range part {
				if b != 0 {
					return at + i
				}
			}
		}
	}
	return -1
}

// inside tells whether a piece of the image belongs to one of the bad ranges.
func inside(bad []badRange) func(off int64, length int) bool {
	return func(off int64, length int) bool {
		for _, b := range bad {
			if !b.zero && off < b.Offset+b.Length && b.Offset < off+int64(length) {
				return true
			}
		}
		return false
	}
}
