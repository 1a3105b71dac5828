package powercut

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"sync"

	"updater/blockdev"
	"updater/bmap"
	"updater/delta"
	"updater/install"
	"updater/pack"
	"updater/update"
)

// On some devices the image comes as a delta against the running slot, which is read from the same disk with its faults. Every third range is
// made wrong, and is fetched from the image at the end.

// deltas are the deltas between the images of the pool, made on first use.
var deltas struct {
	sync.Mutex
	files map[[2]string][]byte
}

func deltaOf(ctx context.Context, from, to *image, ranges []pack.Range) ([]byte, error) {
	deltas.Lock()
	defer deltas.Unlock()
	key := [2]string{from.name, to.name}
	if file := deltas.files[key]; file != nil {
		return file, nil
	}
	old, err := bmap.Parse(from.doc)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	_, err = delta.Write(ctx, &out, delta.Images{
		Identity: delta.Identity{Base: sha256.Sum256(from.doc), Target: sha256.Sum256(to.doc), BaseSize: int64(len(from.data))},
		Old:      bytes.NewReader(from.data), New: bytes.NewReader(to.data), OldRanges: install.PackRanges(old), NewRanges: ranges,
	})
	if deltas.files == nil {
		deltas.files = map[[2]string][]byte{}
	}
	deltas.files[key] = out.Bytes()
	return out.Bytes(), err
}

// byDelta makes the job one with a delta, if the running slot holds an image.
func (d *device) byDelta(job *update.Job, img *image) error {
	name := d.holds(d.disk.Medium(), d.booted)
	i := slices.IndexFunc(d.images, func(i *image) bool { return i.name == name })
	if i < 0 {
		return errors.New("the running slot holds no image")
	}
	m, err := bmap.Parse(img.doc)
	if err != nil {
		return err
	}
	p := &patched{stream: stream{bytes.NewReader(img.data)}, ranges: install.PackRanges(m)}
	if p.file, err = deltaOf(context.Background(), d.images[i], img, p.ranges); err != nil {
		return err
	}
	job.Image = p
	job.Seed = func(slot, _ string) (update.Seed, error) {
		sum := sha256.Sum256(d.images[i].doc)
		return seed{d.disk.Node().Device("the running slot", slotOffset(d.booted), slotSize), hex.EncodeToString(sum[:])}, nil
	}
	return nil
}

type seed struct {
	*blockdev.Device
	checksum string
}

func (s seed) Map() string { return s.checksum }

// patched is an image with a delta. It is an update.Patched and its update.Patch.
type patched struct {
	stream
	file   []byte
	ranges []pack.Range
	seed   update.Seed
	reader *delta.Reader
	made   []int
	group  *delta.Group
}

func (p *patched) Patch(_ context.Context, s update.Seed, _ *bmap.Map, _ string) (update.Patch, error) {
	p.seed = s
	return &patch{p}, nil
}

type patch struct{ *patched }

func (p *patch) Plan(ctx context.Context, want []int, check func(int, []byte) bool) ([]int, update.PatchFetch, error) {
	t, err := delta.ReadTable(bytes.NewReader(p.file), int64(len(p.file)), p.ranges)
	if err != nil {
		return nil, update.PatchFetch{}, err
	}
	frames := slices.DeleteFunc(slices.Clone(t.Frames), func(f delta.Frame) bool {
		return f.Packed == 0 || !slices.ContainsFunc(want, func(i int) bool { return i >= f.First && i < f.First+f.Count })
	})
	for _, i := range want {
		if slices.ContainsFunc(frames, func(f delta.Frame) bool { return i >= f.First && i < f.First+f.Count }) {
			p.made = append(p.made, i)
		}
	}
	wanted := slices.Clone(p.made)
	p.reader, err = t.NewReader(ctx, delta.Source{File: bytes.NewReader(p.file), Old: p.seed, Frames: frames, Check: func(f delta.Frame, data []byte) error {
		for i := f.First; i < f.First+f.Count; i++ {
			n := p.ranges[i].Length
			if slices.Contains(wanted, i) && !check(i, data[:n]) {
				return errors.New("a range differs from its checksum")
			}
			data = data[n:]
		}
		return nil
	}})
	return wanted, update.PatchFetch{}, err
}

func (p *patch) Range(context.Context) []byte {
	i := p.made[0]
	p.made = p.made[1:]
	for p.group == nil || i >= p.group.First+p.group.Count {
		if p.group = p.reader.Next(); p.group == nil {
			return nil
		}
	}
	if p.group.Err != nil || i%3 == 1 {
		return nil
	}
	at := int64(0)
	for _, r := range p.ranges[p.group.First:i] {
		at += r.Length
	}
	return p.group.Data[at : at+p.ranges[i].Length]
}

func (p *patch) Close() error {
	if p.reader != nil {
		p.reader.Close()
	}
	return nil
}
