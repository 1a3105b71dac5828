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

// planned gives an image what update plans with: parts, if it is on a server, and deltas.
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
		return nil, nil // what the other slot holds is unknown
	}
	file, err := p.openDelta(ctx, delta.Name("", id.Base))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	ranges := PackRanges(m)
	t, err := delta.ReadTable(file, file.Size(), ranges)
	if err == nil && (t.Base != id.Base || t.Target != id.Target) {
		err = fmt.Errorf("it is for the maps %x and %x, expected %x and %x", t.Base[:8], t.Target[:8], id.Base[:8], id.Target[:8])
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	p.from.limitMemory("delta", source.Limits{})
	_, whole := p.Consumed()
	return &patch{table: t, file: file, seed: seed, ranges: ranges, whole: whole}, nil
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
	whole  int64 // bytes of the image's file, -1 unknown

	reader *delta.Reader
	made   []int        // ranges to return
	group  *delta.Group // of the range returned last
	wasted int64        // bytes of frames that made something wrong
}

// maxWaste is the part of the image's file that may be fetched of a delta in vain.
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
	var frames []delta.Frame
	var made []int
	for _, f := range needed {
		holds := f.Holds(sound)
		if holds {
			frames = append(frames, f)
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
	bytes, requests := delta.Cost(frames)
	if p.whole >= 0 && bytes >= p.whole {
		fetch.Reason, fetch.Made = "the delta costs as much as the whole file", 0
		return nil, fetch, nil
	}
	fetch.Bytes, fetch.Requests, p.made = fetch.Bytes+bytes, requests, made
	p.reader, err = p.table.NewReader(ctx, p.file, p.seed, frames, p.compare(wanted, check))
	return made, fetch, err
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

// Range implements update.Patch. Once too much was fetched in vain, nothing more is.
func (p *patch) Range(context.Context) []byte {
	i := p.made[0]
	p.made = p.made[1:]
	for p.reader != nil && (p.group == nil || i >= p.group.First+p.group.Count) {
		p.group = p.reader.Next()
		if p.group != nil && p.group.Err != nil {
			p.wasted += p.group.Packed
		}
		if p.group == nil || p.whole >= 0 && p.wasted > p.whole/maxWaste {
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
