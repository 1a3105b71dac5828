package source

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/therootcompany/xz"
)

// magicLen is how many bytes tell the codecs apart.
const magicLen = 10

// codec is one compression format.
type codec struct {
	name string
	is   func(head []byte) bool
	open func(r *bufio.Reader, l Limits) (io.Reader, func() error, error)
}

// codecs are tried in order; raw is what is left. An image whose own first bytes are one of these magics
// must be compressed to be installed.
var codecs = []codec{
	{"gzip", prefix("\x1f\x8b\x08"), openGzip},   // RFC 1952, with deflate
	{"zstd", isZstd, openZstd},                   // RFC 8878
	{"xz", prefix("\xfd7zXZ\x00"), openXZ},       // the .xz file format 1.2
	{"lz4", prefix("\x04\x22\x4d\x18"), openLZ4}, // LZ4 frame format 1.6
	{"bzip2", isBzip2, openBzip2},
	{"raw", func([]byte) bool { return true }, openRaw},
}

func detect(head []byte) codec {
	for _, c := range codecs[:len(codecs)-1] {
		if c.is(head) {
			return c
		}
	}
	return codecs[len(codecs)-1]
}

func prefix(magic string) func([]byte) bool {
	return func(head []byte) bool { return bytes.HasPrefix(head, []byte(magic)) }
}

// isZstd takes a frame or a skippable frame, which a seekable or pzstd file may begin with.
func isZstd(head []byte) bool {
	return len(head) >= 4 && (string(head[:4]) == "\x28\xb5\x2f\xfd" || head[0]&0xf0 == 0x50 && string(head[1:4]) == "\x2a\x4d\x18")
}

func isBzip2(head []byte) bool {
	return len(head) >= 10 && string(head[:3]) == "BZh" && head[3] >= '1' && head[3] <= '9' &&
		(string(head[4:10]) == "1AY&SY" || string(head[4:10]) == "\x17\x72\x45\x38\x50\x90")
}

func openRaw(r *bufio.Reader, _ Limits) (io.Reader, func() error, error) { return r, nil, nil }

func openGzip(r *bufio.Reader, _ Limits) (io.Reader, func() error, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, nil, truncated(err)
	}
	return checked(z, nil), z.Close, nil
}

func openZstd(r *bufio.Reader, l Limits) (io.Reader, func() error, error) {
	window := l.ZstdWindow
	if window == 0 {
		window = 8 << 20
	}
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(uint64(window)))
	if err != nil {
		return nil, nil, err
	}
	explain := func(err error) error {
		if errors.Is(err, zstd.ErrWindowSizeExceeded) {
			return fmt.Errorf("needs a window of more than %d MiB; compress without --long and below --ultra: %w", window>>20, err)
		}
		return err
	}
	return checked(z, explain), func() error { z.Close(); return nil }, nil
}

func openXZ(r *bufio.Reader, l Limits) (io.Reader, func() error, error) {
	dict := l.XZDict
	if dict == 0 {
		dict = 16 << 20
	}
	z, err := xz.NewReader(r, uint32(min(dict, 1<<32-1)))
	if err != nil {
		return nil, nil, xzError(dict)(err)
	}
	return checked(z, xzError(dict)), nil, nil
}

func xzError(dict int64) func(error) error {
	return func(err error) error {
		switch {
		case errors.Is(err, xz.ErrMemlimit):
			return fmt.Errorf("needs a dictionary of more than %d MiB; compress with xz -6 or --lzma2=dict=8MiB: %w", dict>>20, err)
		case errors.Is(err, xz.ErrBuf):
			return fmt.Errorf("%w: %w", err, io.ErrUnexpectedEOF)
		}
		return err
	}
}

func openLZ4(r *bufio.Reader, _ Limits) (io.Reader, func() error, error) {
	z := &lz4Frames{src: r, z: lz4.NewReader(r)}
	return checked(z, nil), nil, nil
}

func openBzip2(r *bufio.Reader, _ Limits) (io.Reader, func() error, error) {
	return checked(bzip2.NewReader(r), nil), nil, nil
}

// lz4Frames reads concatenated frames, as lz4(1) does; the library ends after one.
type lz4Frames struct {
	src *bufio.Reader
	z   *lz4.Reader
}

func (f *lz4Frames) Read(p []byte) (int, error) {
	for {
		n, err := f.z.Read(p)
		if n > 0 || err != io.EOF {
			if err == io.EOF {
				err = nil
			}
			return n, err
		}
		head, err := f.src.Peek(4)
		if len(head) == 0 {
			if err == io.EOF {
				return 0, io.EOF
			}
			return 0, err
		}
		if string(head) != "\x04\x22\x4d\x18" {
			return 0, errors.New("bytes after the end of the last frame are no frame")
		}
		f.z.Reset(f.src)
	}
}

// checked names truncation by one error for all codecs, and lets explain say more.
func checked(r io.Reader, explain func(error) error) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		n, err := r.Read(p)
		if err != nil && err != io.EOF {
			if explain != nil {
				err = explain(err)
			}
			err = truncated(err)
		}
		return n, err
	})
}

// truncated makes an io.EOF that a header parser let through what it means.
func truncated(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
