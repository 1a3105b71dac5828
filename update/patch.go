package update

import (
	"context"
	"encoding/hex"
	"fmt"

	"updater/bmap"
)

// Patched is an image that may be made, in part, out of another slot and a delta.
type Patched interface {
	Image
	// Patch opens the delta from the seed to the image whose accepted map has this checksum. It returns nil and no error if no delta exists.
	Patch(ctx context.Context, seed Seed, m *bmap.Map, checksum string) (Patch, error)
}

// Indexed is an image that may be made, in part, out of blocks that moved in another slot, without a delta.
type Indexed interface {
	Sparse
	// Moved returns the Patch that finds the blocks of an accepted map in the seed. It plans nothing if the image has no index. progress is
	// called from several goroutines with the bytes of the seed that were read since.
	Moved(seed Seed, m *bmap.Map, progress func(n int64)) Patch
}

// Patch makes ranges of an image. Nothing that it makes is trusted.
type Patch interface {
	// Plan is called once, before the first Range, with the indices of the ranges that are missing, ascending. It returns those of them
	// that the patch will make, none longer than [bmap.HeldRange]. check compares the bytes of a range with their signed checksum; it may be
	// called from several goroutines at a time.
	Plan(ctx context.Context, want []int, check func(index int, data []byte) bool) ([]int, PatchFetch, error)
	// Range returns the bytes of the next range that Plan returned, valid until the next call; nil if it could not be made.
	Range(ctx context.Context) []byte
	// Close ends the requests under way.
	Close() error
}

// PatchFetch describes the fetched part of a delta, or of an image whose index lists the blocks in the other slot.
type PatchFetch struct {
	Index    bool   `json:"index,omitempty"` // by the index, without a delta
	Bytes    int64  `json:"bytes"`           // of the delta, with its table
	Requests int    `json:"requests"`        // for them
	Whole    int64  `json:"whole"`           // bytes of the file
	Made     int64  `json:"made"`            // mapped bytes of the image that are made of it
	Spoiled  int64  `json:"spoiled"`         // mapped bytes that are not: the other slot has changed there, or a frame is too large
	Again    int64  `json:"again"`           // mapped bytes that were made wrong and fetched from the image; 0 in the plan
	Reason   string `json:"reason,omitempty"`
}

// patch is a Patch with the ranges that one part makes with it.
type patch struct {
	Patch
	made   map[int]bool
	data   []byte // of the range that is read next
	failed []int  // ranges that could not be made
}

// openPatches opens the delta of an image for its seed, and the index of the image. A failure is a warning.
func (p *part) openPatches(ctx context.Context, image Image, seed Seed) (all []*patch) {
	if seed == nil || p.reopen == nil {
		return nil
	}
	if patched, ok := image.(Patched); ok {
		opened, err := patched.Patch(ctx, seed, p.Map, p.Checksum)
		if err != nil {
			p.Warnings = append(p.Warnings, fmt.Sprintf("opening the delta of the image: %v; it is not used", err))
		}
		if opened != nil {
			all = append(all, &patch{Patch: opened, made: map[int]bool{}})
		}
	}
	if indexed, ok := image.(Indexed); ok {
		all = append(all, &patch{Patch: indexed.Moved(seed, p.Map, func(int64) { p.progress.move() }), made: map[int]bool{}})
	}
	return all
}

// plan chooses the ranges that are made.
func (h *patch) plan(ctx context.Context, m *bmap.Map, want []int) (PatchFetch, error) {
	made, fetch, err := h.Plan(ctx, want, func(i int, data []byte) bool {
		sum := m.NewHash()
		sum.Write(data)
		return hex.EncodeToString(sum.Sum(nil)) == m.Range(i).Checksum
	})
	for _, i := range made {
		h.made[i] = true
	}
	return fetch, err
}

// make makes a range for Read and reports whether it is right.
func (h *patch) make(ctx context.Context, i int) bool {
	if h.data = h.Range(ctx); h.data == nil {
		h.failed = append(h.failed, i)
	}
	return h.data != nil
}

// refetch writes the ranges that could not be made, from a second stream of the image. Their checksums are compared first.
func (p *part) refetch(ctx context.Context, failed []int) error {
	p.closeImage()
	var want []bmap.Span
	for _, i := range failed {
		rng := p.Map.Range(i)
		span := bmap.Span{Offset: rng.Offset, Length: rng.Length}
		p.late, want = append(p.late, Mismatch{Span: span, Index: i}), append(want, span)
		p.fetch.Delta.Again += rng.Length
		p.written += rng.Length
	}
	return p.inSlot(ReadBack{Map: p.Map, Sizes: p.Sizes}.rewrite(ctx, p.target, p.late, func(ctx context.Context) (ImageCloser, error) {
		image, err := p.reopen(ctx)
		sparse, ok := image.(Sparse)
		if err != nil || !ok {
			return image, err
		}
		plan, err := sparse.Plan(p.Map, want)
		p.fetch.Bytes += plan.Bytes
		p.fetch.Requests += plan.Requests
		if err != nil {
			_ = image.Close() // it was only read
		}
		return image, err
	}))
}
