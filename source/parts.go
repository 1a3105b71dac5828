package source

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/url"
	"sync"

	"updater/pack"
)

// requestCost is the cost of a request, as the number of bytes that could be fetched instead. Shorter gaps between two parts are
// fetched as well. Four requests of a link of 2 MB/s, 50 ms away, cost 25 KB each.
const requestCost = 16 << 10

// Plan describes how the wanted ranges of an image are fetched.
type Plan struct {
	Parts    bool   // only parts of the file are fetched, not the whole file
	Bytes    int64  // length of the parts; 0 if unknown
	Requests int    // number of parts
	Whole    int64  // length of the file; -1 if unknown
	Reason   string // why the whole file is fetched; "" if Parts is set
}

// Cost is the cost of the parts in bytes: a request counts as some.
func (p Plan) Cost() int64 { return p.Bytes + int64(p.Requests)*requestCost }

// part is a range of the file that one request fetches; to is exclusive.
type part struct{ from, to int64 }

// choose returns the parts of the file for ascending, disjoint ranges of the image, and the frames within the parts.
func choose(frames []pack.Frame, want []pack.Range) (parts []part, held []pack.Frame) {
	i := 0
	for _, w := range want {
		for i < len(frames) && frames[i].Offset+frames[i].Length <= w.Offset {
			i++
		}
		for ; i < len(frames) && frames[i].Offset < w.Offset+w.Length; i++ {
			f := frames[i]
			if f.Length == 0 {
				continue
			}
			if n := len(parts); n > 0 && f.At-parts[n-1].to <= requestCost {
				parts[n-1].to = f.At + f.Packed
			} else {
				parts = append(parts, part{f.At, f.At + f.Packed})
			}
		}
	}
	n := 0
	for _, f := range frames {
		for n < len(parts) && parts[n].to <= f.At {
			n++
		}
		if n < len(parts) && f.At >= parts[n].from && f.Length > 0 {
			held = append(held, f)
		}
	}
	return parts, held
}

// LimitFrames bounds the seek table that [Image.Plan] reads, now that the signed map is known: see [pack.Frames]. It raises no limit.
func (i *Image) LimitFrames(n int) {
	if i.remote != nil {
		i.remote.limit = min(i.remote.limit, n)
	}
}

// Plan announces which ranges of the image will be read: ascending, disjoint, and before the first Read; the caller skips all other
// bytes. If the image is packed or raw, on a server with ranges, and parts are cheaper than the whole file, only parts are fetched from
// then on, and reading other bytes of a packed one is an error. Errors: [FetchError].
func (i *Image) Plan(want []pack.Range) (Plan, error) {
	if i.res != nil && i.jump != nil && i.offset == 0 && i.err == nil && i.res.ranges && !i.res.whole {
		return i.planRaw(want), nil
	}
	if i.remote == nil || i.offset > 0 || i.err != nil {
		return Plan{Whole: i.size, Reason: "the image is not a zstd file on an HTTP server"}, i.err
	}
	plan, p, err := i.remote.plan(want)
	if err != nil {
		i.err = err
		return plan, err
	}
	plan.Whole = i.size
	if !plan.Parts {
		return plan, nil
	}
	_ = i.closer.Close() // the stream of the whole file
	i.release()
	i.size = plan.Bytes
	return plan, i.read(p)
}

// read makes the image read parts.
func (i *Image) read(p *parts) (err error) {
	i.in = &input{r: p.splice}
	p.dec, i.release, err = openZstd(bufio.NewReaderSize(i.in, bufferSize), i.limits)
	i.dec, i.closer, i.sniffed = p, p.splice, true
	return err
}

// Parts returns another image of the same packed file that reads parts, as after Plan; nil if they cost as much as the whole file or cannot be
// fetched. The caller closes it.
func (i *Image) Parts(want []pack.Range) (*Image, Plan, error) {
	if i.remote == nil || i.err != nil {
		return nil, Plan{}, i.err
	}
	plan, p, err := i.remote.plan(want)
	if err != nil || p == nil {
		return nil, plan, err
	}
	plan.Whole = i.size
	other := &Image{name: i.name, codec: i.codec, limits: i.limits, res: i.res, size: plan.Bytes}
	return other, plan, other.read(p)
}

// Index returns the frames of a packed image for which Costs has answered, and reads its index of blocks, of at most that many bytes; nil
// without one. Errors: [FetchError], and those of pack.ReadIndex.
func (i *Image) Index(all []pack.Range, most int64) ([]pack.Frame, *pack.Index, error) {
	frames := i.remote.frames
	if size := pack.IndexSize(frames, all); size == 0 || size > most {
		return nil, nil, nil
	}
	index, err := pack.ReadIndex(&ranges{ctx: i.remote.ctx, c: i.remote.c, url: i.remote.url, res: *i.remote.res}, frames, all)
	return frames, index, err
}

