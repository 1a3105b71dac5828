package install

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"updater/bmap"
	"updater/delta"
	"updater/pack"
	"updater/source"
	"updater/update"
)

// patched is an image beside which deltas may lie.
type patched struct {
	*source.Image
	from *Origins
	name string
}

// planned gives an image the interfaces that update plans with: parts, if it is on a server, and deltas.
func (o *Origins) planned(img *source.Image, name string) update.ImageCloser {
	p := patched{img, o, name}
	if _, remote, _ := source.ParseURL(name); remote {
		return sparse{p}
	}
	if !hasDelta(name) {
		return img
	}
	return p
}

// hasDelta reports whether any delta lies beside a file.
func hasDelta(name string) bool {
	entries, _ := os.ReadDir(filepath.Dir(name))
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filepath.Base(name)+".") && strings.HasSuffix(e.Name(), ".delta") {
			return true
		}
	}
	return false
}

// deltaFile is a delta on a medium or a server.
type deltaFile interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

type localFile struct {
	*os.File
	size int64
}

func (f localFile) Size() int64 { return f.size }

// openDelta opens the delta whose name ends in ext.
func (p patched) openDelta(ctx context.Context, ext string) (deltaFile, error) {
	if _, remote, _ := source.ParseURL(p.name); remote {
		return p.from.client.OpenBeside(ctx, p.name, ext)
	}
	f, err := source.OpenFile(p.name + ext)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return localFile{f, info.Size()}, nil
}

