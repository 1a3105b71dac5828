package install

import (
	"context"

	"updater/release"
	"updater/update"
)

// Set is a release document as it was found, and the place of its images.
type Set struct {
	UnverifiedDocument, UnverifiedSig []byte // the signature is nil for a clearsigned document

	from     *Origins
	document string
}

// FindRelease reads a release document, from a file, the folder that holds it, or the address of either. An empty signature means the
// one beside the document. Errors: [verify.SignatureError] if there is no signature, source.FetchError.
func (o *Origins) FindRelease(ctx context.Context, name, signature string) (*Set, error) {
	document, _ := releaseDocument(name)
	doc, sig, err := o.Document(ctx, release.TypeRelease, document, signature)
	if err != nil {
		return nil, err
	}
	return &Set{UnverifiedDocument: doc, UnverifiedSig: sig, from: o, document: document}, nil
}

// Images opens block maps and images of the release.
func (s *Set) Images() update.Images {
	return &images{from: s.from, document: s.document, maps: map[string][]byte{}}
}
