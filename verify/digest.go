package verify

import (
	"encoding/hex"
	"fmt"
	"hash"
)

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

// parseDigest reads the hex digest that h should end with. Upper-case digits are refused, as bmaptool does.
func parseDigest(s string, h hash.Hash) ([]byte, error) {
	want, err := hex.DecodeString(s)
	if err != nil || len(want) != h.Size() || hex.EncodeToString(want) != s {
		return nil, fmt.Errorf("checksum %q is not %d lower-case hex digits", s, 2*h.Size())
	}
	return want, nil
}

// hashName names the hash functions of the bmap format by their digest size in bytes.
func hashName(h hash.Hash) string {
	switch h.Size() {
	case 16:
		return "md5"
	case 20:
		return "sha1"
	case 28:
		return "sha224"
	case 32:
		return "sha256"
	case 48:
		return "sha384"
	case 64:
		return "sha512"
	}
	return fmt.Sprintf("%d-bit digest", 8*h.Size())
}
