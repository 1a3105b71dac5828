package source

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
)

// openGzip reads the members of a gzip file (RFC 1952). Zeros behind the last member, which gzip(1) takes
// with a warning and a tape needs, are refused like any other bytes: nobody signed them, and a file that was
// cut and padded looks the same.
func openGzip(r *bufio.Reader, _ Limits) (io.Reader, func(), error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, nil, noEOF(err)
	}
	return explained(z, func(err error) error {
		if errors.Is(err, gzip.ErrHeader) { // the first header was read above
			return fmt.Errorf("what follows the end of a member is neither a member nor the end of the file: %w", err)
		}
		return err
	}), nil, nil
}
