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

// openGzip decodes the members of a gzip file (RFC 1952). Zeros after the last member, which gzip(1) accepts with a warning,
// are refused: a file that was cut between two members and padded looks the same.
func openGzip(r *bufio.Reader, _ Limits) (io.Reader, func(), error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, nil, noEOF(err)
	}
	return explained(z, func(err error) error {
		if errors.Is(err, gzip.ErrHeader) { // not the first member
			return fmt.Errorf("data after the end of a member, expected a member or the end of the file: %w", err)
		}
		return err
	}), nil, nil
}
