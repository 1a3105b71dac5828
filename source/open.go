package source

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
)

// bufferSize is how much is read ahead of a decoder; unbuffered, xz is ten times slower.
const bufferSize = 256 << 10

// Open opens the image at path; "-" is stdin. Otherwise path must be a regular file or a block device, or a
// link to one: a FIFO or a terminal has no end that could be trusted, and a directory is no image. The caller
// closes the image; stdin stays open.
func Open(path string, stdin io.Reader, l Limits) (*Image, error) {
	if path == "-" {
		if stdin == nil {
			return nil, errors.New("opening the image: there is no standard input")
		}
		return NewImage(stdin, "standard input", l)
	}
	f, size, err := openFile(path)
	if err != nil {
		return nil, fmt.Errorf("opening the image: %w", err)
	}
	img, err := newFileImage(f, path, size, l)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return img, nil
}

// openFile opens a regular file or a block device, and tells its size in bytes.
func openFile(path string) (*os.File, int64, error) {
	info, err := os.Stat(path) // before the open, which blocks on a FIFO and rewinds a tape
	if err != nil {
		return nil, 0, err
	}
	if kind := kindOf(info.Mode()); kind != "" {
		return nil, 0, fmt.Errorf("%s is %s; expected a file or a block device", path, kind)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	size, err := f.Seek(0, io.SeekEnd) // a block device's Stat has no size
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, size, nil
}

// kindOf names what cannot be opened as an image; "" is what can.
func kindOf(mode os.FileMode) string {
	switch {
	case mode.IsRegular(), mode.Type() == os.ModeDevice:
		return ""
	case mode.IsDir():
		return "a directory"
	case mode.Type()&os.ModeNamedPipe != 0:
		return "a FIFO"
	case mode.Type()&os.ModeCharDevice != 0:
		return "a character device"
	case mode.Type()&os.ModeSocket != 0:
		return "a socket"
	}
	return "a special file"
}

// newFileImage makes the image of an open file, which it closes only when it succeeds and is closed itself.
func newFileImage(f *os.File, name string, size int64, l Limits) (*Image, error) {
	head := make([]byte, magicLen)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	img := &Image{name: name, size: size, in: &input{r: f}, closer: f}
	if err := img.start(head[:n], img.in, l); err != nil {
		return nil, err
	}
	if img.codec == raw {
		img.jump = func(n int64) error { return seekFile(img, f, n) }
	}
	return img, nil
}

func seekFile(img *Image, f *os.File, n int64) error {
	if _, err := f.Seek(n, io.SeekCurrent); err != nil {
		img.err = fmt.Errorf("skipping %d bytes of %s at %d: %w", n, img.name, img.offset, err)
		return img.err
	}
	img.offset += n
	img.in.read.Add(n)
	return nil
}

// NewImage makes the image of a stream, and detects its codec by its first bytes. name stands for it in
// errors. The caller keeps r and closes it after the image.
func NewImage(r io.Reader, name string, l Limits) (*Image, error) {
	img := &Image{name: name, size: -1, in: &input{r: r}}
	br := bufio.NewReaderSize(img.in, bufferSize)
	head, err := br.Peek(magicLen)
	if err != nil && err != io.EOF {
		return nil, img.failure(err)
	}
	if err := img.start(head, br, l); err != nil {
		return nil, err
	}
	return img, nil
}
