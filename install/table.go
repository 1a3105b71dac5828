package install

import (
	"context"
	"errors"
	"io"

	"updater/blockdev"
	"updater/bmap"
	"updater/update"
)

// checkTable refuses an image for a whole disk before the first byte is written: its partition table is made for other sectors than
// the disk's, or has no last partition that can grow. It reads the beginning of the image once more, so the table of an image from
// standard input is judged after writing only. Errors: update.IncompatibleError, update.SourceError.
func (r CopyRequest) checkTable(ctx context.Context, from *Origins, m *bmap.Map, to *destination) error {
	if !to.whole || r.Image == "-" {
		return nil
	}
	sector, err := blockdev.SectorSize(to.name)
	if err != nil {
		return err
	}
	head, size, err := readHead(ctx, from, r.Image, m)
	if err != nil {
		return err
	}
	if size < 0 {
		size = to.dev.Size()
	}
	err = blockdev.CheckImage(r.Image, head, size, to.dev.Size(), blockdev.GPTOptions{SectorSize: sector, GrowLast: r.GrowLast})
	if _, sectors := errors.AsType[*blockdev.SectorSizeError](err); sectors || err != nil && r.GrowLast {
		return &update.IncompatibleError{Reason: err.Error()}
	}
	return nil // a table that cannot be fitted is a warning after writing
}

// readHead reads the beginning of an image, where its partition table is, and the size of the image, -1 if it is not known. Blocks
// that the map leaves unmapped read as zero.
func readHead(ctx context.Context, from *Origins, name string, m *bmap.Map) (head []byte, size int64, err error) {
	img, size, err := from.Open(ctx, name)
	if err != nil {
		return nil, 0, err
	}
	defer img.Close()
	head = make([]byte, blockdev.TableBytes)
	n, err := io.ReadFull(img, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, 0, &update.SourceError{Offset: int64(n), Err: err}
	}
	head = head[:n]
	if err != nil {
		size = int64(n)
	}
	if m == nil {
		return head, size, nil
	}
	for gap := range m.Gaps() {
		if from := min(gap.Offset, int64(n)); from < int64(n) {
			clear(head[from:min(gap.Offset+gap.Length, int64(n))])
		}
	}
	return head, m.ImageSize(), nil
}
