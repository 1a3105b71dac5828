package install

import (
	"context"
	"errors"

	"updater/bmap"
	"updater/device"
	"updater/device/config"
	"updater/release"
	"updater/update"
)

// Scrub compares the slots with the installed releases, see [device.Scrub]. With repair, a damaged slot that was good is written again by its
// kept documents, from the running slot if that holds the same ranges, else from its recorded source; then it is the fallback again.
func Scrub(ctx context.Context, c *config.Config, repair bool, in Inputs) ([]device.Scrubbed, error) {
	if !repair {
		return device.Scrub(ctx, c, nil)
	}
	return device.Scrub(ctx, c, func(ctx context.Context, dev *device.Device, slot string) error {
		return restore(ctx, dev, slot, in)
	})
}

// restore is an install of the release that the slot held. It ends with the slot as the fallback instead of a switch.
func restore(ctx context.Context, dev *device.Device, slot string, in Inputs) error {
	trust, err := dev.Trust(nil)
	if err != nil {
		return err
	}
	from := NewOrigins(dev.Config, in, dev.State().Time)
	defer from.Close()
	from.Trust = trust.Trust
	k := &kept{from: from, opened: map[string]bool{}}
	if k.Kept, err = dev.Kept(slot); err != nil {
		return err
	}
	dev.Restoring(slot)
	dev.Source = k.Source
	job := jobOf(dev, trust.Policy)
	job.Document, job.Signature, job.Slot, job.Identity = k.Document, k.Signature, slot, dev.State().Damaged[slot]
	job.Restore, job.ForceFromBad = dev.RestoreFallback, true
	if k.Maps != nil {
		job.Images = k
	} else {
		job.Role, job.Reopen, job.ImageSize = dev.Config.Slot[0].Roles()[0], from.reopen(k.Source), -1
		job.Image = &spare{unread{}, func() (update.ImageCloser, error) { return job.Reopen(ctx) }}
	}
	_, err = update.Install(ctx, job)
	return err
}

// kept are the kept documents of a slot, and its images. It implements update.Images.
type kept struct {
	device.Kept
	from   *Origins
	opened map[string]bool // roles whose image was asked for
}

// Map implements update.Images.
func (k *kept) Map(_ context.Context, i release.Image) ([]byte, error) { return k.Maps[i.Role], nil }

// Open implements update.Images.
func (k *kept) Open(ctx context.Context, i release.Image) (update.ImageCloser, int64, error) {
	document, _ := releaseDocument(k.Source)
	open := func() (update.ImageCloser, error) { return k.from.reopen(Beside(document, i.File))(ctx) }
	if !k.opened[i.Role] {
		k.opened[i.Role] = true
		return &spare{unread{}, open}, -1, nil
	}
	image, err := open()
	return image, -1, err
}

// spare is an image that is opened when its plan needs a range of it, so that a repair out of the running slot needs no server.
type spare struct {
	update.ImageCloser
	open func() (update.ImageCloser, error)
}

// Plan implements update.Sparse.
func (s *spare) Plan(m *bmap.Map, want []bmap.Span) (update.Fetch, error) {
	if len(want) == 0 {
		return update.Fetch{Parts: true}, nil
	}
	image, err := s.open()
	if err != nil {
		return update.Fetch{}, err
	}
	s.ImageCloser = image
	if sparse, ok := image.(update.Sparse); ok {
		return sparse.Plan(m, want)
	}
	return update.Fetch{Parts: true}, nil
}

// unread is an image of which nothing is read.
type unread struct{}

func (unread) Read([]byte) (int, error) { return 0, errors.ErrUnsupported }
func (unread) Skip(int64) error         { return nil }
func (unread) End() error               { return nil }
func (unread) Close() error             { return nil }
