package powercut

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"updater/release"
	"updater/update"
)

// roleNames are the roles of a slot; a device has the first ones.
var roleNames = []string{"boot", "dtb", "rootfs"}

// roleAt is where each role lies in a slot, by the number of roles; every image is larger than the last of these.
var roleAt = map[int][]int64{1: {0}, 2: {0, 32 << 10}, 3: {0, 16 << 10, 32 << 10}}

// extent is the partition of a role in a slot, in bytes.
func extent(roles int, role string) (off, size int64) {
	places := append(roleAt[roles], slotSize)
	for i := range roles {
		if roleNames[i] == role {
			return places[i], places[i+1] - places[i]
		}
	}
	return 0, slotSize
}

// set is an image as a release: a part of it for each role. It implements update.Images.
type set struct {
	doc, sig []byte
	identity string
	maps     map[string][]byte
	parts    map[string][]byte
}

// releases are the releases of an image by the number of its roles.
func (img *image) release(t testing.TB, path string, roles int) (*set, error) {
	s := &set{maps: map[string][]byte{}, parts: map[string][]byte{}}
	c := release.Contents{Product: "demo", Version: img.name, RollbackIndex: img.index, Created: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	for _, role := range roleNames[:roles] {
		off, size := extent(roles, role)
		s.parts[role] = img.data[off:min(off+size, int64(len(img.data)))]
		m, err := mapOf(t, path, s.parts[role], 4096)
		if err != nil {
			return nil, err
		}
		s.maps[role] = m.Encode()
		c.Images = append(c.Images, release.Image{
			Role: role, File: role + ".img", Bmap: role + ".bmap", BmapSHA256: fmt.Sprintf("%x", sha256.Sum256(s.maps[role])),
		})
	}
	r, err := release.New(c)
	if err != nil {
		return nil, err
	}
	s.doc, s.identity = r.Encode(), r.Identity()
	var sig bytes.Buffer
	if err := openpgp.DetachSign(&sig, []*openpgp.Entity{images.signer}, bytes.NewReader(s.doc), nil); err != nil {
		return nil, err
	}
	s.sig = sig.Bytes()
	return s, nil
}

func (s *set) Map(_ context.Context, i release.Image) ([]byte, error) { return s.maps[i.Role], nil }

func (s *set) Open(_ context.Context, i release.Image) (update.ImageCloser, int64, error) {
	data := s.parts[i.Role]
	return stream{bytes.NewReader(data)}, int64(len(data)), nil
}
