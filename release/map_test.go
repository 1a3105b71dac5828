package release_test

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"updater/bmap"
	"updater/release"
	"updater/verify"
)

func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func updateElement(product, version string, index int64, role string) *bmap.Update {
	return &bmap.Update{Product: product, Version: version, RollbackIndex: index, Role: role}
}

// mapOf makes the map of an image of one block, with an update element unless u is nil.
func mapOf(t testing.TB, u *bmap.Update) (*bmap.Map, []byte) {
	t.Helper()
	f := imageFile(t, "image", 4096)
	m, err := bmap.Create(t.Context(), f, bmap.CreateOptions{Update: u})
	if err != nil {
		t.Fatal(err)
	}
	return m, m.Encode()
}

func TestMap(t *testing.T) {
	weak, err := bmap.FromRanges(4096, "sha1", []bmap.Range{{Length: 4096, Checksum: strings.Repeat("0", 40)}})
	if err != nil {
		t.Fatal(err)
	}
	open, err := bmap.FromRanges(4096, "sha256", []bmap.Range{{Length: 4096}})
	if err != nil {
		t.Fatal(err)
	}
	encoded := func(u *bmap.Update) []byte { _, data := mapOf(t, u); return data }
	for _, tc := range []struct {
		name string
		data []byte
		want error
		text string
	}{
		{"no update element", encoded(nil), nil, ""},
		{"the same", encoded(updateElement("p", "1", 1, "rootfs")), nil, ""},
		{"a part of it", encoded(&bmap.Update{Unmapped: bmap.UnmappedKeep}), nil, ""},
		{"another product", encoded(updateElement("q", "1", 1, "rootfs")), new(release.MapError), `its Product is "q", expected "p"`},
		{"another version", encoded(updateElement("p", "2", 1, "rootfs")), new(release.MapError), "Version"},
		{"a lower index", encoded(updateElement("p", "1", 9, "rootfs")), new(release.MapError), `its RollbackIndex is "9", expected "1"`},
		{"the map of another role", encoded(updateElement("p", "1", 1, "boot")), new(release.MapError), "Role"},
		{"no map", []byte("<bmap"), new(bmap.SyntaxError), "r.bmap"},
		{"weak checksums", weak.Encode(), new(verify.SignatureError), "sha1"},
		{"a range without a checksum", open.Encode(), new(verify.SignatureError), "not signed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := parse(t, small(sumA, sumOf(tc.data)))
			m, err := r.Map(r.Images()[0], tc.data)
			if tc.want == nil {
				if err != nil || m.ImageSize() != 4096 {
					t.Errorf("Map() = %v, %v", m, err)
				}
				return
			}
			if m != nil || !sameError(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("Map() = %v, %T %v; want %T with %q", m, err, err, tc.want, tc.text)
			}
		})
	}
}

func TestMapMustBePinned(t *testing.T) {
	_, data := mapOf(t, nil)
	_, other := mapOf(t, &bmap.Update{Version: "1"})
	r := parse(t, small(sumA, sumOf(data))+strings.Replace(image("boot", ""), sumB, sumOf(other), 1))
	images := r.Images()
	for name, tc := range map[string]struct {
		image release.Image
		data  []byte
	}{
		"one byte more":         {images[0], append([]byte("\n"), data...)},
		"map of another role":   {images[0], other},
		"swapped the other way": {images[1], data},
	} {
		if _, err := r.Map(tc.image, tc.data); !sameError(err, new(release.PinError)) {
			t.Errorf("%s: Map() = %T %v; want a PinError", name, err, err)
		}
	}
	if _, err := r.Map(images[1], other); err != nil {
		t.Errorf("Map() = %v", err)
	}
	if m, err := r.Map(release.Image{Role: "rootfs", BmapSHA256: sumOf(other)}, other); m != nil || err == nil {
		t.Errorf("Map() of an image that the release does not have = %v, %v", m, err)
	}
}
