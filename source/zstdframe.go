package source

import (
	"bufio"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// zstdFrame returns the bytes of one frame of a file, then io.EOF. Block headers contain lengths, so the end of a frame is found
// without decoding it (RFC 8878, section 3.1.1).
type zstdFrame struct {
	src  *bufio.Reader
	head zstd.Header
	left int64 // bytes to return before the next block header
	last bool  // no block follows
}

// begin moves to the next frame and skips skippable frames. It returns io.EOF at the end of the file.
func (f *zstdFrame) begin() error {
	for {
		magic, err := f.src.Peek(4)
		if len(magic) == 0 {
			return err
		}
		if len(magic) < 4 {
			return fmt.Errorf("%d bytes after the end of a frame: %w", len(magic), noEOF(err))
		}
		head, err := f.src.Peek(zstd.HeaderMaxSize)
		if err != nil && err != io.EOF {
			return err
		}
		if err := f.head.Decode(head); err != nil {
			return noEOF(err)
		}
		if !f.head.Skippable {
			f.left, f.last = int64(f.head.HeaderSize), false
			return nil
		}
		if _, err := io.CopyN(io.Discard, f.src, 8+int64(f.head.SkippableSize)); err != nil {
			return noEOF(err)
		}
	}
}

// Read implements io.Reader.
func (f *zstdFrame) Read(p []byte) (int, error) {
	if f.left == 0 {
		if f.last {
			return 0, io.EOF
		}
		if err := f.block(); err != nil {
			return 0, err
		}
	}
	n, err := f.src.Read(p[:min(int64(len(p)), f.left)])
	f.left -= int64(n)
	return n, noEOF(err)
}

// block determines the length of the next block, including header and checksum.
func (f *zstdFrame) block() error {
	b, err := f.src.Peek(3)
	if err != nil {
		return noEOF(err)
	}
	head := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
	f.last = head&1 != 0
	f.left = 3
	if kind := head >> 1 & 3; kind == 1 { // RLE: one byte
		f.left++
	} else {
		f.left += int64(head >> 3)
	}
	if f.last && f.head.HasCheckSum {
		f.left += 4
	}
	return nil
}

// readAll appends the frame to buf. It refuses more than limit bytes.
func (f *zstdFrame) readAll(buf []byte, limit int) ([]byte, error) {
	for {
		if f.left == 0 {
			if f.last {
				return buf, nil
			}
			if err := f.block(); err != nil {
				return buf, err
			}
		}
		if int64(len(buf))+f.left > int64(limit) {
			return buf, fmt.Errorf("a frame of %d bytes has more than %d compressed bytes", f.head.FrameContentSize, limit)
		}
		at := len(buf)
		buf = append(buf, make([]byte, f.left)...)
		n, err := io.ReadFull(f.src, buf[at:])
		f.left -= int64(n)
		if err != nil {
			return buf[:at+n], noEOF(err)
		}
	}
}
