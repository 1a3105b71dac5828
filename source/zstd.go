package source

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"

	"github.com/klauspost/compress/zstd"
)

// zstdMagics are the magics of a frame and of the 16 skippable frames; pzstd writes one at the start of a file.
func zstdMagics() []string {
	magics := []string{"\x28\xb5\x2f\xfd"}
	for i := range 16 {
		magics = append(magics, string([]byte{0x50 + byte(i), 0x2a, 0x4d, 0x18}))
	}
	return magics
}

// wholeFrame is the largest content of a frame to decode whole, so that several frames are decoded in parallel. Frames of packed
// images are smaller; those of other programs are usually larger or have no content size, and are streamed.
const wholeFrame = 2 << 20

// openZstd decodes the frames of a zstd file (RFC 8878). It starts goroutines only for frames read ahead; they end with the
// frame.
func openZstd(r *bufio.Reader, l Limits) (io.Reader, func(), error) {
	z := &zstdFile{frame: zstdFrame{src: r}, limits: l, ahead: min(runtime.GOMAXPROCS(0), maxAhead)}
	return z, z.close, nil
}

// maxAhead bounds the frames decoded in parallel.
const maxAhead = 4

// zstdFile decodes the frames of a file in order: long ones as a stream, short ones on a goroutine each.
type zstdFile struct {
	frame  zstdFrame
	limits Limits
	ahead  int

	queue  []*zstdJob    // short frames, in order
	free   []*zstdJob    // with buffers to reuse
	whole  *zstd.Decoder // of short frames; nil before the first
	long   *zstd.Decoder // of long frames; nil before the first
	inLong bool          // a long frame is being read; queue is empty
	err    error         // sticky
	end    error         // why no frame follows the queue: io.EOF or an error
	next   bool          // frame holds a header not handled yet
}

// zstdJob is a short frame being decoded.
type zstdJob struct {
	in, out []byte
	size    int // of the content, from the header
	done    chan struct{}
	err     error
	taken   int // bytes of out that Read has returned
}

// Read implements io.Reader.
func (z *zstdFile) Read(p []byte) (int, error) {
	for z.err == nil {
		if z.inLong {
			n, err := z.long.Read(p)
			if err == io.EOF {
				z.inLong, err = false, nil
			}
			z.err = z.explain(err)
			if n > 0 || z.err != nil {
				return n, z.err
			}
			continue
		}
		z.fill()
		if len(z.queue) == 0 {
			z.beginLong()
			continue
		}
		job := z.queue[0]
		<-job.done
		if job.err != nil {
			z.err = z.explain(job.err)
			break
		}
		n := copy(p, job.out[job.taken:])
		job.taken += n
		if job.taken == len(job.out) {
			z.drop()
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, z.err
}

// drop removes the first job, which has to be done, from the queue.
func (z *zstdFile) drop() {
	z.free = append(z.free, z.queue[0])
	z.queue = z.queue[1:]
}

// fill starts jobs until enough run or the next frame is not short.
func (z *zstdFile) fill() {
	for len(z.queue) < z.ahead && z.peek() && z.short() {
		job := z.newJob()
		job.size = int(z.frame.head.FrameContentSize)
		z.next = false
		var err error
		if job.in, err = z.frame.readAll(job.in[:0], wholeFrame+wholeFrame/8); err != nil {
			z.end = err
			return
		}
		if z.whole == nil {
			if z.whole, z.end = newZstdDecoder(z.ahead, max(z.limits.ZstdWindow, wholeFrame)); z.end != nil {
				return
			}
		}
		z.queue = append(z.queue, job)
		go job.decode(z.whole)
	}
}

func newZstdDecoder(concurrency int, window int64) (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(concurrency), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(uint64(window)))
}

func (j *zstdJob) decode(dec *zstd.Decoder) {
	defer close(j.done)
	j.out, j.err = dec.DecodeAll(j.in, j.out[:0])
	if j.err == nil && len(j.out) != j.size {
		j.err = fmt.Errorf("a frame has %d bytes, expected %d from its header", len(j.out), j.size)
	}
}

func (z *zstdFile) newJob() *zstdJob {
	job := new(zstdJob)
	if n := len(z.free); n > 0 {
		job, z.free = z.free[n-1], z.free[:n-1]
	}
	*job = zstdJob{in: job.in, out: job.out, done: make(chan struct{})}
	return job
}

// peek reads the header of the next frame unless it is read. It returns false if no frame follows, for the reason in end.
func (z *zstdFile) peek() bool {
	if !z.next && z.end == nil {
		z.end = z.frame.begin()
		z.next = z.end == nil
	}
	return z.next
}

// short reports whether the frame is decoded whole. A window beyond the limit is left to the stream decoder, which refuses it.
func (z *zstdFile) short() bool {
	h := &z.frame.head
	return h.HasFCS && h.FrameContentSize <= wholeFrame && (h.SingleSegment || h.WindowSize <= uint64(z.limits.ZstdWindow))
}

// beginLong starts a long frame, or sets err at the end.
func (z *zstdFile) beginLong() {
	if !z.peek() {
		z.err = z.explain(z.end)
		return
	}
	z.next = false
	if z.long == nil {
		if z.long, z.err = newZstdDecoder(1, z.limits.ZstdWindow); z.err != nil {
			z.err = fmt.Errorf("a window of %d bytes: %w", z.limits.ZstdWindow, z.err)
			return
		}
	}
	z.err = z.explain(z.long.Reset(&z.frame))
	z.inLong = z.err == nil
}

// Skip skips whole frames within the next n bytes without decoding them; their checksums are not checked. It returns the number
// of bytes skipped, less than n if part of a frame has to be read.
func (z *zstdFile) Skip(n int64) (passed int64, err error) {
	for z.err == nil && !z.inLong {
		switch {
		case len(z.queue) > 0:
			job := z.queue[0]
			<-job.done
			left := int64(job.size - job.taken)
			if job.err != nil || left > n-passed {
				return passed, nil // Read returns the error
			}
			passed += left
			z.drop()
			continue
		case !z.peek():
			return passed, nil
		}
		h := &z.frame.head
		if !h.HasFCS || h.FrameContentSize > uint64(n-passed) {
			return passed, nil
		}
		z.next = false
		if _, err := io.Copy(io.Discard, &z.frame); err != nil {
			z.err = z.explain(err)
			break
		}
		passed += int64(h.FrameContentSize)
	}
	return passed, z.err
}

// explain translates errors of the library.
func (z *zstdFile) explain(err error) error {
	switch {
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		need := z.frame.head.WindowSize
		if z.frame.head.SingleSegment {
			need = z.frame.head.FrameContentSize
		}
		return &LimitError{What: "zstd window", Need: int64(min(need, math.MaxInt64)), Limit: z.limits.ZstdWindow}
	case errors.Is(err, zstd.ErrMagicMismatch):
		return fmt.Errorf("data after the end of a frame, expected a frame or the end of the file: %w", err)
	}
	return err
}

// close waits for the jobs and frees the decoders.
func (z *zstdFile) close() {
	for _, job := range z.queue {
		<-job.done
	}
	z.queue, z.free = nil, nil
	for _, d := range []*zstd.Decoder{z.whole, z.long} {
		if d != nil {
			d.Close()
		}
	}
}

// formatSize formats a size, in MiB if it is a multiple.
func formatSize(bytes int64) string {
	if bytes >= 1<<20 && bytes%(1<<20) == 0 {
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
	return fmt.Sprintf("%d bytes", bytes)
}
