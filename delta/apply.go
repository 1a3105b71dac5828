package delta

import (
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// Sound reports for each window whether the old image still has its bytes. It reads on GOMAXPROCS goroutines; a window that cannot be read is
// not sound. want selects windows; nil selects all. The error is the cause of a cancelled context.
func (t *Table) Sound(ctx context.Context, old io.ReaderAt, want []bool, progress func(n int64)) ([]bool, error) {
	sound := make([]bool, len(t.Windows))
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			buf := make([]byte, 0, WindowSize)
			for {
				i := int(next.Add(1) - 1)
				if i >= len(t.Windows) {
					return nil
				}
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				if want != nil && !want[i] {
					continue
				}
				p, err := readWindows(buf, old, t.Windows[i:i+1])
				sound[i] = err == nil && crc32.Checksum(p, castagnoli) == t.Windows[i].Sum
				if progress != nil {
					progress(int64(t.Windows[i].Length))
				}
			}
		})
	}
	return sound, group.Wait()
}

// Uses marks the windows of the dictionary of a frame.
func (f Frame) Uses(windows []bool) {
	for _, w := range f.windows {
		windows[w] = true
	}
}

// Holds reports whether all windows of the dictionary of a frame are sound.
func (f Frame) Holds(sound []bool) bool {
	for _, w := range f.windows {
		if !sound[w] {
			return false
		}
	}
	return true
}

// decoder decodes one frame at a time.
type decoder struct {
	zstd *zstd.Decoder
	dict []byte
}

func newDecoder() (*decoder, error) {
	d := &decoder{dict: make([]byte, 0, MaxDictionary)}
	var err error
	d.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxWindow(8<<20))
	return d, err
}

// decode returns the bytes of the ranges of a frame, in buf if they fit.
func (d *decoder) decode(t *Table, f Frame, old io.ReaderAt, packed, buf []byte) (_ []byte, err error) {
	if d.dict, err = readWindows(d.dict[:0], old, t.Dictionary(f)); err != nil {
		return nil, err
	}
	if err := d.zstd.ResetWithOptions(nil, zstd.WithDecoderDictRaw(0, d.dict)); err != nil {
		return nil, err
	}
	if int64(cap(buf)) < f.Length {
		buf = make([]byte, 0, max(f.Length, groupSize))
	}
	out, err := d.zstd.DecodeAll(packed, buf[:0:f.Length])
	switch {
	case err != nil:
		return nil, fmt.Errorf("frame at %d of the delta: %w", f.At, err)
	case int64(len(out)) != f.Length:
		return nil, fmt.Errorf("frame at %d of the delta: it has %d bytes, expected %d", f.At, len(out), f.Length)
	}
	return out, nil
}

const (
	// gap is the longest gap between two frames, in bytes, that is fetched as well rather than beginning another request.
	gap = 64 << 10
	// batchSize is the most bytes of a request for several frames.
	batchSize = 256 << 10
	// batches is how many requests are under way or waiting to be decoded.
	batches = 4
	// maxDecoders bounds the frames decoded at a time.
	maxDecoders = 2
)

// batch is a part of the file that one request fetches.
type batch struct {
	frames   []Frame
	from, to int64
	done     chan struct{}
	data     []byte
	err      error

	left  atomic.Int64 // frames that are not decoded yet
	worth atomic.Int64 // of those that are right
}

// plan divides ascending frames into batches of at most size bytes, or of one frame.
func plan(frames []Frame, size int64) []*batch {
	var all []*batch
	for _, f := range frames {
		end := f.At + f.Packed
		if n := len(all); n > 0 && f.At-all[n-1].to <= gap && end-all[n-1].from <= size {
			all[n-1].frames, all[n-1].to = append(all[n-1].frames, f), end
			continue
		}
		all = append(all, &batch{frames: []Frame{f}, from: f.At, to: end, done: make(chan struct{})})
	}
	for _, b := range all {
		b.left.Store(int64(len(b.frames)))
	}
	return all
}

// Cost returns how many bytes are fetched for ascending frames, and in how many requests.
func Cost(frames []Frame) (bytes int64, requests int) {
	all := plan(frames, batchSize)
	for _, b := range all {
		bytes += b.to - b.from
	}
	return bytes, len(all)
}

// Group is the bytes of the ranges of a frame, one after the other.
type Group struct {
	Frame
	Data []byte // nil after an error; valid until the next call of Next
	Err  error  // of the delta, of the old image, or of check

	done chan struct{}
	buf  []byte
}

