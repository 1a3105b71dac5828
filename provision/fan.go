package provision

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"updater/bmap"
	"updater/update"
)

// The shared window: how far the targets of a fan may be apart. It is all the memory that a fan takes, whatever the
// number of targets, but for one piece for each target that hangs.
const (
	pieceSize = 512 << 10
	pieces    = 16
)

// Sink takes the bytes of an image, ascending, from one goroutine.
type Sink interface {
	io.WriterAt
	Zero(off, length int64) error
}

// Out is one target of a fan. At, Err and Behind are the fan's result.
type Out struct {
	Sink Sink
	At   int64                            // next byte of the image that it needs; where it begins
	Want func(off int64, length int) bool // pieces that it needs; nil is all from At on
	Keep bool                             // leaves what is unmapped as it is; else it becomes zero

	Err    error // of the sink
	Behind bool  // it was too slow for the others and has what is before At

	Done     *atomic.Int64 // counts the bytes written; may be nil
	queue    chan *piece
	left     atomic.Bool // it takes nothing more
	busy     atomic.Bool
	behind   atomic.Bool
	held     time.Duration // how long it held up others
	finished chan struct{}
}

// piece is a part of the image that several targets need. The last one gives it back.
type piece struct {
	buf  []byte
	off  int64
	refs atomic.Int32
}

// FanOptions bound how long a slow target may hold the others up. The zero value is the default.
type FanOptions struct {
	Patience time.Duration // for each target, besides a tenth of the time so far; 0 is 2 s
}

// errNobody ends a fan that nobody needs any more.
var errNobody = errors.New("no target is left")

// FanOut reads, decodes and checks an image once and writes it to all outs. A target whose sink fails leaves the fan,
// and so does one that holds up the others by more than the options allow; neither ends it. It returns an error of the
// image, or the cause of a cancelled context. When it returns, every out has its result; the goroutine of an out that
// is Behind may still hang in its sink, see [Out.Wait].
func FanOut(ctx context.Context, m *bmap.Map, image update.Image, outs []*Out, o FanOptions) error {
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
	if errors.Is(err, errNobody) {
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
	o     FanOptions
	free  chan *piece
	began time.Time
}

// patience is how long one target may hold up the others by now.
func (f *fan) patience() time.Duration { return f.o.Patience + time.Since(f.began)/10 }

// send hands a piece to every target that is still with the fan.
func (f *fan) send(ctx context.Context, p []byte, off int64) error {
	var wanted []*Out
	live := 0
	for _, out := range f.outs {
		if out.left.Load() {
			continue
		}
		live++
		if out.Want == nil || out.Want(off, len(p)) {
			wanted = append(wanted, out)
		}
	}
	if live == 0 {
		return errNobody
	}
	if len(wanted) == 0 {
		return nil
	}
	pc, err := f.take(ctx)
	if err != nil {
		return err
	}
	pc.buf, pc.off = append(pc.buf[:0], p...), off
	pc.refs.Store(int32(len(wanted)))
	for _, out := range wanted {
		out.queue <- pc // never blocks: there are not more pieces than it has room for
	}
	return nil
}

// look is how often a fan looks for targets that hold it up.
const look = 20 * time.Millisecond

// take waits for a free piece of the window, and lets go of the target that holds the others up for too long.
func (f *fan) take(ctx context.Context) (*piece, error) {
	select {
	case pc := <-f.free:
		return pc, nil
	default:
	}
	tick := time.NewTicker(look)
	defer tick.Stop()
	for since := time.Now(); ; since = time.Now() {
		select {
		case pc := <-f.free:
			return pc, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
		out := f.held()
		if out == nil {
			continue // all are busy: this is the speed of the media
		}
		if out.held += time.Since(since); out.held > f.patience() {
			f.leave(out)
		}
	}
}

// held is the slowest target while another one has nothing to do; nil when none waits.
func (f *fan) held() (slowest *Out) {
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

// leave takes a target out of the fan and gives back what it did not write. The piece that it may hang on is replaced.
func (f *fan) leave(out *Out) {
	if out == nil || out.left.Swap(true) {
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

// wait waits for the targets to write what they have, but no longer for the slow ones than the options allow.
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
				f.leave(out)
			}
			break
		}
		time.Sleep(look / 4)
	}
	for _, out := range f.outs {
		out.Behind = out.behind.Load()
	}
}

// run writes what the fan sends. After an error, or once it has left, it gives back what comes.
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
	if !out.left.Load() && !out.Keep && out.Want == nil && out.At < end {
		out.busy.Store(true)
		if out.Err = out.Sink.Zero(out.At, end-out.At); out.Err == nil {
			out.At = end
		}
		out.busy.Store(false)
	}
}

func (out *Out) write(pc *piece) error {
	next := pc.off + int64(len(pc.buf))
	if out.Want == nil && next <= out.At {
		return nil // it has that from before
	}
	if !out.Keep && out.Want == nil && pc.off > out.At {
		if err := out.Sink.Zero(out.At, pc.off-out.At); err != nil {
			return err
		}
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

// Wait waits for the goroutine of an out; false says that it still hangs in its sink after patience.
func (out *Out) Wait(patience time.Duration) bool {
	select {
	case <-out.finished:
		return true
	case <-time.After(patience):
		return false
	}
}

func (pc *piece) release(free chan<- *piece) {
	if pc.refs.Add(-1) == 0 {
		free <- pc
	}
}
