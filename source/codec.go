package source

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// magicLen is how many bytes tell the codecs apart.
const magicLen = 10

// raw is the name of the codec that changes nothing.
const raw = "raw"

// codec is one container format. open reads the container from r to its proper end; its reader returns io.EOF
// there and nowhere else. release, which may be nil, frees what the reader holds.
type codec struct {
	name   string
	magics []string
	open   func(r *bufio.Reader, l Limits) (dec io.Reader, release func(), err error)
}

// codecs are all but raw. No magic is the beginning of another.
var codecs = []codec{
	{"gzip", []string{"\x1f\x8b\x08"}, openGzip},
	{"zstd", zstdMagics(), openZstd},
	{"xz", []string{xzMagic}, openXZ},
	{"lz4", []string{lz4Magic}, openLZ4},
	{"bzip2", bzip2Magics(), openBzip2},
}

// detect tells the codec by the first magicLen bytes of an image, or all of a shorter one. An image that
// ends within a magic is a truncated one of that codec.
func detect(head []byte) (codec, error) {
	for _, c := range codecs {
		for _, magic := range c.magics {
			switch {
			case strings.HasPrefix(string(head), magic):
				return c, nil
			case len(head) > 0 && len(head) < magicLen && strings.HasPrefix(magic, string(head)):
				return c, fmt.Errorf("ends within the first bytes that tell its codec: %w", io.ErrUnexpectedEOF)
			}
		}
	}
	return codec{name: raw}, nil
}

// readerFunc is a Read method.
type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// explained is r with its errors, but for io.EOF, put into better words.
func explained(r io.Reader, explain func(error) error) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		n, err := r.Read(p)
		if err != nil && err != io.EOF {
			err = explain(err)
		}
		return n, err
	})
}

// noEOF is for where a container may not end.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
