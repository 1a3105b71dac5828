package medium

import (
	"context"
	"errors"
	"fmt"

	"updater/bmap"
	"updater/provision/record"
	"updater/update"
)

// Payload is a signed image and its place.
type Payload struct {
	Name      string
	Partition string           // "" is the whole disk
	Doc       *update.Document // accepted, see update.Accept
	Open      func(ctx context.Context) (update.ImageCloser, error)
}

// KeepsHoles reports whether holes keep the old content, by the signed document.
func (pl *Payload) KeepsHoles() bool {
	u := pl.Doc.Map.Update()
	return u != nil && u.Unmapped == bmap.UnmappedKeep
}

// Record describes the image for a record.
func (pl *Payload) Record() record.Image {
	m := pl.Doc.Map
	r := record.Image{
		Name: pl.Name, Partition: pl.Partition, Bmap: pl.Doc.Checksum, Signers: pl.Doc.Signers, ImageBytes: m.ImageSize(), MappedBytes: m.MappedBytes(),
	}
	if u := m.Update(); u != nil {
		r.Product, r.Version = u.Product, u.Version
		if m.ChecksumType() == "sha256" {
			r.Image = u.ImageChecksum
		}
	}
	return r
}

// readBackBuffer is the memory of a read-back for each disk.
const readBackBuffer = 256 << 10

func (m *Medium) readBack(pl *Payload, progress func(n int64)) (update.ReadBack, error) {
	base, _, err := m.place(pl.Partition)
	b := update.ReadBack{Map: pl.Doc.Map, Unmapped: update.UnmappedZero, Offset: base, Sizes: update.Sizes{Read: readBackBuffer}, Progress: progress}
	if pl.KeepsHoles() {
		b.Unmapped = update.UnmappedKeep
	}
	return b, err
}

// ReadBackBytes is the number of bytes that [Medium.Compare] reads for the images.
func ReadBackBytes(images []*Payload) (total int64) {
	for _, pl := range images {
		if pl.KeepsHoles() {
			total += pl.Doc.Map.MappedBytes()
		} else {
			total += pl.Doc.Map.ImageSize()
		}
	}
	return total
}

// Mismatches are the ranges of each image that differ.
type Mismatches [][]update.Mismatch

// Compare compares all images with the medium, past the page cache. It returns nil if nothing differs. Errors: [Error] also if more
// than update.MaxRepair ranges differ; the cause of a cancelled context.
func (m *Medium) Compare(ctx context.Context, images []*Payload, progress func(n int64)) (Mismatches, error) {
	all, n := make(Mismatches, len(images)), 0
	for i, pl := range images {
		b, err := m.readBack(pl, progress)
		if err != nil {
			return nil, err
		}
		if all[i], err = b.Compare(ctx, m); err != nil {
			return nil, m.attribute("verifying", err)
		}
		if n += len(all[i]); n > update.MaxRepair {
			return nil, m.Fail("verifying", fmt.Errorf("more than %d ranges differ; %w", update.MaxRepair, all[i][0].Err))
		}
	}
	if n == 0 {
		return nil, nil
	}
	return all, nil
}

// Repair rewrites the mismatches, flushes, and reads them back, see update.ReadBack.
func (m *Medium) Repair(ctx context.Context, images []*Payload, bad Mismatches) error {
	for i, pl := range images {
		if len(bad[i]) == 0 {
			continue
		}
		b, err := m.readBack(pl, nil)
		if err != nil {
			return err
		}
		if err := b.Repair(ctx, bulk{m.watched, m.writer, 0}, bad[i], pl.Open); err != nil {
			return m.attribute("repairing", err)
		}
	}
	return nil
}

// attribute makes an error of a read-back one of the medium, unless it is the image's or the context's.
func (m *Medium) attribute(step string, err error) error {
	_, reading := errors.AsType[*update.ReadBackError](err)
	_, writing := errors.AsType[*update.WriteError](err)
	if reading || writing {
		return m.Fail(step, err)
	}
	return fmt.Errorf("%s: %w", m.unit, err)
}
