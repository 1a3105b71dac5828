package install

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	"updater/device"
	"updater/device/config"
	"updater/release"
	"updater/source"
	"updater/update"
	"updater/verify"
)

// VerifyReleaseRequest is one check of a release, on a host or as a device would judge it.
type VerifyReleaseRequest struct {
	Config    *config.Config // of a host: the zero value
	Device    bool           // Config is that of the device that the release is for: its product, slots and floor count
	Keyring   []string
	Path      string // of the document
	Signature string // "" is beside the document, or in it
	Documents bool   // do not read the images
}

// ReleaseVerdict is a release that was accepted.
type ReleaseVerdict struct {
	Release        *release.Release
	Signers        []verify.Signer
	TrustedTime    time.Time // the clock that it was judged by
	ImagesVerified bool      // every mapped range of every image matches
}

// VerifyRelease checks a release document, the block maps that it pins, and the images, and writes nothing. Errors: those of
// update.AcceptRelease, [release.Release.Map] and [release.Release.ForSlot], those of update.CheckImage.
func VerifyRelease(ctx context.Context, r VerifyReleaseRequest, in Inputs) (*ReleaseVerdict, error) {
	c := update.Conditions{Product: update.AnyProduct, Hardware: []string{update.AnyHardware}}
	var known device.Known
	if r.Device {
		known = remembered(r.Config, in.Warn)
		c.Product, c.Floor = r.Config.Product, known.Floor
		if r.Config.Hardware != "" { // the device tree is that of this machine, which need not be the device
			c.Hardware = []string{r.Config.Hardware}
		}
	}
	trust, err := trusted(r.Config, r.Keyring, known, in.Warn)
	if err != nil {
		return nil, err
	}
	c.Policy = trust.Policy
	from := NewOrigins(r.Config, in, known.Time)
	defer from.Close()
	from.Trust = trust.Trust
	doc, sig, err := from.Document(ctx, release.TypeRelease, r.Path, r.Signature)
	if err != nil {
		return nil, err
	}
	opened, err := update.AcceptRelease(doc, sig, c)
	if err != nil {
		return nil, err
	}
	rel := opened.Release
	if r.Device {
		if err := FitsSlots(rel, r.Config); err != nil {
			return nil, err
		}
	}
	for _, i := range rel.Images() {
		if err := r.checkImage(ctx, rel, i, from); err != nil {
			return nil, err
		}
	}
	return &ReleaseVerdict{Release: rel, Signers: opened.Signers, TrustedTime: c.Policy.Time.UTC(), ImagesVerified: !r.Documents}, nil
}

// ReadDocument reads an unsigned document of at most the size that one of its type may have.
func ReadDocument(path string, kind release.Type) ([]byte, error) {
	f, err := source.OpenFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the %s: %w", kind, err)
	}
	defer f.Close()
	data, err := release.Trust{}.Read(f, kind)
	if err != nil {
		return nil, fmt.Errorf("reading the %s: %w", kind, err)
	}
	return data, nil
}

// Document reads an unverified document, from a file or an address, and its detached signature, which is nil for a clearsigned one.
// An empty signature means the one beside the document. The signature is read and judged first, see signature.
func (o *Origins) Document(ctx context.Context, kind release.Type, path, signature string) (doc, sig []byte, err error) {
	err = o.mirrored(path, func(at string) (err error) { doc, sig, err = o.document(ctx, kind, at, signature); return err })
	return doc, sig, err
}

// document is Document at one place, where both are.
func (o *Origins) document(ctx context.Context, kind release.Type, path, signature string) (doc, sig []byte, err error) {
	if sig, err = o.signature(ctx, kind, path, signature); err != nil {
		return nil, nil, err
	}
	if remote, aerr := o.address(path); aerr != nil {
		return nil, nil, aerr
	} else if !remote {
		doc, err = ReadDocument(path, kind)
	} else if doc, err = o.client.Fetch(ctx, path, o.Trust.Limit(kind)); err != nil {
		err = fmt.Errorf("reading the %s: %w", kind, err)
	}
	if err != nil {
		return nil, nil, err
	}
	switch clearsigned := verify.IsClearsigned(doc); {
	case clearsigned && signature == "":
		sig = nil
	case sig == nil:
		path = ImageName(path)
		return nil, nil, &verify.SignatureError{
			Reason: fmt.Sprintf("%s is not signed: it is not clearsigned, and neither %s.asc nor %s.sig exists", path, path, path),
			Advice: "sign it: gpg --armor --detach-sign " + path,
		}
	}
	return doc, sig, nil
}

// Beside is the path or address of a file that a document names. The name is relative and confined, as package release accepts no other.
func Beside(document, name string) string {
	if u, remote, err := source.ParseURL(document); err == nil && remote {
		return u.ResolveReference(&url.URL{Path: name}).String()
	}
	return filepath.Join(filepath.Dir(document), filepath.FromSlash(name))
}

// FitsSlots refuses a release that does not fit the slots of the device. Errors: release.SlotError.
func FitsSlots(r *release.Release, c *config.Config) error {
	l := c.Layout()
	for _, slot := range l.Slots {
		if _, err := r.ForSlot(slot, l); err != nil {
			return err
		}
	}
	return nil
}

// checkImage checks one block map, and the image against it.
func (r VerifyReleaseRequest) checkImage(ctx context.Context, rel *release.Release, i release.Image, from *Origins) error {
	data, err := from.Read(ctx, Beside(r.Path, i.Bmap), from.Trust.Limit(release.TypeMap))
	if err != nil {
		return fmt.Errorf("reading a block map: %w", err)
	}
	m, err := rel.Map(i, data)
	if err != nil || r.Documents {
		return err
	}
	img, size, err := from.Open(ctx, Beside(r.Path, i.File))
	if err != nil {
		return err
	}
	defer img.Close()
	if size >= 0 && size != m.ImageSize() {
		err = &update.ImageError{Err: fmt.Errorf("it has %d bytes, the block map says %d", size, m.ImageSize())}
	} else {
		err = update.CheckImage(ctx, m, img)
	}
	if err != nil {
		return fmt.Errorf("image %s: %w", i.File, err)
	}
	return nil
}
