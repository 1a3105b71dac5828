package fan

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"updater/bmap"
	"updater/update"
)

// pieces is the shared window: 16 pieces of at most 512 KiB, see update.Pieces.
const pieces = 16

// Sink receives the bytes of an image, ascending, from one goroutine.
type Sink interface {
	io.WriterAt
	Zero(off, length int64) error
}

// Out is one target of a fan. At, Err and Behind are its result.
type Out struct {
	Sink Sink
	At   int64         // next byte of the image that it needs; first where it begins
	Keep bool          // leaves holes as they are; otherwise they are zeroed
	Done *atomic.Int64 // counts the bytes written; may be nil

	Err    error // of the sink
	Behind bool  // it fell behind the others; it holds the bytes before At

	queue    chan *piece
	left     atomic.Bool // it takes nothing more
	busy     atomic.Bool
	behind   atomic.Bool
	held     time.Duration // how long it held up others
	finished chan struct{}
}

// piece is a part of the image. The last target that needs it frees it.
type piece struct {
	buf  []byte
	off  int64
	refs atomic.Int32
}

func (p *piece) release(free chan<- *piece) {
	if p.refs.Add(-1) == 0 {
		free <- p
	}
}

// Options limit how long a slow target may hold up the others. The zero value is the default.
type Options struct {
	Patience time.Duration // for each target, besides a tenth of the time so far; 0 is 2 s
}

// errNoTargets stops the stream when no target remains.
var errNoTargets = errors.New("no target is left")

// Run streams an image to all outs. The error is that of the image, or the cause of a cancelled context. When it returns, every out
// has its result; the goroutine of an out that is Behind may still hang in its sink, see [Out.Wait].
func Run(ctx context.Context, m *bmap.Map, image update.Image, outs []*Out, o Options) error {
	if o.Patience == 0 {
		o.Patience = 2 * time.Second
	}
	f := &fan{outs: outs, o: o, free: make(chan *piece, pieces+len(outs)), began: time.Now()}
	for range pieces {
		f.free <- new(piece)
	}
	for _, out := range outs {
		out.queue, out.finished = make(chan *piece, pieces+len(outs)), make(chan struct{})
		go out.run(f.free, m.ImageSize())
	}
	err := update.Pieces(ctx, m, image, func(p []byte, off int64) error { return f.send(ctx, p, off) })
	if errors.Is(err, errNoTargets) {
		err = nil
	}
	for _, out := range outs {
		if err != nil {
			out.left.Store(true)
		}
		close(out.queue)
	}
	f.wait(ctx)
	return err
}

type fan struct {
	outs  []*Out
	o     Options
	free  chan *piece
	began time.Time
}

// patience is how long one target may have held up the others by now.
func (f *fan) patience() time.Duration { return f.o.Patience + time.Since(f.began)/10 }

// send hands a piece to every target that is still with the fan.
func (f *fan) send(ctx context.Context, p []byte, off int64) error {
	var live []*Out
	for _, out := range f.outs {
		if !out.left.Load() {
			live = append(live, out)
		}
	}
	if len(live) == 0 {
		return errNoTargets
	}
	pc, err := f.take(ctx)
	if err != nil {
		return err
	}
	pc.buf, pc.off = append(pc.buf[:0], p...), off
	pc.refs.Store(int32(len(live)))
	for _, out := range live {
		out.queue <- pc // never blocks: its queue has room for all pieces
	}
	return nil
}

// look is how often a fan looks for targets that hold it up.
const look = 20 * time.Millisecond

// take waits for a free piece and drops the target that holds up the others for too long.
func (f *fan) take(ctx context.Context) (*piece, error) {
	select {
	case pc := <-f.free:
		return pc, nil
	default:
	}
	tick := time.NewTicker(look)
	defer tick.Stop()
	since := time.Now()
	for {
		select {
		case pc := <-f.free:
			return pc, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
		now := time.Now()
		if out := f.slowest(); out != nil { // nil: all are busy, this is the speed of the media
			if out.held += now.Sub(since); out.held > f.patience() {
				f.drop(out)
			}
		}
		since = now
	}
}

// slowest is the target with the longest queue while another one is idle; nil if none is.
func (f *fan) slowest() (slowest *Out) {
	idle := false
	for _, out := range f.outs {
		switch {
		case out.left.Load():
		case len(out.queue) == 0 && !out.busy.Load():
			idle = true
		case slowest == nil || len(out.queue) > len(slowest.queue):
			slowest = out
		}
	}
	if !idle {
		return nil
	}
	return slowest
}

// drop removes a target from the fan and frees the pieces that it did not write. The piece that it may hang on is replaced.
func (f *fan) drop(out *Out) {
	if out.left.Swap(true) {
		return
	}
	out.behind.Store(true)
	for {
		select {
		case pc, open := <-out.queue:
			if !open {
				return
			}
			pc.release(f.free)
			continue
		default:
		}
		break
	}
	if out.busy.Load() {
		f.free <- new(piece)
	}
}

// wait waits until the targets have written their pieces, for slow ones no longer than the options allow.
func (f *fan) wait(ctx context.Context) {
	deadline := time.Time{}
	for {
		done, open := 0, []*Out(nil)
		for _, out := range f.outs {
			select {
			case <-out.finished:
				done++
			default:
				if !out.behind.Load() {
					open = append(open, out)
				}
			}
		}
		if len(open) == 0 {
			break
		}
		if (done > 0 || ctx.Err() != nil) && deadline.IsZero() {
			deadline = time.Now().Add(f.patience())
		}
		if !deadline.IsZero() && time.Now().After(deadline) {
			for _, out := range open {
				f.drop(out)
			}
			break
		}
		time.Sleep(look / 4)
	}
	for _, out := range f.outs {
		out.Behind = out.behind.Load()
	}
}

// run writes the pieces that the fan sends. After an error, and after it was dropped, it only frees them.
func (out *Out) run(free chan<- *piece, end int64) {
	defer close(out.finished)
	for pc := range out.queue {
		if !out.left.Load() {
			out.busy.Store(true)
			if err := out.write(pc); err != nil {
				out.Err = err
				out.left.Store(true)
			}
			out.busy.Store(false)
		}
		pc.release(free)
	}
	if !out.left.Load() {
		out.busy.Store(true)
		out.Err = out.hole(end)
		out.busy.Store(false)
	}
}

func (out *Out) write(pc *piece) error {
	next := pc.off + int64(len(pc.buf))
	if next <= out.At {
		return nil // from an earlier fan
	}
	if err := out.hole(pc.off); err != nil {
		return err
	}
	if _, err := out.Sink.WriteAt(pc.buf, pc.off); err != nil {
		return err
	}
	out.At = next
	if out.Done != nil {
		out.Done.Add(int64(len(pc.buf)))
	}
	return nil
}

// hole treats the hole from At to the offset to, if there is one.
func (out *Out) hole(to int64) error {
	if to <= out.At {
		return nil
	}
	if !out.Keep {
		if err := out.Sink.Zero(out.At, to-out.At); err != nil {
			return err
		}
	}
	out.At = to
	return nil
}

// Wait waits for the goroutine of an out. It returns false if the goroutine still hangs in its sink after patience.
func (out *Out) Wait(patience time.Duration) bool {
	select {
	case <-out.finished:
		return true
	case <-time.After(patience):
		return false
	}
}
