package update

import (
	"context"

	"updater/bmap"
)

// judged is a sequence of chunks that is passed on once judge sends nil.
type judged struct {
	chunks []chunk
	judge  <-chan error // nil passes them on at once
}

// passRanges passes the sequences on in order, each once its range was found right.
func passRanges(ctx context.Context, queue <-chan judged, out chan<- chunk) error {
	for j := range queue {
		if j.judge != nil {
			if err := <-j.judge; err != nil {
				return err
			}
		}
		for _, c := range j.chunks {
			if err := send(ctx, out, c); err != nil {
				return err
			}
		}
	}
	return cancelled(ctx)
}

// judgeRanges compares each range with its signed checksum. Ranges of at most Held are hashed, on all cores, before they are
// passed on in their order. Longer ones, from a foreign bmap, pass through and are judged at their end, which is before the switch.
// The number of buffers bounds the work in flight.
func (s Sizes) judgeRanges(ctx context.Context, m *bmap.Map, in <-chan chunk, queue chan<- judged) error {
	var held []chunk
	long := m.NewHash()
	for c := range in {
		j := judged{chunks: []chunk{c}}
		switch {
		case c.end:
		case c.rng.Length > s.Held:
			long.Write(c.buf)
			if c.last {
				if err := compare(long, m, c.index, c.rng); err != nil {
					return &ImageError{Err: err}
				}
				long.Reset()
			}
		default:
			if held = append(held, c); !c.last {
				continue
			}
			verdict := make(chan error, 1)
			j = judged{chunks: held, judge: verdict}
			go func() { verdict <- hashRange(m, j.chunks) }()
			held = nil
		}
		if err := send(ctx, queue, j); err != nil {
			if j.judge != nil {
				<-j.judge // the buffers are free after that
			}
			return err
		}
	}
	return nil
}

// hashRange compares the chunks of one whole range with its signed checksum.
func hashRange(m *bmap.Map, chunks []chunk) error {
	sum := m.NewHash()
	for _, c := range chunks {
		sum.Write(c.buf)
	}
	if err := compare(sum, m, chunks[0].index, chunks[0].rng); err != nil {
		return &ImageError{Err: err}
	}
	return nil
}
