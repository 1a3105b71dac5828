package install

import (
	"context"
	"time"

	"updater/device"
	"updater/device/config"
	"updater/update"
	"updater/verify"
)

// VerifyRequest is one check of a signed document, and of an image against it.
type VerifyRequest struct {
	Config    *config.Config // of a host: the zero value
	Device    bool           // Config is that of the device that the image is for: its product, floor and required fields count
	Keyring   []string
	Documents Documents
	Image     string // "" checks the document alone
	Role      string // "" is that of the document
}

// Verdict is a document that was accepted.
type Verdict struct {
	Trusted       bool            `json:"trusted"`
	Signers       []verify.Signer `json:"signers"`
	TrustedTime   time.Time       `json:"trusted_time,omitzero"` // the clock that it was judged by
	Product       string          `json:"product,omitempty"`
	Version       string          `json:"version,omitempty"`
	Role          string          `json:"role,omitempty"`
	RollbackIndex int64           `json:"rollback_index,omitempty"`
	ImageBytes    int64           `json:"image_bytes"`
	MappedBytes   int64           `json:"mapped_bytes"`
	Ranges        int             `json:"ranges"`
	ImageVerified bool            `json:"image_verified"` // the image was given, and every mapped range matches
	Warnings      []string        `json:"warnings,omitempty"`
}

// Verify checks a document and an image and writes nothing. Errors: those of update.Accept and update.CheckImage, [config.RequestError].
func Verify(ctx context.Context, r VerifyRequest, in Inputs) (*Verdict, error) {
	if r.Image == "" && r.Documents.Bmap == "" {
		return nil, config.Requestf("nothing to verify; name an image or --bmap")
	}
	c := update.Conditions{Product: update.AnyProduct, Role: r.Role}
	var known device.Known
	if r.Device {
		known = remembered(r.Config, in.Warn)
		c.Product, c.Require, c.Floor = r.Config.Product, r.Config.Trust.Required(), known.Floor
	}
	trust, err := trusted(r.Config, r.Keyring, known, in.Warn)
	if err != nil {
		return nil, err
	}
	c.Policy = trust.Policy
	from := NewOrigins(r.Config, in, known.Time)
	defer from.Close()
	from.Trust = trust.Trust
	files, err := r.Documents.Find(ctx, r.Image, from)
	if err != nil {
		return nil, err
	}
	doc, err := update.Accept(files.UnverifiedBmap, files.UnverifiedSig, c)
	if err != nil {
		return nil, err
	}
	v := &Verdict{
		Trusted: true, Signers: doc.Signers, TrustedTime: c.Policy.Time.UTC(), Warnings: doc.Warnings,
		Ranges: doc.Map.Len(), ImageBytes: doc.Map.ImageSize(), MappedBytes: doc.Map.MappedBytes(),
	}
	if u := doc.Map.Update(); u != nil {
		v.Product, v.Version, v.Role, v.RollbackIndex = u.Product, u.Version, u.Role, u.RollbackIndex
	}
	if r.Image == "" {
		return v, nil
	}
	img, _, err := from.Open(ctx, r.Image)
	if err != nil {
		return nil, err
	}
	defer img.Close()
	v.ImageVerified = true
	return v, update.CheckImage(ctx, doc.Map, img)
}
