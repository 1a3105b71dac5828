package delta

import (
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"updater/pack"
)

// Images is the input of [Write].
type Images struct {
	Identity
	Old, New             io.ReaderAt
	OldRanges, NewRanges []pack.Range  // that hold data, ascending and disjoint
	Progress             func(n int64) // called with the bytes of the new image that were encoded; may be nil
}

// Write writes the delta from one image to another. It encodes on GOMAXPROCS goroutines, of 90 MiB each, and has ended them when it returns. After
// an error, w holds the beginning of a delta. It does not compare the images with checksums.
func Write(ctx context.Context, w io.Writer, in Images) (*Table, error) {
	idx, err := newIndex(ctx, in.Old, in.BaseSize, in.OldRanges)
	if err != nil {
		return nil, err
	}
	group, ctx := errgroup.WithContext(ctx)
	encoders := make(chan *encoder, runtime.GOMAXPROCS(0))
	for range cap(encoders) {
		encoders <- &encoder{index: idx, in: &in, dict: make([]byte, 0, MaxDictionary)}
	}
	queue := make(chan *job, 2*cap(encoders)) // in order; bounds the frames in memory
	group.Go(func() error {
		defer close(queue)
		for _, g := range groups(in.NewRanges) {
			j := &job{group: g, done: make(chan struct{})}
			select {
			case queue <- j:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			group.Go(func() error {
				defer close(j.done)
				e := <-encoders
				defer func() { encoders <- e }()
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				return e.encode(j)
			})
		}
		return nil
	})
	t := &Table{Identity: in.Identity}
	group.Go(func() error { return t.write(ctx, w, queue, &in) })
	return t, group.Wait()
}

// job is a group being encoded.
type job struct {
	group
	done    chan struct{}
	packed  []byte
	windows []uint32
}

// encoder encodes one group at a time.
type encoder struct {
	index   index
	in      *Images
	zstd    *zstd.Encoder // nil before the first group
	dict    []byte
	content []byte
}

func (e *encoder) encode(j *job) (err error) {
	if j.length == 0 {
		return nil
	}
	e.content = e.content[:0]
	for _, r := range e.in.NewRanges[j.first : j.first+j.count] {
		at := len(e.content)
		e.content = append(e.content, make([]byte, r.Length)...)
		if n, err := e.in.New.ReadAt(e.content[at:], r.Offset); n < len(e.content)-at {
			return fmt.Errorf("reading the new image at %d: %w", r.Offset+int64(n), noEOF(err))
		}
	}
	j.windows = e.index.choose(e.content)
	windows := make([]Window, len(j.windows))
	for i, w := range j.windows {
		offset := int64(w) * WindowSize
		windows[i] = Window{Offset: offset, Length: int(min(WindowSize, e.in.BaseSize-offset))}
	}
	if e.dict, err = readWindows(e.dict[:0], e.in.Old, windows); err != nil {
		return err
	}
	dict := zstd.WithEncoderDictRaw(0, e.dict)
	if e.zstd == nil {
		e.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderCRC(false),
			zstd.WithSingleSegment(true), zstd.WithWindowSize(4<<20), dict)
	} else {
		err = e.zstd.ResetWithOptions(nil, dict)
	}
	if err == nil {
		j.packed = e.zstd.EncodeAll(e.content, nil)
	}
	return err
}

// write writes the frames in order, then the table.
func (t *Table) write(ctx context.Context, w io.Writer, queue <-chan *job, in *Images) error {
	var at int64
	used := map[uint32]bool{}
	var chosen [][]uint32
	for j := range queue {
		select {
		case <-j.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if _, err := w.Write(j.packed); err != nil {
			return err
		}
		t.Frames = append(t.Frames, Frame{At: at, Packed: int64(len(j.packed)), First: j.first, Count: j.count, Length: j.length})
		at += int64(len(j.packed))
		chosen = append(chosen, j.windows)
		for _, w := range j.windows {
			used[w] = true
		}
		if in.Progress != nil {
			in.Progress(j.length)
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := t.sumWindows(ctx, used, in); err != nil {
		return err
	}
	position := make(map[uint32]int, len(t.Windows))
	for i, w := range t.Windows {
		position[uint32(w.Offset/WindowSize)] = i
	}
	for i, windows := range chosen {
		for _, w := range windows {
			t.Frames[i].windows = append(t.Frames[i].windows, position[w])
		}
	}
	table := t.encode()
	t.Size = at + int64(len(table))
	_, err := w.Write(table)
	return err
}

// sumWindows lists the windows in use with their checksums.
func (t *Table) sumWindows(ctx context.Context, used map[uint32]bool, in *Images) (err error) {
	buf := make([]byte, 0, WindowSize)
	for _, w := range windowsOf(in.OldRanges, in.BaseSize) {
		if !used[uint32(w.Offset/WindowSize)] {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if buf, err = readWindows(buf[:0], in.Old, []Window{w}); err != nil {
			return err
		}
		w.Sum = crc32.Checksum(buf, castagnoli)
		t.Windows = append(t.Windows, w)
	}
	return nil
}
