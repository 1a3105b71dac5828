package update

import (
	"context"
	"math"
	"runtime"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
)

// behind is the read-back of an image that follows its writing, two barriers behind: bytes are read once a flush has covered them and the
// next one has completed, so that other data has passed through the drive's cache meanwhile. The rest is read after the last flush, on
// targets without barriers all of it. docs/durability.md has the argument.
type behind struct {
	cancel context.CancelFunc
	read   atomic.Int64  // bytes
	late   atomic.Bool   // everything was flushed
	ended  chan struct{} // closed once bad and err are set
	bad    []Mismatch
	err    error

	barriers int   // of the target
	written  int64 // offset of the image up to which everything was handed to the target
	covered  int64 // the same before the last barrier began

	mu    sync.Mutex
	ready int64         // the same before the barrier in front of that one began
	moved chan struct{} // closed when ready grows
}

// follow starts the read-back. It ends with differing or stop.
func (p *part) follow(ctx context.Context) {
	b := &behind{ended: make(chan struct{}), moved: make(chan struct{})}
	ctx, b.cancel = context.WithCancel(ctx)
	p.behind = b
	compare := p.readBackWith(func(n int64) {
		if read := b.read.Add(n); b.late.Load() {
			p.progress.set(read)
		} else {
			p.progress.move()
		}
	})
	go func() {
		defer close(b.ended)
		b.bad, b.err = compare.compare(ctx, p.target, b.wait)
	}()
}

// passed records that everything before an offset of the image was written, and the barriers so far: a new one covers the bytes
// written before the last call. It returns the error of a read-back that has failed.
func (b *behind) passed(written int64, barriers int) error {
	if b == nil {
		return nil
	}
	select {
	case <-b.ended:
		return b.err
	default:
	}
	if barriers > b.barriers {
		b.allow(b.covered)
		b.covered, b.barriers = b.written, barriers
	}
	b.written = written
	return nil
}

// allow lets the read-back read up to an offset of the image.
func (b *behind) allow(end int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ready = end
	close(b.moved)
	b.moved = make(chan struct{})
}

// wait waits until the image may be read up to an offset.
func (b *behind) wait(ctx context.Context, end int64) error {
	for {
		b.mu.Lock()
		ready, moved := b.ready, b.moved
		b.mu.Unlock()
		if end <= ready {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// differing reads the rest back and returns all that differs, ascending. A range that was written after the others may have been read too
// early, and is compared again. The last flush has completed.
func (p *part) differing(ctx context.Context) ([]Mismatch, error) {
	b := p.behind
	p.overlap = b.read.Load()
	runtime.GC() // frees the memory of the image stream for the late readers
	b.late.Store(true)
	b.allow(math.MaxInt64)
	<-b.ended
	if b.err != nil {
		return nil, b.err
	}
	p.progress.set(b.read.Load())
	bad := slices.DeleteFunc(b.bad, func(m Mismatch) bool {
		return slices.ContainsFunc(p.late, func(l Mismatch) bool { return l.Index == m.Index })
	})
	still, err := p.readBackWith(nil).recheck(ctx, p.target, p.late)
	bad = append(bad, still...)
	sort.Slice(bad, func(i, j int) bool { return bad[i].Offset < bad[j].Offset })
	return bad, err
}

// stop ends the read-back. It does nothing before follow.
func (b *behind) stop() {
	if b != nil {
		b.cancel()
		<-b.ended
	}
}
