package install

import (
	"context"
	"fmt"

	"updater/device/config"
	"updater/verify"
)

// Documents say where the signed document of an image is. What they do not name is looked for beside the image.
type Documents struct {
	Bmap      string // path or address
	Signature string // detached; path or address
	Unsigned  bool   // a missing signature is no error
}

// Signed is a bmap and its signature as they were found.
type Signed struct{ UnverifiedBmap, UnverifiedSig []byte }

// Find reads the bmap and its signature, which is nil for a clearsigned bmap. Both are bounded by verify.MaxDocumentSize and
// verify.MaxSignatureSize. Errors: [config.RequestError], [verify.SignatureError] when there is no signature, source.FetchError.
func (d Documents) Find(ctx context.Context, image string, from *Origins) (Signed, error) {
	const maxBmap = verify.MaxDocumentSize + verify.MaxSignatureSize // it may be clearsigned
	var files Signed
	path := d.Bmap
	var err error
	switch {
	case path != "":
		files.UnverifiedBmap, err = from.Read(ctx, path, maxBmap)
	case image == "" || image == "-":
		return files, config.Requestf("the bmap of standard input has no place to be found; name it with --bmap")
	default:
		path, files.UnverifiedBmap, err = from.findBmap(ctx, image, maxBmap)
	}
	if err != nil {
		return files, fmt.Errorf("reading the bmap: %w", err)
	}
	switch {
	case d.Signature != "":
		files.UnverifiedSig, err = from.Read(ctx, d.Signature, verify.MaxSignatureSize)
	case !verify.IsClearsigned(files.UnverifiedBmap):
		var found bool
		if files.UnverifiedSig, found, err = from.FindSignature(ctx, path); err == nil && !found && !d.Unsigned {
			return files, &verify.SignatureError{Reason: fmt.Sprintf("%s is not signed: it is not clearsigned, and neither %s.asc nor %s.sig exists", path, path, path)}
		}
	}
	if err != nil {
		return files, fmt.Errorf("reading the signature: %w", err)
	}
	return files, nil
}
