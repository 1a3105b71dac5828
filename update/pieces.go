package update

import (
	"context"

	"updater/bmap"
)

// Pieces streams an image through the same reader and hash as [Install] and calls take with the bytes of its mapped ranges, ascending,
// in pieces of at most 512 KiB. Ranges of at most 4 MiB are compared with their signed checksums before. A piece is valid only during
// the call. Pieces returns nil only if every range matches, the size is right, the container ends properly, and take never failed.
// Errors: [ImageError], [SourceError], those of take, the cause of a cancelled context.
func Pieces(ctx context.Context, m *bmap.Map, image Image, take func(p []byte, off int64) error) error {
	return Sizes{}.stream(ctx, m, image, nil, func(ctx context.Context, in <-chan chunk, free chan<- []byte) error {
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
