package update

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"

	"golang.org/x/sync/errgroup"

	"updater/bmap"
)

// CopyJob writes one image to one target outside of the slots: a disk, a partition or a file.
type CopyJob struct {
	// Map describes the image; every range has a checksum. Nil copies the whole stream; then only the container's own checksums
	// are checked.
	Map          *bmap.Map
	Unmapped     string // UnmappedZero, UnmappedKeep or UnmappedDiscard
	Rewrite      bool   // also write ranges that the target already holds
	SkipReadBack bool

	Image    Image
	Reopen   func(ctx context.Context) (ImageCloser, error) // as in Job; may be nil
	Target   Target
	Progress *Progress // may be nil
	Sizes              // zero is the default
}

// CopyResult reports a copy; see [Result].
type CopyResult struct {
	ImageBytes    int64   `json:"image_bytes"`
	MappedBytes   int64   `json:"mapped_bytes"`
	WrittenBytes  int64   `json:"written_bytes"`
	SkippedBytes  int64   `json:"skipped_bytes"`
	RepairedBytes int64   `json:"repaired_bytes,omitempty"`
	OverlapBytes  int64   `json:"overlap_bytes,omitempty"`
	Unmapped      string  `json:"unmapped"`
	ReadBack      bool    `json:"read_back"`
	Engine        string  `json:"engine"`
	Seconds       Timings `json:"seconds"`
}

// Copy runs the write, flush and read-back steps of [Install] without any boot state. The caller has checked signature and size. A
// nil error means that the image is on stable storage and, unless SkipReadBack, was read back from the medium. After an error the
// target holds a part of the image. Errors: [ImageError], [SourceError], [WriteError], [ReadBackError], the cause of a cancelled
// context.
func Copy(ctx context.Context, job CopyJob) (*CopyResult, error) {
	p := &part{
		run:      &run{Job: Job{Rewrite: job.Rewrite, Sizes: job.orDefault()}, timer: newTimer(job.Progress)},
		Document: &Document{Map: job.Map, Unmapped: job.Unmapped},
		image:    job.Image, reopen: job.Reopen, target: job.Target,
	}
	defer func() { p.behind.stop() }()
	if job.Map == nil {
		p.reopen = nil
		var err error
		if p.Map, err = p.writeAll(ctx); err != nil {
			return nil, err
		}
	} else {
		if err := job.Map.CheckSummed(); err != nil {
			return nil, err
		}
		if !job.SkipReadBack {
			p.follow(ctx)
		}
		if err := p.write(ctx); err != nil {
			return nil, err
		}
	}
	p.phase(PhaseFlush)
	if err := cancelled(ctx); err != nil {
		return nil, err
	}
	if err := p.flush(); err != nil {
		return nil, err
	}
	if !job.SkipReadBack {
		if err := p.readBack(ctx); err != nil {
			return nil, err
		}
	}
	return &CopyResult{
		ImageBytes: p.Map.ImageSize(), MappedBytes: p.Map.MappedBytes(), Unmapped: p.Unmapped,
		WrittenBytes: p.written, SkippedBytes: p.held.equal.Load(), RepairedBytes: p.repaired, OverlapBytes: p.overlap,
		ReadBack: !job.SkipReadBack, Engine: job.Target.Engine(), Seconds: p.stop(),
	}, cancelled(ctx)
}

// writeAll writes the whole stream, whatever its length, and returns a map of it for the read-back. Chunks of zeros are zeroed, which
// is faster than writing them and leaves holes in a file.
func (p *part) writeAll(ctx context.Context) (*bmap.Map, error) {
	p.phase(PhaseWrite)
	p.held = new(held)
	p.progress.reads(p.image)
	group, gctx := errgroup.WithContext(ctx)
	free, full := make(chan []byte, ahead), make(chan []byte, ahead)
	for range ahead {
		free <- make([]byte, p.Chunk)
	}
	group.Go(func() error {
		defer close(full)
		return p.readAll(gctx, free, full)
	})
	var ranges []bmap.Range
	var size int64
	group.Go(func() (err error) {
		ranges, size, err = p.writeChunks(gctx, full, free)
		return err
	})
	err := group.Wait()
	if cause := cancelled(ctx); cause != nil {
		return nil, cause
	}
	if err != nil {
		return nil, err
	}
	if size == 0 {
		return nil, &ImageError{Err: errors.New("it is empty")}
	}
	return bmap.FromRanges(size, "sha256", ranges)
}

func (p *part) readAll(ctx context.Context, free <-chan []byte, full chan<- []byte) error {
	for at := int64(0); ; {
		buf, err := receive(ctx, free)
		if err != nil {
			return err
		}
		n, err := io.ReadFull(p.image, buf[:p.Chunk])
		at += int64(n)
		if n > 0 {
			if err := send(ctx, full, buf[:n]); err != nil {
				return err
			}
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			if err := p.image.End(); err != nil { // a truncated container is io.ErrUnexpectedEOF too
				return &SourceError{Offset: at, Err: err}
			}
			return nil
		default:
			return &SourceError{Offset: at, Err: err}
		}
	}
}

func (p *part) writeChunks(ctx context.Context, full <-chan []byte, free chan<- []byte) (ranges []bmap.Range, size int64, err error) {
	sum, from := sha256.New(), int64(0)
	end := func() {
		if size > from {
			ranges = append(ranges, bmap.Range{Offset: from, Length: size - from, Checksum: hex.EncodeToString(sum.Sum(nil))})
		}
		sum.Reset()
		from = size
	}
	for buf := range full {
		sum.Write(buf)
		n := int64(len(buf))
		if FirstNonZero(buf) < 0 {
			err = p.target.Zero(size, n)
		} else {
			_, err = p.target.WriteAt(buf, size)
		}
		if err != nil {
			return nil, 0, &WriteError{Err: err}
		}
		p.written += n
		if size += n; size-from >= p.Held {
			end()
		}
		p.progress.add(n)
		if err := send(ctx, free, buf[:p.Chunk]); err != nil {
			return nil, 0, err
		}
	}
	end()
	return ranges, size, nil
}
