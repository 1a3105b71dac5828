package update

import (
	"context"

	"updater/bmap"
)

// Pieces streams an image through the same reader and hash as [Install] and hands the bytes of its mapped ranges to
// take, ascending, in pieces that are compared with their signed checksum before, as far as the range fits the window.
// A piece is only valid during the call. It returns nil only when every range matched, the image has its size and ends
// properly, and take never failed. Errors: [ImageError], [SourceError], what take returned, the cause of a cancelled
// context.
func Pieces(ctx context.Context, m *bmap.Map, image Image, take func(p []byte, off int64) error) error {
	return stream(ctx, m, image, nil, func(ctx context.Context, in <-chan chunk, free chan<- []byte) error {
		for c := range in {
			if len(c.buf) > 0 {
				if err := take(c.buf, c.off); err != nil {
					return err
				}
			}
			if err := c.recycle(ctx, free); err != nil {
				return err
			}
		}
		return nil
	})
}
