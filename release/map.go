package release

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"

	"updater/bmap"
	"updater/verify"
)

// Bare returns the release that a bare block map stands for: one image of a role, for every slot. m is the map, and sha256 the checksum of
// the bytes it was parsed from, as hex digits. Fields that the map lacks are empty. The error is a [MapError] if the map is for another role.
func Bare(m *bmap.Map, sha256, role string) (*Release, error) {
	var u bmap.Update
	if p := m.Update(); p != nil {
		u = *p
	}
	if u.Role != "" && u.Role != role {
		return nil, &MapError{Field: "Role", Got: u.Role, Want: role}
	}
	c := Contents{
		Product: u.Product, Version: u.Version, RollbackIndex: u.RollbackIndex, Created: u.Created, Expires: u.Expires,
		Images: []Image{{Role: role, BmapSHA256: sha256}},
	}
	return &Release{contents: c, bare: true, identity: c.identity()}, nil
}

// Map parses the block map of one of the release's images. data is the content of the file [Image.Bmap]: it must have the
// checksum that the release pins, or the error is a [PinError] and nothing of it is parsed. An update element in it must
// not contradict the release, see [MapError]. The map must pin every mapped byte by a strong checksum, else the error is a
// [verify.SignatureError]; other errors are a [bmap.SyntaxError].
func (r *Release) Map(i Image, data []byte) (*bmap.Map, error) {
	if !slices.Contains(r.contents.Images, i) {
		return nil, fmt.Errorf("internal error: image %q is not of this release", imageLabel(i))
	}
	sum := sha256.Sum256(data)
	if got := hex.EncodeToString(sum[:]); got != i.BmapSHA256 {
		return nil, &PinError{File: i.Bmap, Got: got, Want: i.BmapSHA256}
	}
	m, err := bmap.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("block map %q: %w", i.Bmap, err)
	}
	if err := r.agrees(i, m); err != nil {
		return nil, err
	}
	if err := everythingIsPinned(m); err != nil {
		return nil, fmt.Errorf("block map %q: %w", i.Bmap, err)
	}
	return m, nil
}

// agrees refuses a map whose update element contradicts the release. Fields that the element lacks come from the release.
func (r *Release) agrees(i Image, m *bmap.Map) error {
	u := m.Update()
	if u == nil {
		return nil
	}
	index := ""
	if u.RollbackIndex != 0 {
		index = strconv.FormatInt(u.RollbackIndex, 10)
	}
	for _, f := range []struct{ field, got, want string }{
		{"Product", u.Product, r.contents.Product},
		{"Version", u.Version, r.contents.Version},
		{"RollbackIndex", index, strconv.FormatInt(r.contents.RollbackIndex, 10)},
		{"Role", u.Role, i.Role},
	} {
		if f.got != "" && f.got != f.want {
			return &MapError{File: i.Bmap, Field: f.field, Got: f.got, Want: f.want}
		}
	}
	return nil
}

// everythingIsPinned refuses a map whose checksums do not pin every mapped byte.
func everythingIsPinned(m *bmap.Map) error {
	switch m.ChecksumType() {
	case "sha256", "sha384", "sha512":
	default:
		return &verify.SignatureError{
			Reason: fmt.Sprintf("checksums of the block map are %s, expected sha256, sha384 or sha512", m.ChecksumType()),
			Advice: "make the block map again with updater bmap create",
		}
	}
	if err := m.CheckSummed(); err != nil {
		return &verify.SignatureError{Reason: "a part of the image is not signed", Err: err, Advice: "make the block map again with updater bmap create"}
	}
	return nil
}