// Patch implements update.Patched.
func (p patched) Patch(ctx context.Context, seed update.Seed, m *bmap.Map, checksum string) (update.Patch, error) {
	id, err := identity(seed.Map(), checksum)
	if err != nil {
		return nil, nil // the content of the other slot is unknown
	}
	file, err := p.openDelta(ctx, delta.Name("", id.Base))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	ranges := PackRanges(m)
	_, whole := p.Consumed()
	h := &patch{file: file, seed: seed, ranges: ranges}
	table := capped{file, file.Size()}
	if _, local := file.(localFile); !local {
		h.budget = max(whole, 0) / maxWaste
		table.left = h.budget
	}
	t, err := delta.ReadTable(&table, file.Size(), ranges)
	if err == nil && (t.Base != id.Base || t.Target != id.Target) {
		err = fmt.Errorf("it is for the maps %x and %x, expected %x and %x", t.Base[:8], t.Target[:8], id.Base[:8], id.Target[:8])
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	p.from.limitMemory("delta", source.Limits{})
	p.LimitFrames(pack.Frames(m.ImageSize(), m.Len()))
	h.table, h.costs = t, p.Costs(ranges)
	return h, nil
}

// capped is a file of which only a limited number of bytes can be read.
type capped struct {
	io.ReaderAt
	left int64
}

func (c *capped) ReadAt(p []byte, off int64) (int, error) {
	if c.left -= int64(len(p)); c.left < 0 {
		return 0, errors.New("its table is too large for the image")
	}
	return c.ReaderAt.ReadAt(p, off)
}

// identity parses the checksums of two maps.
func identity(base, target string) (id delta.Identity, err error) {
	for _, s := range []struct {
		to   []byte
		text string
	}{{id.Base[:], base}, {id.Target[:], target}} {
		sum, err := hex.DecodeString(s.text)
		if err != nil || len(sum) != len(s.to) {
			return id, fmt.Errorf("%q is no sha256", s.text)
		}
		copy(s.to, sum)
	}
	return id, nil
}

// patch makes ranges out of the seed and a delta. It implements update.Patch.
type patch struct {
	table  *delta.Table
	file   deltaFile
	seed   update.Seed
	ranges []pack.Range
	costs  []int64 // of each range, in bytes of the image's file; nil if they are unknown
	budget int64   // bytes of the delta that may be fetched in vain; 0 on a medium, where it is no limit

	reader *delta.Reader
	made   []int        // ranges to return
	group  *delta.Group // of the range returned last
}

// maxWaste bounds the extra cost of a delta over none: 1/maxWaste of the image's file.
const maxWaste = 20

// Plan implements update.Patch.
func (p *patch) Plan(ctx context.Context, want []int, check func(index int, data []byte) bool) ([]int, update.PatchFetch, error) {
	fetch := update.PatchFetch{Whole: p.table.Size, Bytes: p.table.Size}
	for _, f := range p.table.Frames {
		fetch.Bytes -= f.Packed // the table is read already
	}
	wanted := make([]bool, len(p.ranges))
	for _, i := range want {
		wanted[i] = true
	}
	needed := p.needed(wanted)
	windows := make([]bool, len(p.table.Windows))
	for _, f := range needed {
		f.Uses(windows)
	}
	sound, err := p.table.Sound(ctx, p.seed, windows, nil)
	if err != nil {
		return nil, fetch, err
	}
	worth := p.worth(wanted)
	from := delta.Source{File: p.file, Old: p.seed, Check: p.compare(wanted, check), Worth: worth}
	if p.budget > 0 {
		from.Budget = max(p.budget-fetch.Bytes, 1)
	}
	var made []int
	for _, f := range needed {
		holds := f.Holds(sound) && (p.budget == 0 || f.Packed <= from.Budget) && (p.costs == nil || f.Packed < worth(f))
		if holds {
			from.Frames = append(from.Frames, f)
		}
		for i := f.First; i < f.First+f.Count; i++ {
			switch {
			case wanted[i] && holds:
				made = append(made, i)
				fetch.Made += p.ranges[i].Length
			case wanted[i]:
				fetch.Spoiled += p.ranges[i].Length
			}
		}
	}
	bytes, requests := delta.Cost(from.Frames)
	fetch.Bytes, fetch.Requests, p.made = fetch.Bytes+bytes, requests, made
	p.reader, err = p.table.NewReader(ctx, from)
	return made, fetch, err
}

// worth returns the number of bytes of the image's file that a group saves.
func (p *patch) worth(wanted []bool) func(delta.Frame) int64 {
	return func(f delta.Frame) (n int64) {
		for i := f.First; i < f.First+f.Count && p.costs != nil; i++ {
			if wanted[i] {
				n += p.costs[i]
			}
		}
		return n
	}
}

// needed lists the frames with a range that is wanted.
func (p *patch) needed(wanted []bool) []delta.Frame {
	var frames []delta.Frame
	for _, f := range p.table.Frames {
		for i := f.First; i < f.First+f.Count && f.Packed > 0; i++ {
			if wanted[i] {
				frames = append(frames, f)
				break
			}
		}
	}
	return frames
}

// compare compares the wanted ranges of a group with their checksums.
func (p *patch) compare(wanted []bool, check func(index int, data []byte) bool) func(delta.Frame, []byte) error {
	return func(f delta.Frame, data []byte) error {
		for i := f.First; i < f.First+f.Count; i++ {
			n := p.ranges[i].Length
			if wanted[i] && !check(i, data[:n]) {
				return fmt.Errorf("range %d differs from its signed checksum", i)
			}
			data = data[n:]
		}
		return nil
	}
}

// Range implements update.Patch.
func (p *patch) Range(context.Context) []byte {
	i := p.made[0]
	p.made = p.made[1:]
	for p.reader != nil && (p.group == nil || i >= p.group.First+p.group.Count) {
		if p.group = p.reader.Next(); p.group == nil {
			p.stop()
		}
	}
	if p.reader == nil || p.group.Err != nil {
		return nil
	}
	at := int64(0)
	for _, r := range p.ranges[p.group.First:i] {
		at += r.Length
	}
	return p.group.Data[at : at+p.ranges[i].Length]
}

// stop ends the reader.
func (p *patch) stop() {
	_ = p.file.Close() // ends the requests under way
	if p.reader != nil {
		p.reader.Close()
	}
	p.reader = nil
}

// Close implements update.Patch.
func (p *patch) Close() error { p.stop(); return nil }
