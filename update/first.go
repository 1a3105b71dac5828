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
	p.held = p.newHeld(p.Rewrite)
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
			p.image, err = p.fetchFirst(ctx, p.image, i, rng)
			return true, err
		}
	}
	p.want = func(context.Context, int, bmap.Range) (bool, error) { return false, nil }
	return false, nil
}

// prepareDelta is prepare for an image of which only some ranges are read. If a delta makes the first one wrong, the image must have it.
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
		d.image, err = p.fetchFirst(ctx, image, i, p.Map.Range(i))
		return true, err
	}
	if rng := p.Map.Range(i); d.patch.make(ctx, i) {
		err = p.judge(rng, d.patch.data)
	} else {
		d.patch.data, err = p.checkOther(ctx, i, rng)
		d.patch.failed = nil
		p.fetch.Delta.Again += rng.Length
	}
	p.want = func(ctx context.Context, index int, rng bmap.Range) (bool, error) {
		if index == i { // it is there already
			return true, nil
		}
		return want(ctx, index, rng)
	}
	return true, err
}

// checkedRange is the longest range that is compared before the slot is marked bad.
const checkedRange = 64 << 20

// fetchFirst reads a range of an image that is at its beginning, and compares it with its signed checksum. The returned image hands the bytes
// out again. A range longer than Held is compared in a second stream; without one, at least its beginning has to be there.
func (p *part) fetchFirst(ctx context.Context, image Image, index int, rng bmap.Range) (Image, error) {
	n := rng.Length
	if n > p.Held {
		if n <= checkedRange && p.reopen != nil {
			_, err := p.checkOther(ctx, index, rng)
			return image, err
		}
		n = p.Held
	}
	first, err := p.readFirst(image, index, rng, n)
	return &begun{Image: image, skip: rng.Offset, first: first}, err
}

// checkOther compares a range of a second stream of the image with its signed checksum, and returns its beginning.
func (p *part) checkOther(ctx context.Context, index int, rng bmap.Range) ([]byte, error) {
	other, err := p.reopen(ctx)
	if err != nil {
		return nil, &SourceError{Err: err}
	}
	defer other.Close()
	p.progress.reads(other)
	defer p.progress.reads(p.image)
	if sparse, ok := other.(Sparse); ok {
		plan, err := sparse.Plan(p.Map, []bmap.Span{{Offset: rng.Offset, Length: rng.Length}})
		if err != nil {
			return nil, &SourceError{Err: err}
		}
		if p.fetch != nil {
			p.fetch.Bytes += plan.Bytes
			p.fetch.Requests += plan.Requests
		}
	}
	return p.readFirst(other, index, rng, rng.Length)
}

// readFirst reads n bytes of a range of an image that is at its beginning, and returns the first of them. A range read whole is compared.
func (p *part) readFirst(image Image, index int, rng bmap.Range, n int64) ([]byte, error) {
	if err := image.Skip(rng.Offset); err != nil {
		return nil, &SourceError{Err: err}
	}
	first := make([]byte, min(n, bmap.HeldRange)) // a range that a patch should have made is shorter
	read, err := io.ReadFull(image, first)
	got, sum := int64(read), p.Map.NewHash()
	if err == nil {
		sum.Write(first)
		var more int64
		more, err = io.CopyN(sum, image, n-got)
		got += more
	}
	if err != nil {
		return nil, &SourceError{Offset: rng.Offset + got, Err: endsEarly(err, p.Map)}
	}
	if n == rng.Length {
		if err := compare(sum, p.Map, index, rng); err != nil {
			return nil, &ImageError{Err: err}
		}
	}
	return first, p.judge(rng, first)
}

// judge lets the target refuse an image by a range at its beginning.
func (p *part) judge(rng bmap.Range, first []byte) error {
	if judge, ok := p.target.(Judge); ok && rng.Offset == 0 {
		if err := judge.CheckImage(first, p.Map.ImageSize()); err != nil {
			return &IncompatibleError{Reason: "the image of " + p.role + " is " + err.Error()}
		}
	}
	return nil
}

// begun is an image of which some bytes were read before: skip bytes at its beginning were skipped, and first follows them.
type begun struct {
	Image
	skip  int64
	first []byte
}

// Read implements io.Reader.
func (b *begun) Read(p []byte) (int, error) {
	if len(b.first) == 0 {
		b.first = nil // frees its memory
		return b.Image.Read(p)
	}
	n := copy(p, b.first)
	b.first = b.first[n:]
	return n, nil
}

// Skip implements Image. Nothing of first is skipped: it belongs to a wanted range.
func (b *begun) Skip(n int64) error {
	passed := min(n, b.skip)
	b.skip -= passed
	return b.Image.Skip(n - passed)
}
