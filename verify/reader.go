package verify

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
)

// NewReader returns a reader that yields exactly size bytes of r and checks them. The digest is compared as soon as the
// last byte was read, before io.EOF is ever returned: a reader that ended with io.EOF handed out the promised bytes.
// Bytes handed out earlier are not yet checked.
//
//   - Another digest: a [*MismatchError], together with the last bytes or after them.
//   - An input that ends early: an error that wraps io.ErrUnexpectedEOF and names the offset.
//   - A longer input: not read past size.
//   - wantHex that is not a digest of h in lower-case hex, or a negative size: an error at the first Read, nothing is read.
//
// Errors are sticky. h is reset first and belongs to the reader until it ends. object names the data in errors. Not for
// concurrent use.
func NewReader(r io.Reader, h hash.Hash, wantHex string, size int64, object string) io.Reader {
	c := &checkedReader{r: r, h: h, size: size, object: object}
	c.want, c.err = parseDigest(wantHex, h)
	if c.err != nil {
		c.err = fmt.Errorf("%s: %w", object, c.err)
	} else if size < 0 {
		c.err = fmt.Errorf("%s: size %d is negative", object, size)
	}
	h.Reset()
	return c
}

type checkedReader struct {
	r      io.Reader
	h      hash.Hash
	want   []byte
	size   int64 // bytes in all
	done   int64 // bytes handed out
	object string
	err    error // what every further Read returns
}

func (c *checkedReader) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	if c.done == c.size {
		c.err = c.judge()
		return 0, c.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.size-c.done)])
	c.h.Write(p[:n])
	c.done += int64(n)
	switch {
	case c.done == c.size: // an error beside the last byte does not matter: all bytes are here, and are judged
		if err := c.judge(); err != io.EOF {
			c.err = err
		}
	case errors.Is(err, io.EOF):
		c.err = fmt.Errorf("%s: input ends at byte %d of %d: %w", c.object, c.done, c.size, io.ErrUnexpectedEOF)
	case err != nil:
		c.err = fmt.Errorf("reading %s at byte %d of %d: %w", c.object, c.done, c.size, err)
	}
	return n, c.err
}

// judge compares the digest of all bytes; io.EOF means that it matches.
func (c *checkedReader) judge() error {
	got := c.h.Sum(nil)
	if bytes.Equal(got, c.want) {
		return io.EOF
	}
	return &MismatchError{
		Object: c.object, Length: c.size, Type: hashName(c.h),
		Got: hex.EncodeToString(got), Want: hex.EncodeToString(c.want),
	}
}