// Costs returns, for each of ascending, disjoint ranges of a packed image, how many bytes of the file only this range needs. It is called before
// Plan, reads the seek table, and returns nil for other images and if parts cannot be fetched; Plan then has the reason.
func (i *Image) Costs(ranges []pack.Range) []int64 {
	if i.remote == nil || i.offset > 0 || i.err != nil || i.remote.readTable() != nil {
		return nil
	}
	costs, frames := make([]int64, len(ranges)), i.remote.frames
	for n, r := range ranges {
		for len(frames) > 0 && frames[0].Offset < r.Offset {
			frames = frames[1:]
		}
		for ; len(frames) > 0 && frames[0].Offset+frames[0].Length <= r.Offset+r.Length; frames = frames[1:] {
			if frames[0].Length > 0 { // not the index
				costs[n] += frames[0].Packed
			}
		}
	}
	return costs
}

// planRaw describes how a raw image is fetched whose long gaps are skipped.
func (i *Image) planRaw(want []pack.Range) Plan {
	p := Plan{Parts: true, Whole: i.size}
	var end int64
	for _, w := range want {
		if gap := w.Offset - end; p.Requests > 0 && gap < jumpAtLeast {
			p.Bytes += gap
		} else {
			p.Requests++
		}
		p.Bytes += w.Length
		end = w.Offset + w.Length
	}
	if p.Cost() >= i.size {
		return Plan{Whole: i.size, Bytes: p.Bytes, Requests: p.Requests, Reason: "the parts cost as much as the whole file"}
	}
	return p
}

// remote is a zstd file on a server.
type remote struct {
	ctx context.Context
	c   *Client
	url *url.URL
	res *resource

	limit  int          // frames of a seek table
	frames []pack.Frame // see readTable
	err    error
}

// readTable reads the seek table, once.
func (r *remote) readTable() error {
	if r.frames == nil && r.err == nil {
		r.frames, r.err = pack.ReadTable(&tail{r: r}, r.res.size, r.limit)
	}
	return r.err
}

// plan reads the seek table and compares the cost of the parts with that of the whole file.
func (r *remote) plan(want []pack.Range) (Plan, *parts, error) {
	if !r.res.ranges || r.res.whole || r.res.size < 0 {
		return Plan{Reason: errNoRanges.Error()}, nil, nil
	}
	if err := r.readTable(); err != nil {
		e, isFetch := errors.AsType[*FetchError](err)
		switch {
		case !isFetch:
			return Plan{Reason: err.Error()}, nil, nil
		case isFinal(e.Err) && r.ctx.Err() == nil:
			return Plan{Reason: e.Err.Error()}, nil, nil
		}
		return Plan{}, nil, err
	}
	frames := r.frames
	chosen, held := choose(frames, want)
	p := Plan{Requests: len(chosen)}
	for _, c := range chosen {
		p.Bytes += c.to - c.from
	}
	if p.Cost() >= r.res.size {
		p.Reason = "the parts cost as much as the whole file"
		return p, nil, nil
	}
	p.Parts = true
	var size int64
	if n := len(frames); n > 0 {
		size = frames[n-1].Offset + frames[n-1].Length
	}
	return p, &parts{frames: held, size: size, splice: r.newSplice(chosen)}, nil
}

// tailBytes is the length of the first request for a seek table: enough for 8000 frames.
const tailBytes = 64 << 10

// tail reads the end of a file. It fetches the last tailBytes once.
type tail struct {
	r    *remote
	last []byte
}

func (t *tail) ReadAt(p []byte, off int64) (int, error) {
	size := t.r.res.size
	from := max(0, size-tailBytes)
	if t.last == nil {
		last, err := t.r.fetch(t.r.ctx, t.r.res, part{from, size})
		if err != nil {
			return 0, err
		}
		t.last = last
	}
	if off >= from {
		return copy(p, t.last[off-from:]), nil
	}
	data, err := t.r.fetch(t.r.ctx, t.r.res, part{off, off + int64(len(p))})
	return copy(p, data), err
}

// fetch fetches a part in one request, or in as many as a broken link needs.
func (r *remote) fetch(ctx context.Context, res *resource, p part) ([]byte, error) {
	s := r.c.newStream(ctx, r.url, res, p.from, p.to)
	s.parts = true
	defer s.Close()
	data := make([]byte, p.to-p.from)
	_, err := io.ReadFull(s, data)
	return data, err
}

const (
	// shortPart is the longest part that is fetched ahead of Read; a longer one is a stream.
	shortPart = 256 << 10
	// aheadParts is how many parts are fetched at a time.
	aheadParts = 4
)

