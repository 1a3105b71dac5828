package install

import (
	"context"
	"fmt"

	"updater/device/config"
	"updater/release"
	"updater/verify"
)

// Documents name the signed document of an image. An empty field means the file beside the image.
type Documents struct {
	Bmap      string // path or address
	Signature string // detached; path or address
	Unsigned  bool   // a missing signature is no error
}

// Signed is a bmap and its signature as they were found.
type Signed struct{ UnverifiedBmap, UnverifiedSig []byte }

// Find reads the signature of a bmap and then the bmap; the signature is nil for a clearsigned bmap. A detached signature that no key of
// from.Trust can have made is refused before the bmap is read. The bmap is bounded by from.Trust. Errors: [config.RequestError],
// [verify.SignatureError], also if there is no signature, source.FetchError.
func (d Documents) Find(ctx context.Context, image string, from *Origins) (files Signed, err error) {
	err = from.mirrored(image, func(at string) (err error) { files, err = d.find(ctx, at, from); return err })
	return files, err
}

// find is Find at one place, where both are.
func (d Documents) find(ctx context.Context, image string, from *Origins) (Signed, error) {
	var files Signed
	path, limit := d.Bmap, from.Trust.Limit(release.TypeMap)
	signature := func(bmap string) (err error) {
		files.UnverifiedSig, err = from.signature(ctx, release.TypeMap, bmap, d.Signature)
		return err
	}
	var err error
	switch {
	case path != "":
		if err = signature(path); err == nil {
			files.UnverifiedBmap, err = from.Read(ctx, path, limit)
		}
	case image == "" || image == "-":
		return files, config.Requestf("the bmap of standard input has no place to be found; name it with --bmap")
	default:
		path, files.UnverifiedBmap, err = from.findBmap(ctx, image, limit, signature)
	}
	clearsigned := verify.IsClearsigned(files.UnverifiedBmap)
	switch {
	case err != nil:
		return files, fmt.Errorf("reading the bmap: %w", err)
	case clearsigned && d.Signature == "":
		files.UnverifiedSig = nil
	case files.UnverifiedSig == nil && !d.Unsigned:
		path = ImageName(path)
		return files, &verify.SignatureError{Reason: fmt.Sprintf("%s is not signed: it is not clearsigned, and neither %s.asc nor %s.sig exists", path, path, path)}
	}
	return files, nil
}
