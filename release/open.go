package release

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"time"

	"updater/bmap"
	"updater/verify"
)

// DefaultMaxMap is the largest unsigned block map that is read unless [Trust] sets another limit, in bytes.
const DefaultMaxMap = 4 << 20

// Trust holds the requirements of a device for every signed document. It is a value; its methods may be called concurrently.
type Trust struct {
	Policy verify.Policy
	MaxMap int64 // largest block map, in bytes; 0 is DefaultMaxMap, and verify.MaxDocumentSize the most
}

// Signed is a document with enough signatures by keys that may sign its type.
type Signed struct {
	Data    []byte          // exactly the bytes that were signed
	SHA256  string          // of Data, lower-case hex
	Signers []verify.Signer // distinct keys that may sign this type, at least Policy.MinSigners
}

// Limit returns how many bytes of a file an unsigned document of a type may have. A clearsigned one includes its signature.
func (t Trust) Limit(kind Type) int64 { return t.maxSize(kind) + verify.MaxSignatureSize }

func (t Trust) maxSize(kind Type) int64 {
	if kind == TypeMap {
		return min(cmp.Or(t.MaxMap, DefaultMaxMap), verify.MaxDocumentSize)
	}
	return MaxSize
}

// Read reads a document of a type before it is verified. It stops after Limit bytes; a larger document is a [verify.SignatureError].
func (t Trust) Read(r io.Reader, kind Type) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, t.Limit(kind)+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > t.Limit(kind) {
		return nil, t.tooLarge(kind)
	}
	return data, nil
}

func (t Trust) tooLarge(kind Type) error {
	return &verify.SignatureError{Reason: fmt.Sprintf("document has more than the %d bytes of type %q", t.maxSize(kind), string(kind))}
}

// CheckSignature checks a detached signature before its document is fetched: enough keys that may sign this type must be
// named in it. It proves nothing and replaces no other check; it avoids fetching and hashing a document that [Trust.Open]
// would refuse. The error is a [verify.SignatureError].
func (t Trust) CheckSignature(kind Type, signature []byte) error {
	claimed, err := t.Policy.Claimed(signature)
	if err != nil {
		return err
	}
	_, err = t.Policy.PermitDocument(claimed, string(kind))
	return err
}

// Open checks, in this order, the size of a document, its signatures, its type, and that enough of the keys may sign this
// type. signature is nil for a clearsigned document. It parses only the type and returns exactly the signed bytes. Before a trusted key
// is found it takes memory for two copies of a clearsigned document, and none for others. Errors: [verify.SignatureError], [TypeError].
func (t Trust) Open(kind Type, doc, signature []byte) (*Signed, error) {
	limit := t.maxSize(kind)
	if signature == nil {
		limit += verify.MaxSignatureSize
	}
	if int64(len(doc)) > limit {
		return nil, t.tooLarge(kind)
	}
	signed, err := t.Policy.Verify(doc, signature)
	switch {
	case err != nil:
		return nil, err
	case int64(len(signed.Data)) > t.maxSize(kind):
		return nil, t.tooLarge(kind)
	}
	want := kind
	if kind == TypeMap { // XML, which names no type
		want = ""
	}
	if got := typeOf(signed.Data); got != want {
		return nil, &TypeError{Got: got, Want: kind}
	}
	signers, err := t.Policy.PermitDocument(signed.Signers, string(kind))
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(signed.Data)
	return &Signed{Data: signed.Data, SHA256: hex.EncodeToString(sum[:]), Signers: signers}, nil
}

// Opened is a release with enough signatures by keys that may sign releases, and each of its roles.
type Opened struct {
	Release *Release
	Map     *bmap.Map       // of a bare block map; nil for a release document
	Signers []verify.Signer // distinct keys that count for at least one role
	SHA256  string          // of the signed document, lower-case hex
}

// OpenRelease opens a release document. Errors: those of [Trust.Open] and of [Parse].
func (t Trust) OpenRelease(doc, signature []byte) (*Opened, error) {
	signed, err := t.Open(TypeRelease, doc, signature)
	if err != nil {
		return nil, err
	}
	r, err := Parse(signed.Data)
	if err != nil {
		return nil, err
	}
	return t.permit(&Opened{Release: r, SHA256: signed.SHA256}, signed.Signers)
}

// OpenMap opens a bare block map as the release that it stands for, see [Bare]. role is the one role of the device's slots;
// "" takes the role that the map names, and on a host perhaps none. Errors: those of [Trust.Open], [bmap.SyntaxError], and
// [MapError] for a map of another role.
func (t Trust) OpenMap(doc, signature []byte, role string) (*Opened, error) {
	signed, err := t.Open(TypeMap, doc, signature)
	if err != nil {
		return nil, err
	}
	m, err := bmap.Parse(signed.Data)
	if err != nil {
		return nil, err
	}
	if err := everythingIsPinned(m); err != nil {
		return nil, err
	}
	if u := m.Update(); role == "" && u != nil {
		role = u.Role
	}
	r, err := Bare(m, signed.SHA256, role)
	if err != nil {
		return nil, err
	}
	return t.permit(&Opened{Release: r, Map: m, SHA256: signed.SHA256}, signed.Signers)
}

// permit counts the keys that may sign, for each role by itself.
func (t Trust) permit(o *Opened, signers []verify.Signer) (*Opened, error) {
	counted := map[string]bool{}
	for _, role := range o.Release.Roles() {
		may, err := t.Policy.Permit(signers, role)
		if err != nil {
			return nil, err
		}
		for _, s := range may {
			counted[s.Fingerprint] = true
		}
	}
	o.Signers = slices.DeleteFunc(slices.Clone(signers), func(s verify.Signer) bool { return !counted[s.Fingerprint] })
	return o, nil
}

// OpenChannel opens a channel document. A channel created more than 24 hours after one of its signatures did not exist when it
// was signed, and is refused. Errors: those of [Trust.Open] and of [ParseChannel].
func (t Trust) OpenChannel(doc, signature []byte) (*Channel, *Signed, error) {
	signed, err := t.Open(TypeChannel, doc, signature)
	if err != nil {
		return nil, nil, err
	}
	c, err := ParseChannel(signed.Data)
	if err != nil {
		return nil, nil, err
	}
	created := c.contents.Created
	for _, s := range signed.Signers {
		if created.After(s.Time.Add(verify.MaxClockSkew)) {
			return nil, nil, &verify.SignatureError{
				Reason: fmt.Sprintf("channel was created at %s, more than %s after it was signed", created.Format(time.RFC3339), verify.MaxClockSkew),
				KeyID:  s.KeyID, UserID: s.UserID, Time: s.Time, Advice: "tell the publisher of the channel",
			}
		}
	}
	return c, signed, nil
}

// OpenKeyring opens a keyring document under the policy of one keyring. A change of keys needs two calls: by the policy of
// the keyring before it, and by its own. Errors: those of [Trust.Open] and of [ParseKeyring].
func (t Trust) OpenKeyring(doc, signature []byte) (*Keyring, *Signed, error) {
	signed, err := t.Open(TypeKeyring, doc, signature)
	if err != nil {
		return nil, nil, err
	}
	k, err := ParseKeyring(signed.Data)
	if err != nil {
		return nil, nil, err
	}
	return k, signed, nil
}
