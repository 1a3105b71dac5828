package update

import (
	"context"
	"encoding/hex"
	"fmt"
	"hash"

	"golang.org/x/sync/errgroup"

	"updater/bmap"
	"updater/verify"
)

// readers is the number of goroutines that read back: one hashes while the other waits for the medium.
const readers = 2

// readBackSize is the length of one read; larger ones gain nothing with O_DIRECT.
const readBackSize = 1 << 20

// readBack compares the medium with the signed document: mapped ranges by checksum, unmapped bytes with
// zero (unless they are to be kept), and the whole image where the document has its checksum.
func (r *run) readBack(ctx context.Context, doc *Document, target Target) error {
	total := doc.Map.ImageSize()
	if doc.KeepUnmapped {
		total = doc.Map.MappedBytes()
	}
	r.phaseOf(PhaseReadBack, total)
	work := make(chan func(buf []byte) error)
	group, gctx := errgroup.WithContext(ctx)
	for range readers {
		group.Go(func() error {
			buf := make([]byte, readBackSize)
			for check := range work {
				if err := check(buf); err != nil {
					return err
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(work)
		for i, rng := range doc.Map.Ranges() {
			if err := send(gctx, work, func(buf []byte) error { return r.checkRange(gctx, doc.Map, i, rng, target, buf) }); err != nil {
				return err
			}
		}
		if doc.KeepUnmapped {
			return nil
		}
		for gap := range doc.Map.Gaps() {
			if err := send(gctx, work, func(buf []byte) error { return r.checkZero(gctx, gap, target, buf) }); err != nil {
				return err
			}
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		if cause := cancelled(ctx); cause != nil {
			return cause
		}
		return err
	}
	return r.checkWhole(ctx, doc, target)
}

func (r *run) checkRange(ctx context.Context, m *bmap.Map, index int, rng bmap.Range, target Target, buf []byte) error {
	sum := m.NewHash()
	err := r.eachPiece(ctx, bmap.Span{Offset: rng.Offset, Length: rng.Length}, target, buf, func(p []byte, _ int64) error {
		sum.Write(p)
		return nil
	})
	if err != nil {
		return err
	}
	if err := compare(sum, m, index, rng); err != nil {
		return &ReadBackError{Offset: rng.Offset, Err: err}
	}
	return nil
}

func (r *run) checkZero(ctx context.Context, gap bmap.Span, target Target, buf []byte) error {
	return r.eachPiece(ctx, gap, target, buf, func(p []byte, off int64) error {
		for i, b := range p {
			if b != 0 {
				return &ReadBackError{Offset: off + int64(i), Err: fmt.Errorf("unmapped byte is %#02x, expected zero", b)}
			}
		}
		return nil
	})
}

// checkWhole checks <ImageChecksum>: the image with its unmapped blocks as zero.
func (r *run) checkWhole(ctx context.Context, doc *Document, target Target) error {
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
		return &ReadBackError{Err: &verify.MismatchError{
			Object: "the whole image", Length: doc.Map.ImageSize(), Type: doc.Map.ChecksumType(), Got: got, Want: u.ImageChecksum,
		}}
	}
	return nil
}

func hashZeros(sum hash.Hash, n int64) {
	var zeros [32 << 10]byte
	for ; n > 0; n -= min(n, int64(len(zeros))) {
		sum.Write(zeros[:min(n, int64(len(zeros)))])
	}
}

// eachPiece reads a span from the medium in pieces of at most len(buf).
func (r *run) eachPiece(ctx context.Context, s bmap.Span, target Target, buf []byte, take func(p []byte, off int64) error) error {
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
