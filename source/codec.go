package source

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// magicLen is how many bytes distinguish the codecs, headLen how many distinguish the other containers.
const (
	magicLen = 10
	headLen  = 512
)

// raw is the name of the codec of uncompressed images.
const raw = "raw"

// codec is a compression format. The reader returned by open returns io.EOF at the end of the format and nowhere else. release,
// which may be nil, frees its resources.
type codec struct {
	name   string
	magics []string
	open   func(r *bufio.Reader, l Limits) (dec io.Reader, release func(), err error)
}

// codecs lists all codecs except raw. No magic is a prefix of another.
var codecs = []codec{
	{"gzip", []string{gzipMagic}, openGzip},
	{"zstd", zstdMagics(), openZstd},
	{"xz", []string{xzMagic}, openXZ},
	{"lz4", []string{lz4Magic}, openLZ4},
	{"bzip2", bzip2Magics(), openBzip2},
}

// detect determines the codec by the first headLen bytes of an image, or by all bytes of a shorter one. An image that ends within a
// magic is a truncated one of that codec. A container that is not supported is returned as its name.
func detect(head []byte) (codec, error) {
	if rest := skipFrames(head); len(rest) < len(head) && strings.HasPrefix(string(rest), lz4Magic) {
		head = rest
	}
	for _, c := range codecs {
		for _, magic := range c.magics {
			switch {
			case strings.HasPrefix(string(head), magic):
				return c, nil
			case len(head) > 0 && len(head) < magicLen && strings.HasPrefix(magic, string(head)):
				return c, fmt.Errorf("the file ends within the magic of the codec: %w", io.ErrUnexpectedEOF)
			}
		}
	}
	if name := container(head); name != "" {
		return codec{name: raw}, unsupported(name)
	}
	return codec{name: raw}, nil
}

// skipFrames returns the bytes after the skippable frames at the start of head, which zstd and lz4 files have in common.
func skipFrames(head []byte) []byte {
	for len(head) >= 8 && head[0]&0xf0 == 0x50 && string(head[1:4]) == "\x2a\x4d\x18" {
		n := 8 + int64(binary.LittleEndian.Uint32(head[4:]))
		if n > int64(len(head)) {
			break
		}
		head = head[n:]
	}
	return head
}

// readerFunc is a Read method.
type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// noEOF replaces io.EOF where a container may not end.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
