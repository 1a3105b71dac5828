package release

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"updater/verify"
)

// KeyringContents are the fields of a keyring document: the complete set of trusted certificates. Number N+1 replaces N whole.
type KeyringContents struct {
	Number       int64 // from 1
	Created      time.Time
	MinSigners   int64 // distinct keys that must sign a document; 0 leaves it to the configuration
	Certificates []Certificate
	Roles        []RoleRule
}

// Certificate is one OpenPGP certificate with its revocations, and the roles and documents that it may sign.
type Certificate struct {
	Fingerprint string   // of the primary key, upper-case hex; not compared with OpenPGP here
	Roles       []string // that it may sign for; none is every role
	Documents   []string // types of document that it may sign; none is releases and bare block maps
	OpenPGP     []byte   // as gpg --export writes it, without armor
}

// RoleRule raises the number of signers of a role.
type RoleRule struct {
	Role       string
	MinSigners int64
}

// maxSigners is the largest threshold.
const maxSigners = 16

// Keyring is one valid keyring document. It is immutable and safe for concurrent use. [ParseKeyring] and [NewKeyring]
// make it. Its certificates are not parsed here: see [verify.LoadKeyring].
type Keyring struct{ contents KeyringContents }

// ParseKeyring reads a keyring document and checks all of it but the certificates. Errors: [SyntaxError], [TypeError],
// [UnsupportedError].
func ParseKeyring(data []byte) (*Keyring, error) {
	k := new(Keyring)
	d, err := decode(TypeKeyring, data, k.contents.open)
	if err != nil {
		return nil, err
	}
	if err := k.contents.check(); err != nil {
		return nil, d.locate(err)
	}
	return k, nil
}

// NewKeyring makes a keyring of its contents, by the rules of [ParseKeyring]. The error is a [SyntaxError] without a line.
func NewKeyring(c KeyringContents) (*Keyring, error) {
	k, err := ParseKeyring(c.encode())
	return k, withoutLine(err)
}

// Encode returns the document in its canonical spelling, see [Release.Encode].
func (k *Keyring) Encode() []byte { return k.contents.encode() }

// Contents returns a copy of all fields.
func (k *Keyring) Contents() KeyringContents {
	c := k.contents
	c.Roles, c.Certificates = slices.Clone(c.Roles), slices.Clone(c.Certificates)
	for i, cert := range c.Certificates {
		c.Certificates[i].Roles = slices.Clone(cert.Roles)
		c.Certificates[i].Documents = slices.Clone(cert.Documents)
		c.Certificates[i].OpenPGP = slices.Clone(cert.OpenPGP)
	}
	return c
}

// open begins a table of a keyring document.
func (c *KeyringContents) open(header string) (*table, error) {
	switch header {
	case "":
		return &table{fields: c.fields()}, nil
	case "[[certificate]]":
		n := len(c.Certificates)
		if n == maxCertificates {
			return nil, fmt.Errorf("certificate %d is one too many, expected at most %d", maxCertificates+1, maxCertificates)
		}
		c.Certificates = append(c.Certificates, Certificate{})
		return &table{name: certificateName(n), fields: c.Certificates[n].fields()}, nil
	case "[[role]]":
		n := len(c.Roles)
		if n == maxRoles {
			return nil, fmt.Errorf("role %d is one too many, expected at most %d", maxRoles+1, maxRoles)
		}
		c.Roles = append(c.Roles, RoleRule{})
		return &table{name: roleName(n), fields: c.Roles[n].fields()}, nil
	}
	return nil, nil
}

func certificateName(i int) string { return fmt.Sprintf("certificate %d", i+1) }
func roleName(i int) string        { return fmt.Sprintf("role %d", i+1) }

func (c *KeyringContents) fields() []field {
	return []field{
		integer("number", &c.Number, 1, maxIndex),
		moment("created", &c.Created),
		integer("min_signers", &c.MinSigners, 1, maxSigners).opt(),
	}
}

func (c *Certificate) fields() []field {
	return []field{
		text("fingerprint", &c.Fingerprint, fingerprint),
		list("roles", &c.Roles, name).opt(),
		list("documents", &c.Documents, documentType).opt(),
		{
			name: "openpgp",
			set:  func(value any) error { return setBase64(&c.OpenPGP, value) },
			get:  func() string { return quote(base64.StdEncoding.EncodeToString(c.OpenPGP)) },
			zero: func() bool { return len(c.OpenPGP) == 0 },
		},
	}
}

func (r *RoleRule) fields() []field {
	return []field{
		text("name", &r.Role, name),
		integer("min_signers", &r.MinSigners, 1, maxSigners),
	}
}

func fingerprint(s string) error {
	if clean, err := verify.CleanFingerprint(s); err != nil || clean != s {
		return fmt.Errorf("is %.80q, expected 40 or 64 upper-case hex digits", s)
	}
	return nil
}

func documentType(s string) error {
	if !slices.Contains(verify.DocumentTypes(), s) {
		return fmt.Errorf("has %.80q, expected some of %s", s, strings.Join(verify.DocumentTypes(), ", "))
	}
	return nil
}

// setBase64 keeps the bytes of a certificate.
func setBase64(p *[]byte, value any) error {
	var text string
	if err := set(&text, value, func(string) error { return nil }); err != nil {
		return err
	}
	data, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(data) == 0 || len(data) > maxCertificate || strings.ContainsAny(text, "\r\n") {
		return fmt.Errorf("has %d characters, expected base64 of 1 to %d bytes", len(text), maxCertificate)
	}
	*p = data
	return nil
}

func (c *KeyringContents) encode() []byte {
	var e encoder
	e.begin(TypeKeyring, c.fields())
	for i := range c.Roles {
		e.table("[[role]]", c.Roles[i].fields())
	}
	for i := range c.Certificates {
		e.table("[[certificate]]", c.Certificates[i].fields())
	}
	return e.Bytes()
}

// check checks rules over several values. A threshold that the certificates cannot reach would lock a device out.
func (c *KeyringContents) check() error {
	n := int64(len(c.Certificates))
	if n == 0 {
		return &SyntaxError{Msg: "document has no [[certificate]]"}
	}
	if c.MinSigners > n {
		return &SyntaxError{Key: "min_signers", Msg: fmt.Sprintf("is %d, but the keyring has %d certificates", c.MinSigners, n)}
	}
	seen := map[string]bool{}
	for i, cert := range c.Certificates {
		if seen[cert.Fingerprint] {
			return &SyntaxError{Key: certificateName(i) + ": fingerprint", Msg: cert.Fingerprint + " appears twice"}
		}
		seen[cert.Fingerprint] = true
	}
	for i, r := range c.Roles {
		if slices.ContainsFunc(c.Roles[:i], func(o RoleRule) bool { return o.Role == r.Role }) {
			return &SyntaxError{Key: roleName(i) + ": name", Msg: r.Role + " appears twice"}
		}
		if r.MinSigners > n {
			return &SyntaxError{Key: roleName(i) + ": min_signers", Msg: fmt.Sprintf("is %d, but the keyring has %d certificates", r.MinSigners, n)}
		}
	}
	return nil
}