// splice reads the parts of a file as if they were adjacent. Short ones are fetched several at a time.
type splice struct {
	r      *remote
	parts  []part     // that are not passed
	ahead  []*partial // of the first parts; nil is a stream
	s      *stream    // of parts that are not fetched ahead; nil before the first
	ctx    context.Context
	cancel context.CancelFunc
	wait   sync.WaitGroup
}

func (r *remote) newSplice(chosen []part) *splice {
	s := &splice{r: r, parts: chosen}
	s.ctx, s.cancel = context.WithCancel(r.ctx)
	return s
}

// partial is a part under way.
type partial struct {
	done chan struct{}
	res  resource
	data []byte
	err  error
}

// fill begins to fetch the first parts.
func (s *splice) fill() {
	for n := len(s.ahead); n < min(len(s.parts), aheadParts); n++ {
		s.ahead = append(s.ahead, nil)
		if p := s.parts[n]; p.to-p.from <= shortPart && !s.r.res.whole {
			f := &partial{done: make(chan struct{}), res: *s.r.res}
			s.ahead[n] = f
			s.wait.Go(func() {
				defer close(f.done)
				f.data, f.err = s.r.fetch(s.ctx, &f.res, p)
			})
		}
	}
}

// Read implements io.Reader. Parts that cannot be fetched ahead, as from a server that no longer serves ranges, are read from a stream.
func (s *splice) Read(p []byte) (int, error) {
	for len(s.parts) > 0 {
		s.fill()
		f := s.ahead[0]
		if f == nil {
			if n, err := s.stream(p); n > 0 || err != nil {
				return n, noEOF(err)
			}
			s.pass()
			continue
		}
		<-f.done
		if f.res.changed {
			s.r.res.changed, s.r.res.noIfRange = true, true
		}
		if e, ok := errors.AsType[*FetchError](f.err); ok && isFinal(e.Err) && s.ctx.Err() == nil {
			s.ahead[0] = nil
			continue
		}
		if f.err != nil {
			return 0, noEOF(f.err)
		}
		if n := copy(p, f.data); n > 0 {
			f.data = f.data[n:]
			return n, nil
		}
		s.pass()
	}
	return 0, io.EOF
}

func (s *splice) pass() { s.parts, s.ahead = s.parts[1:], s.ahead[1:] }

// stream reads the first part from the stream. It returns nothing at its end.
func (s *splice) stream(p []byte) (int, error) {
	first := s.parts[0]
	switch {
	case s.s == nil:
		s.s = s.r.c.newStream(s.ctx, s.r.url, s.r.res, first.from, first.to)
	case s.s.next < first.from:
		s.s.move(first.from, first.to)
	case s.s.next == first.to:
		return 0, nil
	}
	return s.s.Read(p)
}

// Close ends the requests under way.
func (s *splice) Close() error {
	s.cancel()
	s.wait.Wait()
	if s.s == nil {
		return nil
	}
	return s.s.Close()
}

// parts reads an image of which only some frames are fetched.
type parts struct {
	splice *splice
	dec    io.Reader    // decodes the frames
	frames []pack.Frame // fetched and not passed; the first may be passed in part
	at     int64        // offset in the image
	size   int64        // of the image, in bytes
}

// Read implements io.Reader.
func (p *parts) Read(b []byte) (int, error) {
	if p.at == p.size {
		return 0, io.EOF
	}
	if len(p.frames) == 0 || p.at < p.frames[0].Offset {
		return 0, errors.New("internal error: reading a range of the image that was not planned")
	}
	n, err := p.dec.Read(b[:min(int64(len(b)), p.left())])
	p.move(int64(n))
	return n, noEOF(err)
}

// left returns how many bytes of the first frame are not passed.
func (p *parts) left() int64 { return p.frames[0].Offset + p.frames[0].Length - p.at }

func (p *parts) move(n int64) {
	p.at += n
	if len(p.frames) > 0 && p.left() == 0 {
		p.frames = p.frames[1:]
	}
}

// Skip skips n bytes, fetched or not.
func (p *parts) Skip(n int64) (passed int64, err error) {
	n = min(n, p.size-p.at)
	for passed < n {
		step := n - passed
		switch {
		case len(p.frames) == 0:
			p.at += step
		case p.at < p.frames[0].Offset:
			step = min(step, p.frames[0].Offset-p.at)
			p.at += step
		default:
			if step = min(step, p.left()); step > 0 {
				if err := p.discard(step); err != nil {
					return passed, err
				}
			}
			p.move(step)
		}
		passed += step
	}
	return passed, nil
}

// discard drops bytes of the first frame. It does not decode a frame that is dropped whole.
func (p *parts) discard(n int64) error {
	if z, ok := p.dec.(*zstdFile); ok {
		passed, err := z.Skip(n)
		if err != nil {
			return noEOF(err)
		}
		n -= passed
	}
	_, err := io.CopyN(io.Discard, p.dec, n)
	return noEOF(err)
}
