package update

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"updater/bmap"
)

// Sparse is an image whose parts can be fetched separately, as from a server.
type Sparse interface {
	Image
	// Plan is called once, before the first Read, with the spans that will be read, ascending and disjoint; everything else will be
	// skipped. It returns how they will be fetched. m is the accepted map of the image, which bounds what a table in it may claim.
	Plan(m *bmap.Map, want []bmap.Span) (Fetch, error)
}

// Fetch describes how an image is fetched, as decided before its first byte.
type Fetch struct {
	Parts    bool   `json:"parts"`            // only parts of the file; otherwise all of it as a stream
	Bytes    int64  `json:"bytes"`            // of the file in the parts, 0 if unknown
	Requests int    `json:"requests"`         // for the parts
	Whole    int64  `json:"whole"`            // bytes of the file
	Reason   string `json:"reason,omitempty"` // for not fetching parts
	// Mapped bytes of the image that the slot already holds, and those that are copied from the other slot.
	Held   int64 `json:"held"`
	Copied int64 `json:"copied"`
	Saved  int64 `json:"saved"` // bytes of the file that are not fetched, less those of the delta
	// Delta describes the ranges made out of the other slot with a delta, or with the index of the image; nil without one.
	Delta *PatchFetch `json:"delta,omitempty"`
}

// save sets Saved.
func (f *Fetch) save() {
	if f.Saved = 0; f.Parts {
		f.Saved = f.Whole - f.Bytes
	}
	if f.Delta != nil {
		f.Saved -= f.Delta.Bytes
	}
	f.Saved = max(f.Saved, 0)
}

// Seed is the same partition of another slot, to copy from. ReadAt is called from several goroutines at a time.
type Seed interface {
	io.ReaderAt
	io.Closer
	Size() int64 // bytes
	Map() string // hex sha256 of the signed map that it was installed by, "" if that is unknown
}

// seedBudget is how many bytes of the other slot are read without finding a range before the search is given up; see Sizes.Budget.
const seedBudget = 64 << 20

// planFetch decides the source of every range before anything is fetched: the target if it holds the range, else the other slot, at
// the same place or another one, else a delta against the other slot, else blocks that moved in it, else the image itself. The returned
// image reads each range from its source. Every range is compared with its signed checksum, whatever its source.
func (p *part) planFetch(ctx context.Context, image Image) (*delta, selection, error) {
	p.phaseOf(PhasePlan, p.Map.MappedBytes())
	lacks := make([]bool, p.Map.Len())
	for i, rng := range p.Map.Ranges() {
		var err error
		if lacks[i], err = p.held.lacks(ctx, i, rng); err != nil {
			return nil, nil, err
		}
	}
	d := &delta{Sizes: p.Sizes, image: image, m: p.Map, lacks: lacks, from: make([]int64, p.Map.Len())}
	if p.Seed != nil {
		var err error
		if d.seed, err = p.Seed(p.Slot, p.role); err != nil {
			p.Warnings = append(p.Warnings, fmt.Sprintf("opening another slot to copy from: %v; everything is fetched", err))
		}
	}
	if err := d.find(ctx, lacks, p.progress); err != nil {
		d.close()
		return nil, nil, err
	}
	var err error
	if p.fetch, err = d.plan(ctx, p.openPatches(ctx, image, d.seed), lacks); err != nil {
		d.close()
		return nil, nil, err
	}
	p.fetch.Held = p.held.equal.Load()
	p.fetch.save()
	p.progress.plan(*p.fetch)
	return d, func(ctx context.Context, i int, _ bmap.Range) (bool, error) {
		return lacks[i] && (d.from[i] != made || d.patch.make(ctx, i)), nil
	}, nil
}

// plan divides the missing ranges between the first patch that makes any of them and the image.
func (d *delta) plan(ctx context.Context, patches []*patch, lacks []bool) (*Fetch, error) {
	fetch := new(Fetch)
	var want []int
	for i, rng := range d.m.Ranges() {
		if lacks[i] && d.from[i] >= 0 {
			fetch.Copied += rng.Length
		} else if lacks[i] {
			want = append(want, i)
		}
	}
	if err := d.choose(ctx, patches, want, fetch); err != nil {
		return nil, err
	}
	h := d.patch
	var spans []bmap.Span
	for _, i := range want {
		if h != nil && h.made[i] {
			d.from[i] = made
			continue
		}
		spans = append(spans, bmap.Span{Offset: d.m.Range(i).Offset, Length: d.m.Range(i).Length})
	}
	d.unread = h != nil && len(spans) == 0
	sparse, ok := d.image.(Sparse)
	if !ok {
		fetch.Parts = true
		return fetch, nil
	}
	plan, err := sparse.Plan(d.m, spans)
	if err != nil {
		return nil, &SourceError{Err: err}
	}
	plan.Copied, plan.Delta = fetch.Copied, fetch.Delta
	if h != nil && !plan.Parts {
		d.decide(&plan)
	}
	return &plan, nil
}

// choose plans with the patches until one of them makes anything.
func (d *delta) choose(ctx context.Context, patches []*patch, want []int, fetch *Fetch) error {
	for _, h := range patches {
		of, err := h.plan(ctx, d.m, want)
		if of.Made == 0 && of.Index {
			_ = h.Close() // it was only read
		} else {
			d.closePatch()
			d.patch, fetch.Delta = h, &of
		}
		if err != nil || of.Made > 0 {
			return err
		}
	}
	return nil
}

