package update

import (
	"context"
	"io"

	"updater/bmap"
)

// prepare decides where each range of the image comes from, then fetches and checks the first one that is missing: a server that has only
// the genuine documents ends the install here. It reports whether one was missing. Calling it again does nothing.
func (p *part) prepare(ctx context.Context) (missing bool, err error) {
	if p.held != nil {
		return false, nil
	}
	p.held = newHeld(p.Map, p.target, p.Rewrite, p.progress.move)
	p.progress.reads(p.image)
	_, isSparse := p.image.(Sparse)
	_, isPatched := p.image.(Patched)
	if (isSparse || isPatched) && !p.Rewrite {
		return p.prepareDelta(ctx)
	}
	lacks := p.held.lacks
	for i, rng := range p.Map.Ranges() {
		lacked, err := lacks(ctx, i, rng)
		if err != nil {
			return false, err
		}
		if lacked {
			p.want = func(ctx context.Context, index int, rng bmap.Range) (bool, error) {
				if index <= i { // was compared already
					return index == i, nil
				}
				return lacks(ctx, index, rng)
			}
			p.image, err = p.fetchFirst(p.image, i, rng)
			return true, err
		}
	}
	p.want = func(context.Context, int, bmap.Range) (bool, error) { return false, nil }
	return false, nil
}

// prepareDelta is prepare for an image of which only some ranges are read. Where a delta makes the first one, but wrongly, it is the image that
// must have it.
func (p *part) prepareDelta(ctx context.Context) (missing bool, err error) {
	d, want, err := p.planFetch(ctx, p.image)
	if err != nil {
		return false, err
	}
	image := p.image
	p.image, p.want, p.closeSeed, p.unmade = d, want, d.close, d.failed
	i := 0
	for i < len(d.from) && (!d.lacks[i] || d.from[i] >= 0) {
		i++
	}
	switch {
	case i == len(d.from):
		return false, nil
	case d.from[i] == fetched:
		d.image, err = p.fetchFirst(image, i, p.Map.Range(i))
		return true, err
	}
	right := d.patch.make(ctx, i)
	p.want = func(ctx context.Context, index int, rng bmap.Range) (bool, error) {
		if index == i { // it is made already
			return right, nil
		}
		return want(ctx, index, rng)
	}
	if right {
		return true, nil
	}
	again, err := p.reopen(ctx)
	if err != nil {
		return true, &SourceError{Err: err}
	}
	defer again.Close()
	if sparse, ok := again.(Sparse); ok {
		rng := p.Map.Range(i)
		if _, err := sparse.Plan(p.Map, []bmap.Span{{Offset: rng.Offset, Length: rng.Length}}); err != nil {
			return true, &SourceError{Err: err}
		}
	}
	_, err = p.fetchFirst(again, i, p.Map.Range(i))
	return true, err
}

// fetchFirst reads a range of an image that is at its beginning, and compares it with its signed checksum. Of a longer one than heldRange
// only so much is read, and not compared. The returned image hands these bytes out again.
func (p *part) fetchFirst(image Image, index int, rng bmap.Range) (Image, error) {
	if err := image.Skip(rng.Offset); err != nil {
		return nil, &SourceError{Err: err}
	}
	first := make([]byte, min(rng.Length, heldRange))
	if n, err := io.ReadFull(image, first); err != nil {
		return nil, &SourceError{Offset: rng.Offset + int64(n), Err: endsEarly(err, p.Map)}
	}
	if rng.Length <= heldRange {
		sum := p.Map.NewHash()
		sum.Write(first)
		if err := compare(sum, p.Map, index, rng); err != nil {
			return nil, &ImageError{Err: err}
		}
	}
	if judge, ok := p.target.(Judge); ok && rng.Offset == 0 {
		if err := judge.CheckImage(first, p.Map.ImageSize()); err != nil {
			return nil, &IncompatibleError{Reason: "the image of " + p.role + " is " + err.Error()}
		}
	}
	return &begun{Image: image, skip: rng.Offset, first: first}, nil
}

// begun is an image of which some bytes were read before: skip bytes at its beginning were skipped, first follows them.
type begun struct {
	Image
	skip  int64
	first []byte
}

// Read implements io.Reader.
func (b *begun) Read(p []byte) (int, error) {
	if len(b.first) == 0 {
		b.first = nil // its memory
		return b.Image.Read(p)
	}
	n := copy(p, b.first)
	b.first = b.first[n:]
	return n, nil
}

// Skip implements Image.
func (b *begun) Skip(n int64) error {
	passed := min(n, b.skip)
	b.skip -= passed
	n -= passed
	held := min(n, int64(len(b.first)))
	b.first = b.first[held:]
	return b.Image.Skip(n - held)
}
