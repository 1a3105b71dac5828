package update

import (
	"context"
	"runtime"

	"golang.org/x/sync/errgroup"

	"updater/bmap"
)

// CheckImage streams an image through the same reader and hash as [Install] and writes nothing. It returns nil only if every mapped
// range matches m, the size is right and the container ends properly. Errors: [ImageError], [SourceError], the cause of a cancelled
// context.
func CheckImage(ctx context.Context, m *bmap.Map, image Image) error {
	return Pieces(ctx, m, image, func([]byte, int64) error { return nil })
}

// CheckSlot compares a slot with the document of the image that was installed into it, as an install does before it switches.
// It writes nothing. Errors: [ReadBackError], [ImageError], the cause of a cancelled context.
func CheckSlot(ctx context.Context, doc *Document, slot ReadBacker, progress *Progress) error {
	p := &part{run: &run{timer: newTimer(progress)}, Document: doc}
	b := p.readBackOf()
	b.Readers = earlyReaders // the system is running
	bad, err := b.Compare(ctx, slot)
	if err == nil && len(bad) > 0 {
		err = b.mismatch(bad)
	}
	if err != nil {
		return err
	}
	return p.checkWhole(ctx, b, slot)
}

// consumer takes the checked chunks and recycles their buffers.
type consumer func(ctx context.Context, in <-chan chunk, free chan<- []byte) error

// stream runs the stages: one goroutine reads and decodes the ranges of the image that want selects (nil: all), one hashes and
// compares each range, one hashes the whole image if the document has its checksum and no range is skipped, and take consumes the
// checked chunks and recycles their buffers. The first error cancels the other stages.
func (s Sizes) stream(ctx context.Context, m *bmap.Map, image Image, want selection, take consumer) error {
	group, ctx := errgroup.WithContext(ctx)
	s = s.orDefault()
	n := s.buffers(m)
	free := make(chan []byte, n)
	for range n {
		free <- nil // allocated on first use
	}
	read, ranges := make(chan chunk, n), make(chan chunk, n)
	queue := make(chan judged, runtime.GOMAXPROCS(0)) // bounds the ranges hashed at a time
	checked := ranges
	group.Go(func() error {
		defer close(read)
		return (&rangeReader{m: m, image: image, want: want, free: free, out: read, size: s.Chunk}).run(ctx)
	})
	group.Go(func() error {
		defer close(queue)
		return s.judgeRanges(ctx, m, read, queue)
	})
	group.Go(func() error {
		defer close(ranges)
		return passRanges(ctx, queue, ranges)
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
	err := group.Wait()
	for j := range queue { // after an error: until no hash uses a buffer any more
		if j.judge != nil {
			<-j.judge
		}
	}
	return err
}
