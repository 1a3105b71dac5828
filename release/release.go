package release

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Contents are the fields of a release. Its strings obey the limits of the format once a [Release] was made of it.
type Contents struct {
	Product       string            `json:"product"` // the device it is for
	Hardware      []string          `json:"hardware,omitempty"`
	Version       string            `json:"version"`        // for people and records
	RollbackIndex int64             `json:"rollback_index"` // only grows; a device refuses an index below its floor
	Created       time.Time         `json:"created"`
	Expires       time.Time         `json:"expires,omitzero"` // zero: never
	Notes         string            `json:"notes,omitempty"`  // for people; may be empty
	Images        []Image           `json:"images"`
	Meta          map[string]string `json:"meta,omitempty"`   // for hooks and reports; otherwise ignored
	Keyring       KeyringRef        `json:"keyring,omitzero"` // zero: none
}

// Image is one image of a release: the content of one role of the slot.
type Image struct {
	Role       string `json:"role"`           // such as "rootfs"
	Slot       string `json:"slot,omitempty"` // the only slot it is for; "" is every slot
	File       string `json:"file"`           // of the image, relative to the release; "" in the release of a bare block map
	Bmap       string `json:"bmap"`           // of its block map, relative to the release; "" in the release of a bare block map
	BmapSHA256 string `json:"bmap_sha256"`    // of the block map's file, lower-case hex
}

// KeyringRef names the keyring that a release or a channel was published with.
type KeyringRef struct {
	Number int64  `json:"number"` // from 1; 0 means none
	Path   string `json:"path"`   // relative to the document that names it
	SHA256 string `json:"sha256"` // of the keyring's file, lower-case hex
}

// Release is one valid release. It is immutable and safe for concurrent use. [Parse], [New], [Bare] and [Build] make it.
type Release struct {
	contents Contents
	bare     bool
	identity string
}

// Parse reads a release document and checks all of it. Errors: [SyntaxError], [TypeError], [UnsupportedError].
func Parse(data []byte) (*Release, error) {
	r := new(Release)
	d, err := decode(TypeRelease, data, r.contents.open)
	if err != nil {
		return nil, err
	}
	if err := r.contents.check(); err != nil {
		return nil, d.locate(err)
	}
	r.identity = r.contents.identity()
	return r, nil
}

// New makes a release of its contents, by the rules of [Parse]. The error is a [SyntaxError] without a line.
func New(c Contents) (*Release, error) {
	r, err := Parse(c.encode())
	return r, withoutLine(err)
}

// Encode returns the document in its canonical spelling: the same release gives the same bytes, and Parse of them gives an
// equal release. The release of a bare block map has no document; its Encode is nil.
func (r *Release) Encode() []byte {
	if r.bare {
		return nil
	}
	return r.contents.encode()
}

// Contents returns a copy of all fields.
func (r *Release) Contents() Contents {
	c := r.contents
	c.Hardware, c.Images, c.Meta = slices.Clone(c.Hardware), slices.Clone(c.Images), maps.Clone(c.Meta)
	return c
}

// Product returns the device that the release is for; "" only in the release of a bare block map that names none.
func (r *Release) Product() string { return r.contents.Product }

// Hardware returns the hardware revisions that the release is for; none is every revision.
func (r *Release) Hardware() []string { return slices.Clone(r.contents.Hardware) }

// Version returns the version, for people.
func (r *Release) Version() string { return r.contents.Version }

// Notes returns text or an address for people; it may be empty.
func (r *Release) Notes() string { return r.contents.Notes }

// Expires returns the last moment to install the release, in UTC; the zero time is never.
func (r *Release) Expires() time.Time { return r.contents.Expires }

// Order returns the place of the release among those of its product.
func (r *Release) Order() Order { return Order{r.contents.RollbackIndex, r.contents.Created} }

// Images returns all images, in the order of the document.
func (r *Release) Images() []Image { return slices.Clone(r.contents.Images) }

// Roles returns the distinct roles, in the order of the document.
func (r *Release) Roles() []string {
	var roles []string
	for _, i := range r.contents.Images {
		if !slices.Contains(roles, i.Role) {
			roles = append(roles, i.Role)
		}
	}
	return roles
}

// Meta returns the strings for hooks and reports.
func (r *Release) Meta() map[string]string { return maps.Clone(r.contents.Meta) }

// Keyring returns the keyring that the release was published with; its Number is 0 if it names none.
func (r *Release) Keyring() KeyringRef { return r.contents.Keyring }

// Order is the place of a release among those of its product.
type Order struct {
	RollbackIndex int64
	Created       time.Time
}

// Newer reports whether o comes after p: by the rollback index, then by the time of creation.
func (o Order) Newer(p Order) bool {
	if o.RollbackIndex != p.RollbackIndex {
		return o.RollbackIndex > p.RollbackIndex
	}
	return o.Created.After(p.Created)
}

