package source

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
)

// An Image is a stream of the decoded bytes of an image. After an error every Read returns that error. It is not safe for concurrent
// use, except for Consumed.
type Image struct {
	name    string
	codec   string
	size    int64 // of the file in bytes, -1 unknown
	limits  Limits
	remote  *remote   // of a zstd file on a server, or nil
	res     *resource // of a file on a server, or nil
	in      *input
	dec     io.Reader
	release func()              // of the decoder, or nil
	closer  io.Closer           // of the origin, or nil
	jump    func(n int64) error // skips n bytes within size without reading, or nil
	offset  int64
	sniffed bool   // the first decoded bytes were checked
	prefix  []byte // of them, to return before those of dec
	err     error  // sticky
}

// start detects the codec by head, the first bytes of r, and opens the decoder.
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
		i.dec, i.sniffed = r, true
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

// Name returns the path, the address as printed by [Redact], or "standard input".
func (i *Image) Name() string { return i.name }

// Codec returns "raw", "gzip", "zstd", "xz", "lz4" or "bzip2".
func (i *Image) Codec() string { return i.codec }

// Offset returns the number of decoded bytes read or skipped.
func (i *Image) Offset() int64 { return i.offset }

// Consumed returns how many bytes of the file were read or skipped, some of them ahead of decoding, and its size in bytes, -1 if
// unknown. It is safe for concurrent use.
func (i *Image) Consumed() (read, total int64) { return i.in.read.Load(), i.size }

// Read returns decoded bytes. It returns io.EOF only at the proper end of the container. Before an error, wrong bytes may have been
// returned. Errors: [CorruptError], [ContainerError], [FetchError] and those of the medium.
func (i *Image) Read(p []byte) (int, error) {
	if i.err == nil && !i.sniffed {
		i.sniff()
	}
	if len(i.prefix) > 0 && len(p) > 0 {
		n := copy(p, i.prefix)
		i.prefix = i.prefix[n:]
		i.offset += int64(n)
		return n, nil
	}
	if i.err != nil {
		return 0, i.err
	}
	n, err := i.dec.Read(p)
	i.offset += int64(n)
	if err == io.EOF && i.codec == raw && i.offset < i.size {
		err = fmt.Errorf("the file is shorter than the %d bytes it had when it was opened: %w", i.size, io.ErrUnexpectedEOF)
	}
	switch {
	case err == io.EOF:
		i.err = io.EOF
	case err != nil:
		i.err = i.failure(err)
	}
	return n, i.err
}

// sniff decodes the first bytes and refuses a container inside the compression, such as a .tar.gz.
func (i *Image) sniff() {
	i.sniffed = true
	head, n := make([]byte, headLen), 0
	var err error
	for n < headLen && err == nil {
		var k int
		k, err = i.dec.Read(head[n:])
		n += k
	}
	if name := container(head[:n]); name != "" {
		i.err = &ContainerError{Name: i.name, Container: name + " within " + i.codec}
		return
	}
	i.prefix = head[:n]
	if err == io.EOF {
		i.err = err
	} else if err != nil {
		i.offset += int64(n)
		i.err = i.failure(err)
		i.offset -= int64(n)
	}
}

// failure distinguishes errors of the origin from errors of the container.
func (i *Image) failure(err error) error {
	if name, ok := errors.AsType[unsupported](err); ok {
		return &ContainerError{Name: i.name, Container: string(name)}
	}
	if _, ok := errors.AsType[*FetchError](i.in.err); ok {
		return i.in.err // it names the file and the offset
	}
	if i.in.err != nil && i.in.err != io.EOF {
		return fmt.Errorf("reading %s at byte %d: %w", i.name, i.in.read.Load(), i.in.err)
	}
	err = &CorruptError{Name: i.name, Codec: i.codec, Offset: i.offset, Err: err}
	if i.res != nil && i.res.changed {
		return &FetchError{Op: "fetching", URL: i.name, Offset: i.in.read.Load(), Err: fmt.Errorf("the file has changed during the download: %w", err)}
	}
	return err
}

// Skip skips n decoded bytes. Raw files are seeked, long gaps of raw images on servers are not fetched, and whole zstd frames are not
// decoded; all other bytes are decoded and dropped. If the image properly ends before n bytes, the error wraps io.ErrUnexpectedEOF,
// and a raw image stays at its offset. Other errors are those of Read.
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
	dropped := min(n, int64(len(i.prefix)))
	i.prefix, i.offset, n = i.prefix[dropped:], i.offset+dropped, n-dropped
	n -= i.pass(n)
	got, err := io.CopyN(io.Discard, i, n)
	if err == io.EOF {
		return i.short(i.offset, n-got)
	}
	return err
}

// pass skips the bytes that the decoder can skip without decoding, and returns their number.
func (i *Image) pass(n int64) int64 {
	s, ok := i.dec.(interface {
		Skip(n int64) (passed int64, err error)
	})
	if !ok || i.err != nil || n == 0 {
		return 0
	}
	i.sniffed = i.sniffed || i.offset == 0
	passed, err := s.Skip(n)
	i.offset += passed
	if err != nil && err != io.EOF {
		i.err = i.failure(err)
	}
	return passed
}

func (i *Image) short(end, missing int64) error {
	return fmt.Errorf("%s ends at %d, expected %d more bytes: %w", i.name, end, missing, io.ErrUnexpectedEOF)
}

// End returns nil if no decoded byte is left and the container has ended properly. It may read one byte more. Errors: [TrailingError]
// and those of Read.
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

// Close frees the decoder and closes the file or the connection; standard input, or the reader given to NewImage, stays open. Reading
// a closed image returns os.ErrClosed. Closing again does nothing.
func (i *Image) Close() error {
	if errors.Is(i.err, os.ErrClosed) {
		return nil
	}
	i.err, i.prefix = fmt.Errorf("reading %s: %w", i.name, os.ErrClosed), nil
	if i.release != nil {
		i.release()
	}
	if i.closer != nil {
		return i.closer.Close()
	}
	return nil
}

// input counts the bytes of an origin and keeps its error, which distinguishes errors of the origin from errors of the container even if
// the decoder replaces them.
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
