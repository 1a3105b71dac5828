package verify

import "fmt"

// MismatchError reports bytes that differ from a signed document. Match it with errors.AsType.
type MismatchError struct {
	Object string // the hashed object, such as "range 17 (blocks 4096-8191)"
	Offset int64  // bytes, where the object starts in the image
	Length int64  // bytes
	Type   string // name of the hash, such as "sha256"
	Got    string // hex digest of the bytes read
	Want   string // hex digest that was promised
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s: %s is %s, bmap says %s", e.Object, e.Type, e.Got, e.Want)
}
