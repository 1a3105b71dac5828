package update

import (
	"context"
	"encoding/hex"
	"hash"

	"updater/bmap"
	"updater/verify"
)

// checkWhole is the stage that holds the image against the signed checksum of all of it, unmapped blocks as zero. It
// passes every chunk on, and ends with an error in place of the end when the image is another.
func checkWhole(ctx context.Context, m *bmap.Map, want string, in <-chan chunk, out chan<- chunk) error {
	sum := m.NewHash()
	var at int64
	for c := range in {
		if c.end {
			hashZeros(sum, m.ImageSize()-at)
			if got := hex.EncodeToString(sum.Sum(nil)); got != want {
				return &ImageError{Err: &verify.MismatchError{Object: "the whole image", Length: m.ImageSize(), Type: m.ChecksumType(), Got: got, Want: want}}
			}
		} else {
			hashZeros(sum, c.off-at)
			sum.Write(c.buf)
			at = c.off + int64(len(c.buf))
		}
		if err := send(ctx, out, c); err != nil {
			return err
		}
	}
	return cancelled(ctx)
}

// wholeChecksum is the signed checksum of the whole image, "" when the document has none.
func wholeChecksum(m *bmap.Map) string {
	if u := m.Update(); u != nil {
		return u.ImageChecksum
	}
	return ""
}

func hashZeros(sum hash.Hash, n int64) {
	for ; n > 0; n -= min(n, int64(len(zeros))) {
		sum.Write(zeros[:min(n, int64(len(zeros)))])
	}
}
