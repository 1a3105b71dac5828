package install

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"updater/blockdev"
	"updater/bmap"
	"updater/device/config"
	"updater/source"
	"updater/update"
	"updater/verify"
)

// A disk image, such as a .wic, can be the source of one partition's content, with the signed bmap of the whole disk. The partition table
// locates the partition, so it is compared with the signed bmap before it is used. Ranges that cross the borders of the partition are
// compared too and get checksums of their inner parts. For that the image is read a first time, up to the last of those ranges.

// partition is one partition of a disk image, as an update.Image. narrow has to be called first.
type partition struct {
	spec  string
	open  func() (*source.Image, error)
	img   *source.Image // of the second time
	at    int64         // in the image, of the partition
	size  int64
	moved int64 // bytes of the partition passed
}

// narrow makes the map of the partition from that of the disk, which is accepted.
func (p *partition) narrow(ctx context.Context, m *bmap.Map) (*bmap.Map, error) {
	head, err := p.readHead(m)
	if err != nil {
		return nil, err
	}
	found, err := blockdev.ReadTable(p.spec+" of the image", head, m.ImageSize(), p.spec)
	if err != nil {
		return nil, &update.IncompatibleError{Reason: err.Error()}
	}
	p.at, p.size = found.Offset, found.Size
	inner, err := p.compare(ctx, m, head)
	if err != nil {
		return nil, err
	}
	part, err := m.Part(p.at, p.size, func(i int, _ bmap.Span) (string, error) { return inner[i], nil })
	if err != nil {
		return nil, &update.IncompatibleError{Reason: fmt.Sprintf("partition %s of the image: %v", p.spec, err)}
	}
	return part, p.rewind()
}

// rewind opens the image at the beginning of the partition.
func (p *partition) rewind() (err error) {
	_ = p.Close() // of a slot that was planned before
	if p.img, err = p.open(); err != nil {
		return err
	}
	return p.img.Skip(p.at)
}

// again is the partition once more, from its beginning, once narrow was called.
func (p *partition) again(context.Context) (update.ImageCloser, error) {
	again := &partition{spec: p.spec, open: p.open, at: p.at, size: p.size}
	if err := again.rewind(); err != nil {
		return nil, errors.Join(err, again.Close())
	}
	return again, nil
}

// readHead reads the part with the partition table. Unmapped blocks there are zero by definition.
func (p *partition) readHead(m *bmap.Map) ([]byte, error) {
	img, err := p.open()
	if err != nil {
		return nil, err
	}
	defer img.Close()
	head := make([]byte, min(blockdev.TableBytes, m.ImageSize()))
	if n, err := io.ReadFull(img, head); err != nil {
		return nil, &update.SourceError{Offset: int64(n), Err: err}
	}
	for gap := range m.Gaps() {
		if gap.Offset < int64(len(head)) {
			clear(head[gap.Offset:min(int64(len(head)), gap.Offset+gap.Length)])
		}
	}
	return head, nil
}

// compare reads the ranges that the table lies in, and those across the partition's borders, and compares them with the map. It
// returns the checksums of the latter's bytes inside the partition, by index.
func (p *partition) compare(ctx context.Context, m *bmap.Map, head []byte) (inner map[int]string, err error) {
	img, err := p.open()
	if err != nil {
		return nil, err
	}
	defer img.Close()
	inner = map[int]string{}
	for i, r := range m.Ranges() {
		across := r.Offset < p.at+p.size && r.Offset+r.Length > p.at && (r.Offset < p.at || r.Offset+r.Length > p.at+p.size)
		if r.Offset >= int64(len(head)) && !across {
			continue
		}
		if err := img.Skip(r.Offset - img.Offset()); err != nil {
			return nil, &update.SourceError{Offset: img.Offset(), Err: err}
		}
		if inner[i], err = p.compareRange(ctx, m, i, r, img, head); err != nil {
			return nil, err
		}
	}
	return inner, nil
}

// compareRange reads one range of img, which is at its beginning, and compares it with the map and with head.
func (p *partition) compareRange(ctx context.Context, m *bmap.Map, index int, r bmap.Range, img *source.Image, head []byte) (inner string, err error) {
	whole, inside := m.NewHash(), m.NewHash()
	buf := make([]byte, 256<<10)
	for at, end := r.Offset, r.Offset+r.Length; at < end; {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		b := buf[:min(int64(len(buf)), end-at)]
		if _, err := io.ReadFull(img, b); err != nil {
			return "", &update.SourceError{Offset: at, Err: err}
		}
		whole.Write(b)
		if from, to := max(at, p.at), min(at+int64(len(b)), p.at+p.size); from < to {
			inside.Write(b[from-at : to-at])
		}
		if at < int64(len(head)) { // the table that was read is the one that is compared
			copy(head[at:], b)
		}
		at += int64(len(b))
	}
	if got := hex.EncodeToString(whole.Sum(nil)); got != r.Checksum {
		return "", &update.ImageError{Err: &verify.MismatchError{
			Object: fmt.Sprintf("range %d (%s)", index, r), Offset: r.Offset, Length: r.Length, Type: m.ChecksumType(), Got: got, Want: r.Checksum,
		}}
	}
	return hex.EncodeToString(inside.Sum(nil)), nil
}

// Read implements update.Image.
func (p *partition) Read(b []byte) (int, error) {
	if p.moved == p.size {
		return 0, io.EOF
	}
	n, err := p.img.Read(b[:min(int64(len(b)), p.size-p.moved)])
	p.moved += int64(n)
	return n, err
}

// Skip implements update.Image.
func (p *partition) Skip(n int64) error {
	if n > p.size-p.moved {
		return fmt.Errorf("partition %s ends: %w", p.spec, io.ErrUnexpectedEOF)
	}
	p.moved += n
	return p.img.Skip(n)
}

// End implements update.Image. The bytes after the partition in the image are not read.
func (p *partition) End() error {
	if p.moved < p.size {
		return &source.TrailingError{Name: p.spec, Offset: p.moved}
	}
	return nil
}

// Close closes the image.
func (p *partition) Close() error {
	if p.img == nil {
		return nil
	}
	return p.img.Close()
}

// checkPartition checks the value of --from-partition; "" means none.
func checkPartition(spec, image string) error {
	switch {
	case spec == "":
		return nil
	case !strings.HasPrefix(spec, "PARTLABEL=") && !strings.HasPrefix(spec, "PARTUUID="):
		return config.Requestf("--from-partition is %q, expected PARTLABEL=NAME or PARTUUID=UUID", spec)
	case image == "-":
		return config.Requestf("--from-partition reads the image twice, which standard input cannot be")
	}
	return nil
}
