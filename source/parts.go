package source

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/url"

	"updater/pack"
)

// What the planner takes a request to cost: the bytes that could have been fetched instead. A gap between two
// parts that is shorter is fetched along.
const requestCost = 64 << 10

// Plan says how the parts of an image that are wanted will be fetched.
type Plan struct {
	Parts    bool   // only parts of the file are fetched; else all of it, as a stream
	Bytes    int64  // of the file that the parts take, 0 when they are not known
	Requests int    // that the parts take
	Whole    int64  // bytes of the file
	Reason   string // why not parts, "" when it is parts
}

// part is a run of the file's bytes that one request fetches.
type part struct{ from, to int64 }

// choose plans the parts for what is wanted of the image: ascending, disjoint ranges. It returns the frames that the
// parts hold, in their order.
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

// Plan tells the image which ranges of it will be read, ascending and disjoint, before anything of it is read; all
// else will be skipped. A packed image on a server that serves ranges is then fetched in parts, when that is less
// than the whole. Reading what was not wanted is an error after that.
func (i *Image) Plan(want []pack.Range) (Plan, error) {
	if i.remote == nil || i.offset > 0 || i.err != nil {
		return Plan{Whole: i.size, Reason: "it is not on a server"}, i.err
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
	_ = i.closer.Close() // of the whole file
	i.release()
	i.in = &input{r: p.splice}
	br := bufio.NewReaderSize(i.in, bufferSize)
	dec, release, err := openZstd(br, i.limits)
	if err != nil {
		return plan, err
	}
	p.dec = dec
	i.dec, i.release, i.closer, i.size = p, release, p.splice, plan.Bytes
	return plan, nil
}

// remote is a zstd file on a server.
type remote struct {
	ctx context.Context
	c   *Client
	url *url.URL
	res *resource

	limit int // frames of a seek table
}

// plan reads the seek table and compares the parts with the whole file.
func (r *remote) plan(want []pack.Range) (Plan, *parts, error) {
	if !r.res.ranges || r.res.size < 0 {
		return Plan{Reason: "the server serves no ranges"}, nil, nil
	}
	frames, err := pack.ReadTable(&tail{r: r}, r.res.size, r.limit)
	if err != nil {
		if _, ok := errors.AsType[*FetchError](err); ok {
			return Plan{}, nil, err
		}
		return Plan{Reason: err.Error()}, nil, nil
	}
	chosen, held := choose(frames, want)
	p := Plan{Requests: len(chosen)}
	for _, c := range chosen {
		p.Bytes += c.to - c.from
	}
	if cost := p.Bytes + int64(p.Requests)*requestCost; cost >= r.res.size {
		p.Reason = "the parts are as much as the whole"
		return p, nil, nil
	}
	p.Parts = true
	var size int64
	if n := len(frames); n > 0 {
		size = frames[n-1].Offset + frames[n-1].Length
	}
	return p, &parts{frames: held, size: size, splice: &splice{r: r, parts: chosen}}, nil
}

// tailBytes is how much of the end of a file is fetched at once for the seek table: enough for 8000 frames.
const tailBytes = 64 << 10

// tail reads the end of a file, the last bytes with one request.
type tail struct {
	r    *remote
	last []byte
}

func (t *tail) ReadAt(p []byte, off int64) (int, error) {
	size := t.r.res.size
	from := max(0, size-tailBytes)
	if t.last == nil {
		last, err := t.fetch(from, size)
		if err != nil {
			return 0, err
		}
		t.last = last
	}
	if off >= from {
		return copy(p, t.last[off-from:]), nil
	}
	data, err := t.fetch(off, off+int64(len(p)))
	return copy(p, data), err
}

func (t *tail) fetch(from, to int64) ([]byte, error) {
	s := t.r.c.newStream(t.r.ctx, t.r.url, t.r.res, from, to)
	defer s.Close()
	data := make([]byte, to-from)
	_, err := io.ReadFull(s, data)
	return data, err
}

// splice reads the parts of a file one behind the other, as if nothing were between them.
type splice struct {
	r     *remote
	parts []part
	s     *stream // of the first part, nil before it
}

func (s *splice) Read(p []byte) (int, error) {
	for len(s.parts) > 0 {
		if s.s == nil {
			s.s = s.r.c.newStream(s.r.ctx, s.r.url, s.r.res, s.parts[0].from, s.parts[0].to)
		}
		n, err := s.s.Read(p)
		if err != io.EOF {
			return n, err
		}
		s.s, s.parts = nil, s.parts[1:]
		if n > 0 {
			return n, nil
		}
	}
	return 0, io.EOF
}

// Close ends the request under way.
func (s *splice) Close() error {
	if s.s == nil {
		return nil
	}
	return s.s.Close()
}

// parts reads an image of which only some frames are there.
type parts struct {
	splice *splice
	dec    io.Reader    // of the frames
	frames []pack.Frame // that are there and not passed, the first maybe in part
	at     int64        // in the image
	size   int64        // of the image
}

// Read implements io.Reader.
func (p *parts) Read(b []byte) (int, error) {
	if p.at == p.size {
		return 0, io.EOF
	}
	if len(p.frames) == 0 || p.at < p.frames[0].Offset {
		return 0, errors.New("this part of the image was not planned for, and was not fetched")
	}
	n, err := p.dec.Read(b[:min(int64(len(b)), p.left())])
	p.move(int64(n))
	return n, noEOF(err)
}

// left is how many bytes of the first frame are not passed.
func (p *parts) left() int64 { return p.frames[0].Offset + p.frames[0].Length - p.at }

func (p *parts) move(n int64) {
	p.at += n
	if len(p.frames) > 0 && p.left() == 0 {
		p.frames = p.frames[1:]
	}
}

// Skip moves on through what is there and past what is not.
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

// discard drops bytes of the first frame, and does not decode it when that is all of it.
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
