// Package pack writes packed images: zstd files with a separate frame for each range of a bmap and a seek table at the end (the zstd seekable
// format), with an index of its blocks before the table. Frames can be fetched alone and decoded in parallel; other programs read the file as an
// ordinary .zst.
//
// # Guarantees
//
//   - Equal images, ranges and levels give equal bytes, on any number of cores.
//   - zstd -d restores the image.
//   - [ReadTable] reads no more than the table, refuses one that does not account for every byte of the file, and uses memory
//     in proportion to a number of frames given by the caller.
//
// # Limits
//
// Write does not compare the image with the checksums of the bmap. A seek table is not signed: compare the decoded frames with signed checksums.
package pack

import (
	"context"
	"fmt"
	"io"
	"runtime"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// MaxFrame is the largest content of a frame in bytes. A frame that a device has in other places is not fetched: shorter frames are found more
// often, and compress less (docs/performance.md has the measurement).
const MaxFrame = 32 << 10

// maxZeros is the largest content of a frame of zeros in bytes.
const maxZeros = 1 << 30

// Range is a range of the image, in bytes.
type Range struct{ Offset, Length int64 }

// Compression levels. The encoder has four: those of zstd -1, -3, -7 and -11; others are rounded to one of them.
const (
	MinLevel     = 1
	DefaultLevel = 3
	MaxLevel     = 19
)

// Image is the input of [Write].
type Image struct {
	Data   io.ReaderAt
	Size   int64   // bytes
	Ranges []Range // that hold data, ascending and disjoint; all other bytes are taken to be zero and not read
}

// Write packs an image into w. It compresses on GOMAXPROCS goroutines and has ended them when it returns. After an error, w holds
// the beginning of a packed image.
func Write(ctx context.Context, w io.Writer, image Image, level int) error {
	if level < MinLevel || level > MaxLevel {
		return fmt.Errorf("level is %d, expected %d to %d", level, MinLevel, MaxLevel)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)), zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)))
	if err != nil {
		return err
	}
	defer enc.Close()
	group, ctx := errgroup.WithContext(ctx)
	queue := make(chan *frame, runtime.GOMAXPROCS(0)) // in order; bounds the frames in memory
	group.Go(func() error {
		defer close(queue)
		for p := range cut(image) {
			f := &frame{part: p, packed: make(chan []byte, 1)}
			if err := send(ctx, queue, f); err != nil {
				return err
			}
			group.Go(func() error { return f.pack(enc, image.Data) })
		}
		return nil
	})
	group.Go(func() error { return writeAll(ctx, w, queue) })
	return group.Wait()
}

// frame is a frame being compressed.
type frame struct {
	part
	packed chan []byte
	sums   []byte // of its blocks; valid once it is packed
}

func (f *frame) pack(enc *zstd.Encoder, image io.ReaderAt) error {
	if f.zero {
		f.packed <- zeroFrame(f.Length)
		return nil
	}
	data := make([]byte, f.Length)
	if n, err := image.ReadAt(data, f.Offset); n < len(data) {
		return fmt.Errorf("reading the image at %d: %w", f.Offset+int64(n), noEOF(err))
	}
	f.sums = appendSums(nil, data)
	f.packed <- enc.EncodeAll(data, nil)
	return nil
}

// writeAll writes the frames in order, then the index and the seek table.
func writeAll(ctx context.Context, w io.Writer, queue <-chan *frame) error {
	var frames []Frame
	var sums []byte
	var at, size int64
	for f := range queue {
		select {
		case data := <-f.packed:
			if _, err := w.Write(data); err != nil {
				return err
			}
			frames = append(frames, Frame{At: at, Packed: int64(len(data)), Offset: f.Offset, Length: f.Length})
			at, size = at+int64(len(data)), f.Offset+f.Length
			if len(sums) <= MaxBlocks*sumSize {
				sums = append(sums, f.sums...)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	blocks := index(sums)
	if blocks != nil {
		frames = append(frames, Frame{At: at, Packed: int64(len(blocks)), Offset: size})
	}
	end, err := table(frames)
	if err != nil {
		return err
	}
	_, err = w.Write(append(blocks, end...))
	return err
}

func send(ctx context.Context, queue chan<- *frame, f *frame) error {
	select {
	case queue <- f:
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
