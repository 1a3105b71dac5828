package update

import (
	"context"
	"encoding/hex"
	"hash"

	"updater/bmap"
	"updater/verify"
)

// checkWhole is the stage that compares the whole image, with zeros in its holes, with its signed checksum. It passes every chunk on,
// and replaces the end by an error if the image differs.
func checkWhole(ctx context.Context, m *bmap.Map, want string, in <-chan chunk, out chan<- chunk) error {
	sum := m.NewHash()
	var at int64
	for c := range in {
		if c.end {
			hashZeros(sum, m.ImageSize()-at)
			if err := compareWhole(sum, m, want); err != nil {
				return err
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

// compareWhole compares the hash of a whole image with its signed checksum.
func compareWhole(sum hash.Hash, m *bmap.Map, want string) error {
	if got := hex.EncodeToString(sum.Sum(nil)); got != want {
		return &ImageError{Err: &verify.MismatchError{Object: "the whole image", Length: m.ImageSize(), Type: m.ChecksumType(), Got: got, Want: want}}
	}
	return nil
}

// wholeChecksum is the signed checksum of the whole image, "" if the document has none.
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