// decide chooses between the delta and a file that can be fetched only whole. If a part of the file is needed, all of it comes anyway, and a
// delta of more than a twentieth would cost too much if it turned out wrong.
func (d *delta) decide(plan *Fetch) {
	if d.unread && plan.Delta.Bytes <= plan.Whole/20 {
		plan.Parts, plan.Reason = true, ""
		return
	}
	for i, from := range d.from {
		if from == made {
			d.from[i] = fetched
		}
	}
	d.unread = false
	plan.Delta.Reason, plan.Delta.Made = "the image is fetched whole", 0
}

// The ranges that are not copied, in delta.from.
const (
	fetched = -1
	made    = -2 // by the patch
)

// delta is an image some of whose ranges come from the other slot.
type delta struct {
	Sizes
	image Image
	m     *bmap.Map
	seed  Seed    // nil if there is no other slot
	patch *patch  // nil if there is no delta
	lacks []bool  // of each range: the target does not hold it
	from  []int64 // offset of each range in the other slot, or fetched or made
	at    int64
	index int // the first range that does not end before at

	unread bool  // nothing is read from image
	lag    int64 // bytes by which image is behind at
}

// find searches the other slot for missing ranges: it is divided like the image, each part is hashed, on all cores, and looked up by
// its checksum.
func (d *delta) find(ctx context.Context, lacks []bool, progress *Progress) error {
	for i := range d.from {
		d.from[i] = fetched
	}
	if d.seed == nil {
		return nil
	}
	wanted := map[string][]int{}
	for i, rng := range d.m.Ranges() {
		if lacks[i] {
			wanted[rng.Checksum] = append(wanted[rng.Checksum], i)
		}
	}
	sums, err := d.hashSeed(ctx, wanted, progress)
	if err != nil {
		return err
	}
	for i, rng := range d.m.Ranges() {
		for _, w := range wanted[sums[i]] {
			d.from[w] = rng.Offset
		}
	}
	return nil
}

// hashSeed returns the checksum of the other slot's bytes at the place of each range, "" beyond the budget.
func (d *delta) hashSeed(ctx context.Context, wanted map[string][]int, progress *Progress) ([]string, error) {
	var next, vain atomic.Int64
	sums := make([]string, d.m.Len())
	group, ctx := errgroup.WithContext(ctx)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			buf := make([]byte, d.Chunk)
			for vain.Load() <= seedBudget {
				i := int(next.Add(1) - 1)
				if i >= d.m.Len() {
					return nil
				}
				if err := cancelled(ctx); err != nil {
					return err
				}
				rng := d.m.Range(i)
				sums[i] = d.hash(rng, buf)
				if _, ok := wanted[sums[i]]; ok {
					vain.Add(-rng.Length)
				} else {
					vain.Add(rng.Length)
				}
				progress.add(rng.Length)
			}
			return nil
		})
	}
	return sums, group.Wait()
}

// hash is the checksum of the other slot's bytes at the place of a range, "" if they cannot be read.
func (d *delta) hash(rng bmap.Range, buf []byte) string {
	if rng.Length > d.Held || rng.Offset+rng.Length > d.seed.Size() {
		return ""
	}
	sum := d.m.NewHash()
	for off, end := rng.Offset, rng.Offset+rng.Length; off < end; {
		p := buf[:min(int64(len(buf)), end-off)]
		if n, _ := d.seed.ReadAt(p, off); n < len(p) {
			return ""
		}
		sum.Write(p)
		off += int64(len(p))
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// Read implements io.Reader. One call asks for bytes of one range.
func (d *delta) Read(p []byte) (n int, err error) {
	rng := d.m.Range(d.index)
	for ; d.at >= rng.Offset+rng.Length; rng = d.m.Range(d.index) {
		d.index++
	}
	switch from := d.from[d.index]; from {
	case fetched:
		if err := d.catchUp(); err != nil {
			return 0, err
		}
		n, err = d.image.Read(p)
		d.at += int64(n)
		return n, err
	case made:
		n = copy(p, d.patch.data[d.at-rng.Offset:])
	default:
		if n, err = d.seed.ReadAt(p, from+d.at-rng.Offset); n < len(p) {
			return 0, fmt.Errorf("copying from the other slot at %d: %w", from+d.at-rng.Offset, noEOF(err))
		}
	}
	d.at, d.lag = d.at+int64(n), d.lag+int64(n)
	return n, nil
}

// failed lists the ranges that the patch could not make.
func (d *delta) failed() []int {
	if d.patch == nil {
		return nil
	}
	return d.patch.failed
}

func (d *delta) closePatch() {
	if d.patch != nil {
		_ = d.patch.Close() // it was only read
	}
}

func (d *delta) close() {
	d.closePatch()
	if d.seed != nil {
		_ = d.seed.Close() // it was only read
	}
}

// catchUp moves image to the position of the delta.
func (d *delta) catchUp() error {
	if d.unread {
		return nil
	}
	n := d.lag
	d.lag = 0
	return d.image.Skip(n)
}

// Skip implements Image.
func (d *delta) Skip(n int64) error {
	d.at, d.lag = d.at+n, d.lag+n
	return nil
}

// End implements Image.
func (d *delta) End() error {
	if err := d.catchUp(); err != nil || d.unread {
		return err
	}
	return d.image.End()
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
