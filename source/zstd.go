package source

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/klauspost/compress/zstd"
)

// zstdMagics are those of a frame, and of the 16 skippable frames, with which a file of pzstd begins.
func zstdMagics() []string {
	magics := []string{"\x28\xb5\x2f\xfd"}
	for i := range 16 {
		magics = append(magics, string([]byte{0x50 + byte(i), 0x2a, 0x4d, 0x18}))
	}
	return magics
}

// wholeFrame is the most content of a frame that is read and decoded whole, so that several are at a time. A frame
// of a packed image is smaller, and those of other programs are larger or do not say, and stream.
const wholeFrame = 2 << 20

// openZstd reads the frames of a zstd file (RFC 8878). Goroutines run only for frames that are read ahead, and end
// with the frame.
func openZstd(r *bufio.Reader, l Limits) (io.Reader, func(), error) {
	z := &zstdFile{frame: zstdFrame{src: r}, limits: l, ahead: min(runtime.GOMAXPROCS(0), maxAhead)}
	return z, z.close, nil
}

// maxAhead bounds the frames that are decoded at a time.
const maxAhead = 4

// zstdFile decodes the frames of a file in their order: long ones as a stream, short ones each on a goroutine.
type zstdFile struct {
	frame  zstdFrame
	limits Limits
	ahead  int

	queue  []*zstdJob    // frames being decoded, in order
	free   []*zstdJob    // whose buffers can be used again
	whole  *zstd.Decoder // of short frames, nil before the first
	long   *zstd.Decoder // of long frames, nil before the first
	inLong bool          // a long frame is being read; queue is empty
	err    error         // sticky
	end    error         // what the frame behind the queue is: an error, io.EOF
	next   bool          // frame has a header that was not acted on
}

// zstdJob is one short frame.
type zstdJob struct {
	in, out []byte
	size    int // of the content, as the header says
	done    chan struct{}
	err     error
	taken   int // bytes of out that were read
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

// drop takes the first job, which must be done, off the queue.
func (z *zstdFile) drop() {
	z.free = append(z.free, z.queue[0])
	z.queue = z.queue[1:]
}

// fill starts short frames until enough are under way, or something else comes.
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
			z.whole, z.end = zstd.NewReader(nil, zstd.WithDecoderConcurrency(z.ahead), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(uint64(max(z.limits.ZstdWindow, wholeFrame))))
			if z.end != nil {
				return
			}
		}
		z.queue = append(z.queue, job)
		go job.decode(z.whole)
	}
}

func (j *zstdJob) decode(dec *zstd.Decoder) {
	defer close(j.done)
	j.out, j.err = dec.DecodeAll(j.in, j.out[:0])
	if j.err == nil && len(j.out) != j.size {
		j.err = fmt.Errorf("a frame has %d bytes, its head says %d", len(j.out), j.size)
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

// peek makes sure that a frame's header is read; false is that there is none, for the reason in end.
func (z *zstdFile) peek() bool {
	if !z.next && z.end == nil {
		z.end = z.frame.begin()
		z.next = z.end == nil
	}
	return z.next
}

// short says whether the frame is one to read whole. It has to be allowed as a stream too.
func (z *zstdFile) short() bool {
	h := &z.frame.head
	return h.HasFCS && h.FrameContentSize <= wholeFrame && (h.SingleSegment || h.WindowSize <= uint64(z.limits.ZstdWindow))
}

// beginLong acts on what comes when no short frame is left: a long one, or the end.
func (z *zstdFile) beginLong() {
	if !z.peek() {
		z.err = z.explain(z.end)
		return
	}
	z.next = false
	if z.long == nil {
		z.long, z.err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(uint64(z.limits.ZstdWindow)))
		if z.err != nil {
			z.err = fmt.Errorf("a window of %d bytes: %w", z.limits.ZstdWindow, z.err)
			return
		}
	}
	z.err = z.explain(z.long.Reset(&z.frame))
	z.inLong = z.err == nil
}

// Skip moves up to n bytes on, and decodes nothing of frames that lie in them whole; their checksums are not
// checked. It returns how many bytes it has passed: fewer than n when a part of a frame has to be read.
func (z *zstdFile) Skip(n int64) (passed int64, err error) {
	for z.err == nil && !z.inLong {
		switch {
		case len(z.queue) > 0:
			job := z.queue[0]
			<-job.done
			left := int64(job.size - job.taken)
			if job.err != nil || left > n-passed {
				return passed, nil // Read tells the error
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

// explain puts an error into better words.
func (z *zstdFile) explain(err error) error {
	switch {
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return fmt.Errorf("needs a window of more than the %s allowed; compress without --long and --ultra: %w", formatSize(z.limits.ZstdWindow), err)
	case errors.Is(err, zstd.ErrMagicMismatch):
		return fmt.Errorf("what follows the end of a frame is neither a frame nor the end of the file: %w", err)
	}
	return err
}

// close waits for what is being decoded.
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

// formatSize writes a power of two as people do.
func formatSize(bytes int64) string {
	if bytes >= 1<<20 && bytes%(1<<20) == 0 {
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
	return fmt.Sprintf("%d bytes", bytes)
}
