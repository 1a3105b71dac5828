// Package source opens an image where it is and hands out its decoded bytes.
//
// The codec is found by the first bytes, never by the name. What it guarantees: [Image.Read] returns
// io.EOF only after the container has ended properly (end marker, checksum, nothing behind it), so that
// truncation at any byte is an error; memory is bounded by [Limits], whatever the container asks for. What
// it does not: a codec's checksum is no signature; the caller compares the bytes with signed ones.
package source

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
)

// Limits bound the memory that a container may ask for. The zero value is the default.
type Limits struct {
	ZstdWindow int64 // bytes; 0 is 8 MiB, which zstd needs up to level 19
	XZDict     int64 // bytes; 0 is 16 MiB, twice what xz -6 needs
}

// CorruptError says that a container cannot be decoded to its proper end. A truncated one wraps
// io.ErrUnexpectedEOF.
type CorruptError struct {
	Name, Codec string
	Offset      int64 // decoded bytes before the error
	Err         error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s: %s data after %d decoded bytes: %v", e.Name, e.Codec, e.Offset, e.Err)
}
func (e *CorruptError) Unwrap() error { return e.Err }

// TrailingError says that an image goes on after its expected end.
type TrailingError struct {
	Name   string
	Offset int64 // of the first byte too many, decoded
}

func (e *TrailingError) Error() string {
	return fmt.Sprintf("%s: goes on after its expected end at %d", e.Name, e.Offset)
}

// bufferSize is what a decoder reads ahead; unbuffered, xz is ten times slower.
const bufferSize = 1 << 20

// Image is a decoded image stream. It is not safe for concurrent use, but for Consumed.
type Image struct {
	name   string
	codec  string
	seek   io.Seeker // raw regular files only
	size   int64     // of the container, -1 unknown
	read   atomic.Int64
	offset int64
	err    error // sticky
	dec    io.Reader
	closes []func() error
}

// Open opens path; "-" is stdin. It takes regular files and block devices.
func Open(path string, stdin io.Reader, l Limits) (*Image, error) {
	if path == "-" {
		return NewImage(stdin, "standard input", l)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("opening the image: %w", err)
	}
	block := info.Mode().Type() == os.ModeDevice
	if !block && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("opening the image: %s is neither a file nor a block device", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the image: %w", err)
	}
	img, err := NewImage(f, path, l)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	img.closes = append(img.closes, f.Close)
	if img.size, err = f.Seek(0, io.SeekEnd); err != nil {
		return nil, errors.Join(err, img.Close())
	}
	if img.codec == "raw" {
		img.seek = f
		_, err = f.Seek(0, io.SeekStart)
		img.dec = img.counted(f)
	} else {
		// The decoder has read ahead: go back to where its buffer ends.
		_, err = f.Seek(img.read.Load(), io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, img.Close())
	}
	return img, nil
}

// NewImage detects the codec of r by its first bytes. name is used in errors.
func NewImage(r io.Reader, name string, l Limits) (*Image, error) {
	img := &Image{name: name, size: -1}
	br := bufio.NewReaderSize(img.counted(r), bufferSize)
	head, err := br.Peek(magicLen)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	c := detect(head)
	img.codec = c.name
	var closer func() error
	if img.dec, closer, err = c.open(br, l); err != nil {
		return nil, img.corrupt(err)
	}
	if closer != nil {
		img.closes = append(img.closes, closer)
	}
	return img, nil
}

// counted counts the bytes that r gives.
func (i *Image) counted(r io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		n, err := r.Read(p)
		i.read.Add(int64(n))
		return n, err
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Name is the path, or "standard input".
func (i *Image) Name() string { return i.name }

// Codec is "raw", "gzip", "zstd", "xz", "lz4" or "bzip2".
func (i *Image) Codec() string { return i.codec }

// Offset is the number of decoded bytes passed.
func (i *Image) Offset() int64 { return i.offset }

// Consumed is how much of the container was read, and its size in bytes, -1 when unknown. Safe for
// concurrent use.
func (i *Image) Consumed() (read, total int64) { return i.read.Load(), i.size }

// Read returns decoded bytes, and io.EOF only after the container's proper end.
func (i *Image) Read(p []byte) (int, error) {
	if i.err != nil {
		return 0, i.err
	}
	n, err := i.dec.Read(p)
	i.offset += int64(n)
	if err != nil {
		i.err = err
		if err != io.EOF {
			i.err = i.corrupt(err)
		}
	}
	return n, i.err
}

// corrupt wraps an error of the decoder; an error of reading itself stays what it is.
func (i *Image) corrupt(err error) error {
	if i.codec == "raw" {
		return fmt.Errorf("reading %s at %d: %w", i.name, i.offset, err)
	}
	return &CorruptError{Name: i.name, Codec: i.codec, Offset: i.offset, Err: err}
}

// Skip moves n decoded bytes on. A raw file seeks and does not read holes; all else is decoded and dropped.
// The end before n bytes is io.ErrUnexpectedEOF.
func (i *Image) Skip(n int64) error {
	if n < 0 {
		return fmt.Errorf("internal error: skipping %d bytes of %s", n, i.name)
	}
	if i.err != nil && n > 0 && i.err != io.EOF {
		return i.err
	}
	if i.seek != nil {
		if n > i.size-i.offset {
			return fmt.Errorf("%s ends at %d: %w", i.name, i.size, io.ErrUnexpectedEOF)
		}
		if _, err := i.seek.Seek(n, io.SeekCurrent); err != nil {
			return fmt.Errorf("seeking in %s: %w", i.name, err)
		}
		i.offset += n
		i.read.Add(n)
		return nil
	}
	got, err := io.CopyN(io.Discard, readerFunc(i.Read), n)
	if err == io.EOF {
		return fmt.Errorf("%s ends at %d, %d bytes early: %w", i.name, i.offset, n-got, io.ErrUnexpectedEOF)
	}
	return err
}

// End returns nil only when no decoded byte is left and the container ended properly. Errors:
// [TrailingError], [CorruptError].
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

// Close closes the image; it does not close standard input.
func (i *Image) Close() error {
	var errs []error
	for _, c := range i.closes {
		errs = append(errs, c())
	}
	i.closes = nil
	return errors.Join(errs...)
}