// open begins a table of a release document.
func (c *Contents) open(header string) (*table, error) {
	switch header {
	case "":
		return &table{fields: c.fields()}, nil
	case "[[image]]":
		if len(c.Images) == maxImages {
			return nil, fmt.Errorf("image %d is one too many, expected at most %d", maxImages+1, maxImages)
		}
		c.Images = append(c.Images, Image{})
		n := len(c.Images)
		return &table{name: imageName(n - 1), fields: c.Images[n-1].fields()}, nil
	case "[meta]":
		c.Meta = map[string]string{}
		return &table{name: "meta", free: c.Meta}, nil
	case "[keyring]":
		return &table{name: "keyring", fields: c.Keyring.fields()}, nil
	}
	return nil, nil
}

func imageName(i int) string { return fmt.Sprintf("image %d", i+1) }

func (c *Contents) fields() []field {
	return []field{
		text("product", &c.Product, plain(maxLabel)),
		list("hardware", &c.Hardware, plain(maxLabel)).opt(),
		text("version", &c.Version, plain(maxLabel)),
		integer("rollback_index", &c.RollbackIndex, 0, maxIndex),
		moment("created", &c.Created),
		moment("expires", &c.Expires).opt(),
		text("notes", &c.Notes, plain(maxText)).opt(),
	}
}

func (i *Image) fields() []field {
	return []field{
		text("role", &i.Role, name),
		text("slot", &i.Slot, name).opt(),
		text("file", &i.File, path),
		text("bmap", &i.Bmap, path),
		text("bmap_sha256", &i.BmapSHA256, digest),
	}
}

func (k *KeyringRef) fields() []field {
	return []field{
		integer("number", &k.Number, 1, maxIndex),
		text("path", &k.Path, path),
		text("sha256", &k.SHA256, digest),
	}
}

func (c *Contents) encode() []byte {
	var e encoder
	e.begin(TypeRelease, c.fields())
	for i := range c.Images {
		e.table("[[image]]", c.Images[i].fields())
	}
	e.free("[meta]", c.Meta)
	if c.Keyring != (KeyringRef{}) {
		e.table("[keyring]", c.Keyring.fields())
	}
	return e.Bytes()
}

// check checks rules over several values and normalises the contents.
func (c *Contents) check() error {
	if len(c.Meta) == 0 {
		c.Meta = nil
	}
	if !c.Expires.IsZero() && !c.Expires.After(c.Created) {
		return &SyntaxError{Key: "expires", Msg: "is not after created"}
	}
	if len(c.Images) == 0 {
		return &SyntaxError{Msg: "document has no [[image]]"}
	}
	return checkImages(c.Images)
}

// checkImages refuses a role that does not appear once without a slot, or once for each of the release's slots.
func checkImages(images []Image) error {
	slots := map[string][]string{} // by role
	pins := map[string]string{}    // checksum by file of the block map
	var variants, roles []string
	for i, img := range images {
		fail := func(key, format string, a ...any) error {
			return &SyntaxError{Key: imageName(i) + ": " + key, Msg: fmt.Sprintf(format, a...)}
		}
		have, seen := slots[img.Role]
		switch {
		case slices.Contains(have, img.Slot):
			return fail("role", "%s appears twice", imageLabel(img))
		case seen && (img.Slot == "" || have[0] == ""):
			return fail("role", "%q appears with and without a slot", img.Role)
		case pins[img.Bmap] != "" && pins[img.Bmap] != img.BmapSHA256:
			return fail("bmap_sha256", "is %s, but another image says %s of %q", img.BmapSHA256, pins[img.Bmap], img.Bmap)
		}
		if !seen {
			roles = append(roles, img.Role)
		}
		if img.Slot != "" && !slices.Contains(variants, img.Slot) {
			variants = append(variants, img.Slot)
		}
		slots[img.Role], pins[img.Bmap] = append(have, img.Slot), img.BmapSHA256
	}
	if len(roles) > maxRoles {
		return &SyntaxError{Msg: fmt.Sprintf("document has %d roles, expected at most %d", len(roles), maxRoles)}
	}
	for _, role := range roles {
		for _, slot := range variants {
			if have := slots[role]; have[0] != "" && !slices.Contains(have, slot) {
				return &SyntaxError{Msg: fmt.Sprintf("role %q has an image for slot %s, but none for slot %s", role, have[0], slot)}
			}
		}
	}
	return nil
}

// imageLabel names an image as a command line does: ROLE or ROLE@SLOT.
func imageLabel(i Image) string {
	if i.Slot == "" {
		return i.Role
	}
	return i.Role + "@" + i.Slot
}
