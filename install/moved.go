package install

import (
	"context"
	"io"

	"updater/bmap"
	"updater/pack"
	"updater/source"
	"updater/update"
)

// moved makes ranges out of blocks of the seed, which the image's index of blocks finds, and out of the frames with other blocks. It
// implements update.Patch.
type moved struct {
	image  patched
	seed   update.Seed
	ranges []pack.Range
	costs  []int64 // of each range, in bytes of the image's file

	progress func(n int64)

	frames []pack.Frame
	index  *pack.Index
	check  func(index int, data []byte) bool
	parts  *source.Image // of the frames to fetch; nil where none are
	made   []int         // ranges to return
	data   []byte
	budget int64 // bytes that may be fetched in vain
}

// Moved implements update.Indexed.
func (s sparse) Moved(seed update.Seed, m *bmap.Map, progress func(n int64)) update.Patch {
	s.LimitFrames(pack.Frames(m.ImageSize(), m.Len()))
	return &moved{image: s.patched, seed: seed, ranges: PackRanges(m), progress: progress}
}

// Plan implements update.Patch. The index is read if it costs at most a quarter of the ranges that it is for.
func (p *moved) Plan(ctx context.Context, want []int, check func(index int, data []byte) bool) ([]int, update.PatchFetch, error) {
	fetch := update.PatchFetch{Index: true}
	_, fetch.Whole = p.image.Consumed()
	if p.costs = p.image.Costs(p.ranges); p.costs == nil {
		return nil, fetch, nil
	}
	var made []int
	var cost int64
	for _, i := range want {
		if p.ranges[i].Length <= bmap.HeldRange {
			made = append(made, i)
			cost += p.costs[i]
		}
	}
	var err error
	if p.frames, p.index, err = p.image.Index(p.ranges, cost/4); err != nil || p.index == nil {
		return nil, fetch, p.without(ctx, err)
	}
	size := pack.IndexSize(p.frames, p.ranges)
	p.image.from.limitMemory("delta", source.Limits{ZstdWindow: 4 * size})
	if err := p.index.Find(ctx, p.seed, p.seed.Size(), made, p.progress); err != nil {
		return nil, fetch, err
	}
	var need []pack.Range
	for _, i := range made {
		for _, piece := range p.index.Pieces(p.frames, i) {
			if piece.From < 0 {
				need = append(need, pack.Range{Offset: piece.Offset, Length: piece.Length})
			}
		}
		fetch.Made += p.ranges[i].Length
	}
	img, plan, err := p.image.Parts(need)
	p.parts = img
	if img == nil || plan.Cost() >= cost {
		fetch.Made = 0
		return nil, fetch, p.without(ctx, err)
	}
	p.made, p.check, p.budget = made, check, fetch.Whole/maxWaste
	fetch.Bytes, fetch.Requests = size+plan.Bytes, 1+plan.Requests
	return made, fetch, nil
}

// without returns the cause of a cancelled context: without an index the image is fetched.
func (p *moved) without(ctx context.Context, err error) error {
	if err != nil && ctx.Err() == nil {
		p.image.from.in.Warn("%v; the index is not used", err)
	}
	return context.Cause(ctx)
}

// Range implements update.Patch.
func (p *moved) Range(context.Context) []byte {
	i := p.made[0]
	p.made = p.made[1:]
	if p.budget < 0 {
		return nil
	}
	err := p.read(i)
	if err == nil && p.check(i, p.data) {
		return p.data
	}
	p.budget -= p.costs[i] + 1
	return nil
}

// read reads the pieces of a range. Bytes that are missing afterwards are fetched from the image.
func (p *moved) read(i int) error {
	r := p.ranges[i]
	if int64(cap(p.data)) < r.Length {
		p.data = make([]byte, r.Length)
	}
	p.data = p.data[:r.Length]
	for _, piece := range p.index.Pieces(p.frames, i) {
		data := p.data[piece.Offset-r.Offset:][:piece.Length]
		if piece.From >= 0 {
			if n, err := p.seed.ReadAt(data, piece.From); n < len(data) {
				return err
			}
			continue
		}
		if err := p.parts.Skip(piece.Offset - p.parts.Offset()); err != nil {
			return err
		}
		if _, err := io.ReadFull(p.parts, data); err != nil {
			p.budget = -1 // no later piece can be fetched either
			return err
		}
	}
	return nil
}

// Close implements update.Patch.
func (p *moved) Close() error {
	if p.parts == nil {
		return nil
	}
	return p.parts.Close()
}
