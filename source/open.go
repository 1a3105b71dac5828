package source

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// bufferSize is the size of read-ahead buffers; unbuffered, xz is ten times slower.
const bufferSize = 256 << 10

// Open opens the image at a path or a file: address; "-" is stdin. The file has to be a regular file or a block device, or a symbolic
// link to one; opening never blocks on a FIFO or a terminal. The caller closes the image, which leaves stdin open. Errors:
// [CorruptError], [ContainerError], [SchemeError] and those of the operating system.
func Open(name string, stdin io.Reader, l Limits) (*Image, error) {
	if name == "-" {
		if stdin == nil {
			return nil, errors.New("opening the image: no standard input")
		}
		return NewImage(stdin, "standard input", l)
	}
	path, err := localPath(name)
	if err != nil {
		return nil, fmt.Errorf("opening the image: %w", err)
	}
	f, err := openFile(path, true)
	if err != nil {
		return nil, fmt.Errorf("opening the image: %w", err)
	}
	img, err := newFileImage(f, path, l)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return img, nil
}

// ReadFile reads a regular file of at most limit bytes at a path or a file: address. It refuses everything else, such as FIFOs and
// devices, without blocking. Errors: [KindError], [TooLongError], [SchemeError] and those of the operating system.
func ReadFile(name string, limit int64) ([]byte, error) {
	f, err := OpenFile(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = &TooLongError{Path: f.Name(), Limit: limit}
	}
	if err != nil {
		return nil, err
	}
	return data, nil
}

// OpenFile opens a regular file for reading, as [ReadFile] does. Errors: [KindError], [SchemeError] and those of the operating system.
func OpenFile(name string) (*os.File, error) {
	path, err := localPath(name)
	if err != nil {
		return nil, err
	}
	return openFile(path, false)
}

// A KindError reports a path that is not a file, such as a FIFO or a directory.
type KindError struct {
	Path           string
	Kind, Expected string // such as "a FIFO" and "a regular file"
}

func (e *KindError) Error() string {
	return fmt.Sprintf("%s is %s, expected %s", e.Path, e.Kind, e.Expected)
}

// A TooLongError reports a file above its size limit.
type TooLongError struct {
	Path  string
	Limit int64 // bytes
}

func (e *TooLongError) Error() string {
	return fmt.Sprintf("%s: file is longer than %d bytes", e.Path, e.Limit)
}

// openFile opens a regular file or, if allowed, a block device.
func openFile(path string, blockDevice bool) (*os.File, error) {
	check := func(info os.FileInfo) error {
		mode := info.Mode()
		if mode.IsRegular() || blockDevice && mode.Type() == os.ModeDevice {
			return nil
		}
		expected := "a regular file"
		if blockDevice {
			expected += " or a block device"
		}
		return &KindError{Path: path, Kind: kindOf(mode), Expected: expected}
	}
	info, err := os.Stat(path) // opening a device may have effects: a tape rewinds
	if err == nil {
		err = check(info)
	}
	if err != nil {
		return nil, err
	}
	flags := os.O_RDONLY | unix.O_NOCTTY
	if info.Mode().IsRegular() {
		flags |= unix.O_NONBLOCK // in case a FIFO has taken its place
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return nil, err
	}
	if info, err = f.Stat(); err == nil {
		err = check(info)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func kindOf(mode os.FileMode) string {
	switch mode.Type() {
	case 0:
		return "a regular file"
	case os.ModeDir:
		return "a directory"
	case os.ModeNamedPipe:
		return "a FIFO"
	case os.ModeDevice:
		return "a block device"
	case os.ModeDevice | os.ModeCharDevice:
		return "a character device"
	case os.ModeSocket:
		return "a socket"
	}
	return "a special file"
}

// newFileImage returns the image in a file. The image closes the file, but only if newFileImage succeeds.
func newFileImage(f *os.File, name string, l Limits) (*Image, error) {
	size, err := f.Seek(0, io.SeekEnd) // Stat has no size for a block device
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the image: %w", err)
	}
	head := make([]byte, headLen)
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

// NewImage returns the image read from r. name stands for it in errors. The caller closes r after the image. Errors: [CorruptError],
// [ContainerError] and those of r.
func NewImage(r io.Reader, name string, l Limits) (*Image, error) {
	img := &Image{name: name, size: -1, in: &input{r: r}}
	br := bufio.NewReaderSize(img.in, bufferSize)
	head, err := br.Peek(headLen)
	if err != nil && err != io.EOF {
		return nil, img.failure(err)
	}
	if err := img.start(head, br, l); err != nil {
		return nil, err
	}
	return img, nil
}