// Source is the input of a [Reader].
type Source struct {
	File, Old io.ReaderAt // the delta and the old image; they are read from several goroutines at a time
	Frames    []Frame     // ascending
	// Check accepts the bytes of a group, on the goroutine that has decoded them; nil accepts all.
	Check func(Frame, []byte) error
	// Budget is how many bytes of the file may be fetched before any group is right; 0 is no limit. Each group that is right adds its Worth:
	// the bytes that need not be fetched elsewhere then. So a delta costs at most Budget, whatever it contains.
	Budget int64
	Worth  func(Frame) int64
}

// Reader makes groups of ranges. It is not safe for concurrent use.
type Reader struct {
	from    Source
	table   *Table
	settled chan int64 // the worth of each batch that is decoded

	free   chan *decoder
	bufs   chan []byte // of the groups that are not returned yet, and of the one that was returned last
	queue  chan *Group
	last   *Group
	cancel context.CancelFunc
	wait   sync.WaitGroup
}

// NewReader makes the groups of frames: up to four requests ahead, and as many frames at a time as there are cores, two at most. The caller
// closes the reader.
func (t *Table) NewReader(ctx context.Context, s Source) (*Reader, error) {
	size := int64(batchSize)
	if s.Budget > 0 {
		size = min(size, s.Budget)
	}
	n, all := min(runtime.GOMAXPROCS(0), maxDecoders), plan(s.Frames, size)
	ctx, cancel := context.WithCancel(ctx)
	r := &Reader{from: s, table: t, settled: make(chan int64, len(all)), cancel: cancel}
	r.free, r.bufs, r.queue = make(chan *decoder, n), make(chan []byte, n+1), make(chan *Group, n+1)
	for range n {
		d, err := newDecoder()
		if err != nil {
			cancel()
			return nil, err
		}
		r.free <- d
	}
	for range n + 1 {
		r.bufs <- nil
	}
	fetched := make(chan *batch, batches-2) // one more is at each end
	r.wait.Go(func() { r.fetch(ctx, all, fetched) })
	r.wait.Go(func() { r.decode(ctx, fetched) })
	return r, nil
}

// fetch fetches the batches, several at a time, and hands them over in order. It ends when the budget is spent.
func (r *Reader) fetch(ctx context.Context, all []*batch, fetched chan<- *batch) {
	defer close(fetched)
	budget, underWay := r.from.Budget, 0
	for i, b := range all {
		all[i] = nil // decoded batches are not kept
		budget -= b.to - b.from
		for r.from.Budget > 0 && budget < 0 {
			if underWay == 0 {
				return
			}
			select {
			case worth := <-r.settled:
				budget += worth
				underWay--
			case <-ctx.Done():
				return
			}
		}
		underWay++
		r.wait.Go(func() {
			defer close(b.done)
			b.data = make([]byte, b.to-b.from)
			if n, err := r.from.File.ReadAt(b.data, b.from); n < len(b.data) {
				b.data, b.err = nil, fmt.Errorf("reading the delta at %d: %w", b.from+int64(n), noEOF(err))
			}
		})
		select {
		case fetched <- b:
		case <-ctx.Done():
			return
		}
	}
}

// decode decodes the frames, several at a time, and hands them over in order.
func (r *Reader) decode(ctx context.Context, fetched <-chan *batch) {
	defer close(r.queue)
	for b := range fetched {
		<-b.done
		for _, f := range b.frames {
			g := &Group{Frame: f, Err: b.err, done: make(chan struct{})}
			select {
			case g.buf = <-r.bufs:
			case <-ctx.Done():
				return
			}
			r.wait.Go(func() { r.make(g, b) })
			r.queue <- g // as many as there are buffers
		}
		if b.err != nil {
			return // later batches cannot be fetched either
		}
	}
}

func (r *Reader) make(g *Group, b *batch) {
	defer close(g.done)
	if g.Err != nil {
		return
	}
	d := <-r.free
	defer func() { r.free <- d }()
	at := g.At - b.from
	data, err := d.decode(r.table, g.Frame, r.from.Old, b.data[at:at+g.Packed], g.buf)
	if err == nil && r.from.Check != nil {
		err = r.from.Check(g.Frame, data)
	}
	if g.Err = err; err == nil {
		g.Data, g.buf = data, data
		if r.from.Worth != nil {
			b.worth.Add(r.from.Worth(g.Frame))
		}
	}
	if b.left.Add(-1) == 0 {
		r.settled <- b.worth.Load()
	}
}

// Next returns the next group, or nil after the last one. After an error of the file no group follows.
func (r *Reader) Next() *Group {
	if r.last != nil {
		r.bufs <- r.last.buf
		r.last = nil
	}
	g, ok := <-r.queue
	if !ok {
		return nil
	}
	<-g.done
	r.last = g
	return g
}

// Close ends the reader. It waits for the requests under way, which end with their own context.
func (r *Reader) Close() {
	r.cancel()
	r.wait.Wait()
}
