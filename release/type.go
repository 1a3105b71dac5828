package release

import (
	"bytes"
	"fmt"
)

// Type is the type of a signed document.
type Type string

// The types of signed documents. Every TOML document names its type on its first line; a block map has none.
const (
	TypeRelease Type = "release"
	TypeChannel Type = "channel"
	TypeKeyring Type = "keyring"
	TypePlan    Type = "plan" // of a factory, see package provision
	TypeMap     Type = "bmap" // a bare block map
)

func (t Type) describe() string {
	if t == TypeMap {
		return "a block map"
	}
	return fmt.Sprintf("type = %q on its first line", string(t))
}

// typeOf returns the type that a document begins with, "" if it begins with none, as XML does. It reads no more than the first statement.
func typeOf(data []byte) Type {
	if len(data) > MaxSize || bytes.HasPrefix(data, []byte("<")) {
		return ""
	}
	s := &scanner{text: string(data)}
	first, _, err := s.next()
	if t, ok := first.value.(string); ok && err == nil && first.key == "type" {
		return Type(t)
	}
	return ""
}
