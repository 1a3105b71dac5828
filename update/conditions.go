package update

import (
	"fmt"
	"slices"
	"strings"

	"updater/bmap"
)

// field is one field of <Update> that a device may require.
type field struct {
	name, element string // in the configuration, in the document
	has           func(u bmap.Update) bool
}

var fields = []field{
	{"product", "Product", func(u bmap.Update) bool { return u.Product != "" }},
	{"version", "Version", func(u bmap.Update) bool { return u.Version != "" }},
	{"rollback_index", "RollbackIndex", func(u bmap.Update) bool { return u.RollbackIndex > 0 }},
	{"role", "Role", func(u bmap.Update) bool { return u.Role != "" }},
	{"created", "Created", func(u bmap.Update) bool { return !u.Created.IsZero() }},
	{"expires", "Expires", func(u bmap.Update) bool { return !u.Expires.IsZero() }},
	{"unmapped", "Unmapped", func(u bmap.Update) bool { return u.Unmapped != "" }},
	{"image_checksum", "ImageChecksum", func(u bmap.Update) bool { return u.ImageChecksum != "" }},
}

// Fields lists the valid names for [Conditions.Require].
func Fields() []string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	return names
}

// check applies the <Update> element except for its role; u is empty if the document has none.
func (c Conditions) check(u bmap.Update) error {
	var missing []string
	for _, f := range fields {
		if slices.Contains(c.Require, f.name) && !f.has(u) {
			missing = append(missing, f.element)
		}
	}
	now := c.Policy.Time
	switch {
	case u.Product != "" && c.Product != AnyProduct && u.Product != c.Product:
		return &IncompatibleError{Reason: fmt.Sprintf("the update is for product %q; this device is %q", u.Product, c.Product)}
	case !c.Held && !u.Expires.IsZero() && now.After(u.Expires):
		return &ExpiredError{Expires: u.Expires, Now: now}
	case u.RollbackIndex < c.Floor:
		return &RollbackError{Index: u.RollbackIndex, Floor: c.Floor}
	case len(missing) > 0:
		return &IncompatibleError{Reason: fmt.Sprintf("the signed document lacks %s, which this device requires", strings.Join(missing, ", "))}
	}
	return nil
}
