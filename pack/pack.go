// Package pack writes a packed image: a zstd file with a frame of its own for every range of a bmap, and a seek
// table at its end (the zstd seekable format). It is an ordinary .zst to everyone else. Frames decode beside each
// other, and each can be fetched alone.
//
// What it guarantees: the same image, ranges and level give the same bytes, on any number of cores; zstd -d gives
// the image back. What it does not: it compares nothing with a checksum of the bmap.
package pack

import (
	"context"
	"fmt"
	"io"
	"runtime"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// MaxFrame is the most bytes of the image that one frame of data holds; a longer range has several. Frames of up
// to twice that are decoded whole, and in parallel.
const MaxFrame = 1 << 20

// maxZeros is the most bytes that one frame of zeros stands for.
const maxZeros = 1 << 30

// Range is a run of the image's bytes.
type Range struct{ Offset, Length int64 }

// Levels of zstd that are told apart: as fast, normal, small and smallest.
const (
	MinLevel     = 1
	DefaultLevel = 3
	MaxLevel     = 19
)

// Write packs an image of size bytes. ranges are those with data, ascending and disjoint; all other bytes are
// taken to be zero and are not read. It compresses on GOMAXPROCS goroutines.
func Write(ctx context.Context, w io.Writer, image io.ReaderAt, size int64, ranges []Range, level int) error {
	if level < MinLevel || level > MaxLevel {
		return fmt.Errorf("level is %d, expected %d to %d", level, MinLevel, MaxLevel)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)), zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)))
	if err != nil {
		return err
	}
	defer enc.Close()
	group, ctx := errgroup.WithContext(ctx)
	queue := make(chan *piece, runtime.GOMAXPROCS(0)) // in the order of the image; it bounds what is under way
	group.Go(func() error {
		defer close(queue)
		for r := range cut(size, ranges) {
			p := &piece{Range: r.Range, packed: make(chan []byte, 1)}
			if err := send(ctx, queue, p); err != nil {
				return err
			}
			group.Go(func() error { return p.pack(enc, image, r.zero) })
		}
		return nil
	})
	group.Go(func() error { return writeAll(ctx, w, queue) })
	return group.Wait()
}

// piece is one frame to be.
type piece struct {
	Range
	packed chan []byte
}

// pack compresses a piece, or makes a frame of zeros.
func (p *piece) pack(enc *zstd.Encoder, image io.ReaderAt, zero bool) error {
	if zero {
		p.packed <- zeroFrame(p.Length)
		return nil
	}
	data := make([]byte, p.Length)
	if n, err := image.ReadAt(data, p.Offset); n < len(data) {
		return fmt.Errorf("reading the image at %d: %w", p.Offset+int64(n), noEOF(err))
	}
	p.packed <- enc.EncodeAll(data, nil)
	return nil
}

// writeAll writes the frames in their order, and the table.
func writeAll(ctx context.Context, w io.Writer, queue <-chan *piece) error {
	var frames []Frame
	var at int64
	for p := range queue {
		select {
		case data := <-p.packed:
			if _, err := w.Write(data); err != nil {
				return err
			}
			frames = append(frames, Frame{At: at, Packed: int64(len(data)), Offset: p.Offset, Length: p.Length})
			at += int64(len(data))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	end, err := table(frames)
	if err != nil {
		return err
	}
	_, err = w.Write(end)
	return err
}

func send(ctx context.Context, queue chan<- *piece, p *piece) error {
	select {
	case queue <- p:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
