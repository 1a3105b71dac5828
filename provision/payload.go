package provision

import (
	"context"
	"fmt"
	"io"

	"updater/bmap"
	"updater/update"
)

// Image is an opened image stream.
type Image interface {
	update.Image
	io.Closer
}

// Payload is a signed image and where it goes.
type Payload struct {
	Name      string
	Partition string           // "" is the whole disk
	Doc       *update.Document // accepted, see update.Accept
	Open      func(ctx context.Context) (Image, error)
}

func (pl *Payload) keepUnmapped() bool {
	u := pl.Doc.Map.Update()
	return u != nil && u.Unmapped == bmap.UnmappedKeep
}

func (pl *Payload) record() ImageRecord {
	r := ImageRecord{
		Name: pl.Name, Partition: pl.Partition, Bmap: pl.Doc.Checksum, Signers: pl.Doc.Signers,
		ImageBytes: pl.Doc.Map.ImageSize(), MappedBytes: pl.Doc.Map.MappedBytes(),
	}
	if u := pl.Doc.Map.Update(); u != nil {
		r.Product, r.Version = u.Product, u.Version
		if pl.Doc.Map.ChecksumType() == "sha256" {
			r.Image = u.ImageChecksum
		}
	}
	return r
}

// stream sends the image once to all outs.
func (pl *Payload) stream(ctx context.Context, outs []*Out, o FanOptions) (err error) {
	image, err := pl.Open(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = image.Close() }()
	return FanOut(ctx, pl.Doc.Map, image, outs, o)
}

// shifted is a sink that begins at off of another one.
type shifted struct {
	Sink
	off int64
}

func (s shifted) WriteAt(p []byte, off int64) (int, error) { return s.Sink.WriteAt(p, s.off+off) }
func (s shifted) Zero(off, length int64) error             { return s.Sink.Zero(s.off+off, length) }

// place is where a payload begins on the disk of a unit and how much room it has there.
func (pl *Payload) place(u *unit) (off, room int64, err error) {
	if pl.Partition == "" {
		return 0, u.disk.Size, nil
	}
	for _, p := range u.parts {
		if p.Name == pl.Partition {
			return p.Offset, p.Length, nil
		}
	}
	return 0, 0, fmt.Errorf("partition %s is not on the disk", pl.Partition)
}

// fits refuses a payload that is larger than its place.
func (pl *Payload) fits(u *unit) error {
	_, room, err := pl.place(u)
	if err != nil {
		return err
	}
	if need := pl.Doc.Map.ImageSize(); need > room {
		where := u.Name
		if pl.Partition != "" {
			where += " partition " + pl.Partition
		}
		return &TooSmallError{Disk: where, Size: room, Need: need, Why: "image " + pl.Name}
	}
	return nil
}
