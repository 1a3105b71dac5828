package source

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/pierrec/lz4/v4"
)

// lz4Magic begins a frame. Legacy frames (lz4 -l) are refused: they have no end mark, so truncation cannot be detected.
const lz4Magic = "\x04\x22\x4d\x18"

// openLZ4 decodes the frames of an lz4 file (LZ4 frame format 1.6) and skips skippable frames. A file that begins with more than 500 bytes of
// them is taken for zstd.
func openLZ4(r *bufio.Reader, _ Limits) (io.Reader, func(), error) {
	f := &lz4Frame{src: r}
	l := &lz4File{frame: f, z: lz4.NewReader(f)}
	return l, nil, noEOF(l.next())
}

// lz4File decodes one frame after another.
type lz4File struct {
	frame *lz4Frame
	z     *lz4.Reader
}

func (l *lz4File) Read(p []byte) (int, error) {
	for {
		n, err := l.z.Read(p)
		if err == io.EOF && l.frame.part != lz4Ended {
			return n, io.ErrUnexpectedEOF
		}
		if n > 0 && err == io.EOF {
			err = nil // the next Read begins another frame
		}
		if n > 0 || err != io.EOF {
			return n, err
		}
		if err := l.next(); err != nil {
			return 0, err
		}
	}
}

// next moves to the next frame. It returns io.EOF at the end of the file.
func (l *lz4File) next() error {
	for {
		head, err := l.frame.src.Peek(8)
		switch {
		case len(head) == 0:
			return err
		case len(head) >= 4 && string(head[:4]) == lz4Magic:
			l.frame.part = lz4Header
			l.z.Reset(l.frame)
			return nil
		case len(head) < 8:
			return fmt.Errorf("%d bytes after the end of a frame: %w", len(head), noEOF(err))
		case head[0]&0xf0 != 0x50 || string(head[1:4]) != "\x2a\x4d\x18":
			return errors.New("data after the end of a frame, expected a frame or the end of the file")
		}
		if _, err := io.CopyN(io.Discard, l.frame.src, 8+int64(binary.LittleEndian.Uint32(head[4:]))); err != nil {
			return noEOF(err)
		}
	}
}

// lz4Part is the next element of a frame.
type lz4Part int

const (
	lz4Header lz4Part = iota
	lz4Block
	lz4Ended
)

// lz4Frame returns the bytes of one frame, then io.EOF. On its own the library would continue with the next frame, even a legacy
// one.
type lz4Frame struct {
	src          *bufio.Reader
	part         lz4Part
	left         int64 // bytes to return before part
	blockSum     int64 // length of a block's checksum
	contentCheck int64 // length of the content's checksum
}

func (f *lz4Frame) Read(p []byte) (int, error) {
	if f.left == 0 {
		if err := f.next(); err != nil {
			return 0, err
		}
	}
	n, err := f.src.Read(p[:min(int64(len(p)), f.left)])
	f.left -= int64(n)
	return n, noEOF(err)
}

// next determines the length of the next element.
func (f *lz4Frame) next() error {
	switch f.part {
	case lz4Header: // magic, FLG, BD, content size, dictionary, checksum
		head, err := f.src.Peek(5)
		if err != nil {
			return noEOF(err)
		}
		flag := func(bit byte, length int64) int64 { return int64(head[4]>>bit&1) * length }
		f.left = 4 + 3 + flag(3, 8) + flag(0, 4)
		f.blockSum, f.contentCheck = flag(4, 4), flag(2, 4)
		f.part = lz4Block
	case lz4Block:
		head, err := f.src.Peek(4)
		if err != nil {
			return noEOF(err)
		}
		length := binary.LittleEndian.Uint32(head)
		if length == 0 { // the end mark
			f.left = 4 + f.contentCheck
			f.part = lz4Ended
			return nil
		}
		f.left = 4 + int64(length&^(1<<31)) + f.blockSum
	case lz4Ended:
		return io.EOF
	}
	return nil
}
