package update

import (
	"context"

	"golang.org/x/sync/errgroup"

	"updater/bmap"
)

// CheckImage streams an image through the same reader and hash as [Install] and writes nothing. It returns
// nil only when every mapped range matches m and the image has its size and ends properly. Errors:
// [ImageError], [SourceError], the cause of a cancelled context.
func CheckImage(ctx context.Context, m *bmap.Map, image Image) error {
	return stream(ctx, m, image, nil, func(ctx context.Context, in <-chan chunk, free chan<- []byte) error {
		for c := range in {
			if err := c.recycle(ctx, free); err != nil {
				return err
			}
		}
		return nil
	})
}

// CheckSlot compares a slot with the document of the image that was installed into it, as an install does before it switches.
// It writes nothing. Errors: [ReadBackError], [ImageError], the cause of a cancelled context.
func CheckSlot(ctx context.Context, doc *Document, slot ReadBacker, progress *Progress) error {
	r := &run{timer: newTimer(progress)}
	b := r.readBackOf(doc)
	bad, err := b.Compare(ctx, slot)
	if err == nil && len(bad) > 0 {
		err = b.mismatch(bad)
	}
	if err != nil {
		return err
	}
	return r.checkWhole(ctx, b, slot)
}

// stream runs the stages: one goroutine reads and decodes the ranges of the image that want asks for (nil: all), one
// hashes and compares each, one more the whole image where the document has its checksum and no range is left out,
// and take consumes the checked chunks and gives their buffers back. Whoever fails first ends the others.
func stream(ctx context.Context, m *bmap.Map, image Image,
	want func(ctx context.Context, index int, rng bmap.Range) (bool, error),
	take func(ctx context.Context, in <-chan chunk, free chan<- []byte) error,
) error {
	group, ctx := errgroup.WithContext(ctx)
	n := buffers(m)
	free := make(chan []byte, n)
	for range n {
		free <- nil // made when it is first needed
	}
	read, ranges := make(chan chunk, n), make(chan chunk, n)
	checked := ranges
	group.Go(func() error {
		defer close(read)
		return readRanges(ctx, m, image, want, free, read)
	})
	group.Go(func() error {
		defer close(ranges)
		return checkRanges(ctx, m, read, ranges)
	})
	if sum := wholeChecksum(m); sum != "" && want == nil {
		whole := make(chan chunk, n)
		group.Go(func() error {
			defer close(whole)
			return checkWhole(ctx, m, sum, ranges, whole)
		})
		checked = whole
	}
	group.Go(func() error { return take(ctx, checked, free) })
	return group.Wait()
}
