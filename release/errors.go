package release

import (
	"errors"
	"fmt"
	"strings"
)

// SyntaxError is a fault in a document and its place.
type SyntaxError struct {
	Line int    // from 1; 0 for a document that was made, not read
	Key  string // such as "version" or "image 2: role"; "" when no key is meant
	Msg  string // what was found and what was expected
}

func (e *SyntaxError) Error() string {
	var b strings.Builder
	if e.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", e.Line)
	}
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.Msg)
	return b.String()
}

// TypeError reports a signed document that is not of the required type. This is a failure of trust: a key may be allowed to sign
// one type and not the other.
type TypeError struct {
	Got  Type // "" when the document does not begin with a type
	Want Type
}

func (e *TypeError) Error() string {
	if e.Got == "" {
		return fmt.Sprintf("document has no type, expected %s", e.Want.describe())
	}
	return fmt.Sprintf("document is of type %q, expected %s", string(e.Got), e.Want.describe())
}

// UnsupportedError reports a document that needs a newer updater.
type UnsupportedError struct {
	Format   int64    // of the document, if it is not the known one
	Features []string // names in requires that are not known
}

func (e *UnsupportedError) Error() string {
	if len(e.Features) > 0 {
		return fmt.Sprintf("document needs a newer updater: it requires unknown features %s", quoted(e.Features))
	}
	return fmt.Sprintf("document needs a newer updater: its format is %d, expected %d", e.Format, format)
}

// SlotError reports a release whose images are not those of a device's slots.
type SlotError struct {
	Slot     string   // the slot that was asked for
	NoSlot   bool     // it is not configured
	Missing  []string // roles of the slot, or ROLE@SLOT, without an image
	Unknown  []string // roles that the slot does not have
	Variants []string // ROLE@SLOT for slots that are not configured
}

func (e *SlotError) Error() string {
	var parts []string
	add := func(what string, names []string) {
		if len(names) > 0 {
			parts = append(parts, what+" "+quoted(names))
		}
	}
	if e.NoSlot {
		return fmt.Sprintf("slot %q is not configured", e.Slot)
	}
	add("has no image for", e.Missing)
	add("has images for unknown roles", e.Unknown)
	add("has images for slots that are not configured:", e.Variants)
	return fmt.Sprintf("release does not fit slot %s: it %s", e.Slot, strings.Join(parts, "; it "))
}

// PinError reports a block map that is not the one that the signed release pins.
type PinError struct {
	File      string // as the release names it
	Got, Want string // hex sha256
}

func (e *PinError) Error() string {
	return fmt.Sprintf("block map %q: sha256 is %s, the release says %s", e.File, e.Got, e.Want)
}

// MapError reports a block map whose update element contradicts its release.
type MapError struct {
	File      string // as the release names it; "" for a bare block map
	Field     string // of the update element, such as "Product"
	Got, Want string // in the map, in the release
}

func (e *MapError) Error() string {
	file := "block map"
	if e.File != "" {
		file = fmt.Sprintf("block map %q", e.File)
	}
	return fmt.Sprintf("%s: its %s is %q, expected %q", file, e.Field, e.Got, e.Want)
}

// quoted lists names that come from outside.
func quoted(names []string) string {
	list := make([]string, len(names))
	for i, n := range names {
		list[i] = fmt.Sprintf("%q", n)
	}
	return strings.Join(list, ", ")
}

// withoutLine removes the line from an error about a document that was made in memory.
func withoutLine(err error) error {
	if e, ok := errors.AsType[*SyntaxError](err); ok {
		e.Line = 0
	}
	return err
}
