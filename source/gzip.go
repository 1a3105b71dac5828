package source

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
)

// gzipMagic begins a member with the only method, deflate.
const gzipMagic = "\x1f\x8b\x08"

// openGzip decodes the members of a gzip file (RFC 1952). Zeros after the last member pad the file, as for gzip(1).
func openGzip(r *bufio.Reader, _ Limits) (io.Reader, func(), error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, nil, noEOF(err)
	}
	z.Multistream(false)
	return &gzipFile{r, z}, nil, nil
}

// gzipFile decodes one member after another.
type gzipFile struct {
	r *bufio.Reader
	z *gzip.Reader
}

// Read implements io.Reader.
func (g *gzipFile) Read(p []byte) (int, error) {
	for {
		n, err := g.z.Read(p)
		if err != io.EOF {
			return n, err
		}
		if n > 0 {
			return n, nil
		}
		if err := g.next(); err != nil {
			return 0, err
		}
	}
}

// next begins the next member. It returns io.EOF at the end of the file.
func (g *gzipFile) next() error {
	padded := false
	for {
		b, err := g.r.Peek(1)
		if err != nil {
			return err
		}
		if b[0] != 0 {
			break
		}
		padded = true
		_, _ = g.r.Discard(1)
	}
	err := error(gzip.ErrHeader)
	if !padded {
		err = noEOF(g.z.Reset(g.r))
	}
	if errors.Is(err, gzip.ErrHeader) {
		return fmt.Errorf("data after the end of a member, expected a member, zeros or the end of the file: %w", err)
	}
	g.z.Multistream(false)
	return err
}
