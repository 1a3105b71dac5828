package source

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
)

// Image is a decoded image stream. It is not safe for concurrent use, but for Consumed. After an error every
// Read returns that error.
type Image struct {
	name    string
	codec   string
	size    int64 // of the container in bytes, -1 unknown
	limits  Limits
	remote  *remote // a zstd file on a server, else nil
	in      *input
	dec     io.Reader
	release func()              // of the decoder, or nil
	closer  io.Closer           // of the origin, or nil
	jump    func(n int64) error // moves on without reading, or nil; n is within size
	offset  int64
	err     error // sticky
}

// start detects the codec by head, the first bytes of r, and opens its decoder.
func (i *Image) start(head []byte, r io.Reader, l Limits) error {
	l, err := l.withDefaults()
	if err != nil {
		return err
	}
	i.limits = l
	c, err := detect(head)
	i.codec = c.name
	if err != nil {
		return i.failure(err)
	}
	if c.open == nil {
		i.dec = r
		return nil
	}
	br, ok := r.(*bufio.Reader)
	if !ok {
		br = bufio.NewReaderSize(r, bufferSize)
	}
	if i.dec, i.release, err = c.open(br, l); err != nil {
		return i.failure(err)
	}
	return nil
}

// Name is the path, the address without its password, or "standard input".
func (i *Image) Name() string { return i.name }

// Codec is "raw", "gzip", "zstd", "xz", "lz4" or "bzip2".
func (i *Image) Codec() string { return i.codec }

// Offset is the number of decoded bytes passed.
func (i *Image) Offset() int64 { return i.offset }

// Consumed is how many bytes of the container were read or skipped, some of them ahead of what is decoded,
// and its size in bytes, -1 when unknown. Safe for concurrent use.
func (i *Image) Consumed() (read, total int64) { return i.in.read.Load(), i.size }

// Read returns decoded bytes, and io.EOF only after the container's proper end. A damaged image is a
// [CorruptError]; bytes before it were returned, and may be wrong.
func (i *Image) Read(p []byte) (int, error) {
	if i.err != nil {
		return 0, i.err
	}
	n, err := i.dec.Read(p)
	i.offset += int64(n)
	if err == io.EOF && i.codec == raw && i.offset < i.size {
		err = fmt.Errorf("the file ends early, it had %d bytes when it was opened: %w", i.size, io.ErrUnexpectedEOF)
	}
	switch {
	case err == io.EOF:
		i.err = io.EOF
	case err != nil:
		i.err = i.failure(err)
	}
	return n, i.err
}

// failure tells an error of the origin from one of the container.
func (i *Image) failure(err error) error {
	if _, ok := errors.AsType[*FetchError](i.in.err); ok {
		return i.in.err // it names the file and the byte
	}
	if i.in.err != nil && i.in.err != io.EOF {
		return fmt.Errorf("reading %s at byte %d: %w", i.name, i.in.read.Load(), i.in.err)
	}
	return &CorruptError{Name: i.name, Codec: i.codec, Offset: i.offset, Err: err}
}

// Skip moves n decoded bytes on. A raw image is not read there: a file seeks, and from an HTTP server large
// holes are not fetched; all else is decoded and dropped. An image that ends properly before n bytes is
// io.ErrUnexpectedEOF; a raw one then stays where it was.
func (i *Image) Skip(n int64) error {
	switch {
	case n < 0:
		return fmt.Errorf("internal error: skipping %d bytes of %s", n, i.name)
	case n == 0:
		return nil
	case i.err != nil && i.err != io.EOF:
		return i.err
	case i.jump != nil:
		if n > i.size-i.offset {
			return i.short(i.size, n-(i.size-i.offset))
		}
		return i.jump(n)
	}
	n -= i.pass(n)
	got, err := io.CopyN(io.Discard, i, n)
	if err == io.EOF {
		return i.short(i.offset, n-got)
	}
	return err
}

// pass skips what the decoder can without decoding, and returns how much that was.
func (i *Image) pass(n int64) int64 {
	s, ok := i.dec.(interface {
		Skip(n int64) (passed int64, err error)
	})
	if !ok || i.err != nil {
		return 0
	}
	passed, err := s.Skip(n)
	i.offset += passed
	if err != nil && err != io.EOF {
		i.err = i.failure(err)
	}
	return passed
}

func (i *Image) short(end, missing int64) error {
	return fmt.Errorf("%s ends at %d, %d bytes early: %w", i.name, end, missing, io.ErrUnexpectedEOF)
}

// End returns nil only when no decoded byte is left and the container ended properly. It may read one byte
// more. Errors: [TrailingError], [CorruptError].
func (i *Image) End() error {
	at := i.offset
	var one [1]byte
	for {
		n, err := i.Read(one[:])
		switch {
		case n > 0:
			return &TrailingError{Name: i.name, Offset: at}
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// Close frees the decoder and closes the file or the transfer that Open opened; standard input, or the reader given to
// NewImage, stays open. Reading a closed image is os.ErrClosed. Close again does nothing.
func (i *Image) Close() error {
	if errors.Is(i.err, os.ErrClosed) {
		return nil
	}
	i.err = fmt.Errorf("reading %s: %w", i.name, os.ErrClosed)
	if i.release != nil {
		i.release()
	}
	if i.closer != nil {
		return i.closer.Close()
	}
	return nil
}

// input counts the bytes of an origin, and keeps its error, after which it is not read again: whatever a
// decoder makes of the error, the image knows where it came from.
type input struct {
	r    io.Reader
	read atomic.Int64
	err  error
}

func (in *input) Read(p []byte) (int, error) {
	if in.err != nil {
		return 0, in.err
	}
	n, err := in.r.Read(p)
	in.read.Add(int64(n))
	in.err = err
	return n, err
}
