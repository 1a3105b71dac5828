package verify_test

import (
	"bytes"
	"crypto"
	_ "crypto/sha1" // for a weak cross-certificate
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"updater/verify"
)

func date(year, month int) time.Time {
	return time.Date(year, time.Month(month), 1, 0, 0, 0, 0, time.UTC)
}

func configAt(at time.Time, algorithm packet.PublicKeyAlgorithm) *packet.Config {
	return &packet.Config{Algorithm: algorithm, RSABits: 2048, Time: func() time.Time { return at }}
}

// certOf makes a certificate of 2024-01-01 whose subkeys sign and are of 2024-03-01. Changes of a binding or a user ID count after rebind and
// recertify.
func certOf(t *testing.T, primary packet.PublicKeyAlgorithm, subkeys ...packet.PublicKeyAlgorithm) *openpgp.Entity {
	t.Helper()
	e, err := openpgp.NewEntity("dave", "", "dave@example.com", configAt(date(2024, 1), primary))
	e.Subkeys = nil // without the one that encrypts
	for _, algorithm := range subkeys {
		err = errors.Join(err, e.AddSigningSubkey(configAt(date(2024, 3), algorithm)))
	}
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func rebind(t *testing.T, e *openpgp.Entity, i int, change func(binding *packet.Signature)) {
	t.Helper()
	s := e.Subkeys[i]
	change(s.Bindings[0].Packet)
	if err := s.Bindings[0].Packet.SignKey(s.PublicKey, e.PrivateKey, goConfig()); err != nil {
		t.Fatal(err)
	}
}

func recertify(t *testing.T, e *openpgp.Entity, change func(self *packet.Signature)) {
	t.Helper()
	for _, id := range e.Identities {
		self := id.SelfCertifications[0].Packet
		change(self)
		if err := self.SignUserId(id.Name, e.PrimaryKey, e.PrivateKey, goConfig()); err != nil {
			t.Fatal(err)
		}
	}
}

// direct adds a signature of the primary key over itself that ends its life.
func direct(t *testing.T, e *openpgp.Entity, life time.Duration) {
	t.Helper()
	id := e.PrimaryKey.KeyId
	sig := &packet.Signature{
		Version: 4, SigType: packet.SigTypeDirectSignature, PubKeyAlgo: e.PrimaryKey.PubKeyAlgo, Hash: crypto.SHA512, CreationTime: date(2024, 1),
		IssuerKeyId: &id, KeyLifetimeSecs: seconds(life),
	}
	if err := sig.SignDirectKeyBinding(e.PrimaryKey, e.PrivateKey, goConfig()); err != nil {
		t.Fatal(err)
	}
	e.DirectSignatures = append(e.DirectSignatures, packet.NewVerifiableSig(sig))
}

func seconds(d time.Duration) *uint32 { return new(uint32(d / time.Second)) }

const (
	ed  = packet.PubKeyAlgoEdDSA
	rsa = packet.PubKeyAlgoRSA
	day = 24 * time.Hour
)

// TestSubkeys: a subkey signs only if its primary key made it a signing key, it agreed, and both of them are strong, alive and not revoked.
// Adopting a foreign signing key as a subkey does not make its signatures count.
func TestSubkeys(t *testing.T) {
	revoke := func(t *testing.T, e *openpgp.Entity, i int) {
		t.Helper()
		if err := e.Subkeys[i].Revoke(packet.KeySuperseded, "", goConfig()); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		cert *openpgp.Entity // default: two subkeys
		edit func(t *testing.T, e *openpgp.Entity)
		made time.Time // default 2025-01-01
		want string
	}{
		"good": {},
		"not cross-certified": {edit: func(t *testing.T, e *openpgp.Entity) {
			rebind(t, e, 0, func(b *packet.Signature) { b.EmbeddedSignature = nil })
		}, want: "not validly bound"},
		"cross-certified with SHA-1": {edit: func(t *testing.T, e *openpgp.Entity) {
			rebind(t, e, 0, func(b *packet.Signature) {
				b.EmbeddedSignature.Hash = crypto.SHA1
				s := e.Subkeys[0]
				if err := b.EmbeddedSignature.CrossSignKey(s.PublicKey, e.PrimaryKey, s.PrivateKey, goConfig()); err != nil {
					t.Fatal(err)
				}
			})
		}, want: "cross-certificate is missing or too weak"},
		"bound with SHA-1": {edit: func(t *testing.T, e *openpgp.Entity) {
			rebind(t, e, 0, func(b *packet.Signature) { b.Hash = crypto.SHA1 })
		}, want: "not validly bound"},
		"bound with SHA-224": {edit: func(t *testing.T, e *openpgp.Entity) {
			rebind(t, e, 0, func(b *packet.Signature) { b.Hash = crypto.SHA224 })
		}, want: "not validly bound"},
		"bound with a critical notation": {edit: func(t *testing.T, e *openpgp.Entity) {
			rebind(t, e, 0, func(b *packet.Signature) { b.Notations = []*packet.Notation{{Name: "x@y", IsCritical: true}} })
		}, want: "not validly bound"},
		"not for signing": {edit: func(t *testing.T, e *openpgp.Entity) {
			rebind(t, e, 0, func(b *packet.Signature) { b.FlagSign, b.EmbeddedSignature = false, nil })
		}, want: "signing flag is not set"},
		"of a primary key that may not sign": {edit: func(t *testing.T, e *openpgp.Entity) {
			recertify(t, e, func(s *packet.Signature) { s.FlagSign = false })
		}},
		"signed before it was made":  {made: date(2024, 2), want: "subkey: it was made before its key, which is of 2024-03-01"},
		"signed in its first second": {made: date(2024, 3)},
		"expired": {edit: func(t *testing.T, e *openpgp.Entity) {
			rebind(t, e, 0, func(b *packet.Signature) { b.KeyLifetimeSecs = seconds(day) })
		}, want: "subkey: the key had expired on 2024-03-02"},
		"signed in its last second": {edit: func(t *testing.T, e *openpgp.Entity) {
			rebind(t, e, 0, func(b *packet.Signature) { b.KeyLifetimeSecs = seconds(day) })
		}, made: date(2024, 3).Add(day)},
		"of a primary key that expired": {edit: func(t *testing.T, e *openpgp.Entity) {
			recertify(t, e, func(s *packet.Signature) { s.KeyLifetimeSecs = seconds(day) })
		}, want: "the key had expired on 2024-01-02"},
		"of a primary key that expired by a direct signature": {edit: func(t *testing.T, e *openpgp.Entity) { direct(t, e, 2*day) },
			want: "the key had expired on 2024-01-03"},
		"revoked":                   {edit: func(t *testing.T, e *openpgp.Entity) { revoke(t, e, 0) }, want: "the subkey was revoked on 2025-01-01"},
		"another one is revoked":    {edit: func(t *testing.T, e *openpgp.Entity) { revoke(t, e, 1) }},
		"weak":                      {cert: certOf(t, ed, rsa), want: "RSA key of 2048 bits"},
		"strong, of a weak primary": {cert: certOf(t, rsa, ed), want: "RSA key of 2048 bits"},
		"another one is weak":       {cert: certOf(t, ed, ed, rsa)},
	} {
		t.Run(name, func(t *testing.T) {
			e := c.cert
			if e == nil {
				e = certOf(t, ed, ed, ed)
			}
			if c.edit != nil {
				c.edit(t, e)
			}
			if c.made.IsZero() {
				c.made = date(2025, 1)
			}
			p := verify.Policy{Keyring: ring(t, goExport(t, e)), Time: now2025}
			got, err := p.Verify(testDoc, signBy(t, e.Subkeys[0].PrivateKey, c.made))
			checkVerdict(t, got, err, testDoc, c.want)
			if s := e.Subkeys[0]; err == nil && got.Signers[0].KeyID != fmt.Sprintf("%016X", s.PublicKey.KeyId) {
				t.Errorf("the signer is %+v; want the subkey", got.Signers[0])
			}
		})
	}

	e := certOf(t, ed, ed)
	revoke(t, e, 0)
	p := verify.Policy{Keyring: ring(t, goExport(t, e)), Time: now2025}
	got, err := p.Verify(testDoc, signBy(t, e.PrivateKey, date(2025, 1)))
	checkVerdict(t, got, err, testDoc, "") // by the primary key, which is not revoked
	fingerprint := p.Keyring.Fingerprints()[0]
	if known, revoked := p.Keyring.Knows(fingerprint); !known || revoked {
		t.Errorf("Knows() of a key with a revoked subkey = %v, %v", known, revoked)
	}
	if err := e.Revoke(packet.KeyRetired, "", goConfig()); err != nil {
		t.Fatal(err)
	}
	if known, revoked := ring(t, goExport(t, e)).Knows(fingerprint); !known || !revoked {
		t.Errorf("Knows() of a revoked key = %v, %v", known, revoked)
	}
	if known, _ := p.Keyring.Knows(strings.Repeat("A", 40)); known || p.Keyring.Certificate(strings.Repeat("A", 40)) != nil {
		t.Error("the keyring knows a foreign key")
	}
}

// TestOneSignerHasManyKeys: a primary key and its subkeys are one signer.
func TestOneSignerHasManyKeys(t *testing.T) {
	e, other := certOf(t, ed, ed, ed), certOf(t, ed)
	p := verify.Policy{Keyring: ring(t, append(goExport(t, e), goExport(t, other)...)), Time: now2025, MinSigners: 2}
	var three []byte
	for _, key := range []*packet.PrivateKey{e.PrivateKey, e.Subkeys[0].PrivateKey, e.Subkeys[1].PrivateKey} {
		three = append(three, signBy(t, key, date(2025, 1))...)
	}
	got, err := p.Verify(testDoc, three)
	checkVerdict(t, got, err, nil, "1 of the trusted keys signed, 2 must")
	claimed, err := p.Claimed(three)
	if _, refused := errors.AsType[*verify.SignatureError](err); !refused || !strings.Contains(err.Error(), "1 of the trusted keys signed, 2 must") {
		t.Errorf("Claimed() = %v, %v", claimed, err)
	}
	four := append(three, signBy(t, other.PrivateKey, date(2025, 1))...)
	got, err = p.Verify(testDoc, four)
	checkVerdict(t, got, err, testDoc, "")
	if claimed, err = p.Claimed(four); err != nil || len(claimed) != 2 || claimed[0].Fingerprint != got.Signers[0].Fingerprint ||
		claimed[0].KeyID != got.Signers[0].KeyID || claimed[1].KeyID != fmt.Sprintf("%016X", other.PrimaryKey.KeyId) {
		t.Errorf("Claimed() = %+v, %v; the signers are %+v", claimed, err, got.Signers)
	}
}

// TestCopies: copies of a certificate count together in any order, and the newest of several self-signatures counts.
func TestCopies(t *testing.T) {
	for name, c := range map[string]struct {
		older, newer func(t *testing.T, e *openpgp.Entity) // edits of the two copies; nil: as it is
		subkey       bool                                  // signs
		want         string
		user         string // default "dave <dave@example.com>"
	}{
		"extended": {older: func(t *testing.T, e *openpgp.Entity) {
			recertify(t, e, func(s *packet.Signature) { s.KeyLifetimeSecs = seconds(day) })
		}, newer: func(t *testing.T, e *openpgp.Entity) {
			recertify(t, e, func(s *packet.Signature) { s.KeyLifetimeSecs, s.CreationTime = nil, date(2024, 2) })
		}},
		"shortened": {newer: func(t *testing.T, e *openpgp.Entity) {
			recertify(t, e, func(s *packet.Signature) { s.KeyLifetimeSecs, s.CreationTime = seconds(day), date(2024, 2) })
		}, want: "the key had expired on 2024-01-02"},
		"subkey extended": {subkey: true, older: func(t *testing.T, e *openpgp.Entity) {
			rebind(t, e, 0, func(b *packet.Signature) { b.KeyLifetimeSecs = seconds(day) })
		}, newer: func(t *testing.T, e *openpgp.Entity) {
			rebind(t, e, 0, func(b *packet.Signature) { b.KeyLifetimeSecs, b.CreationTime = nil, date(2024, 4) })
		}},
		"subkey shortened": {subkey: true, newer: func(t *testing.T, e *openpgp.Entity) {
			rebind(t, e, 0, func(b *packet.Signature) { b.KeyLifetimeSecs, b.CreationTime = seconds(day), date(2024, 4) })
		}, want: "subkey: the key had expired on 2024-03-02"},
		"ended by a direct signature": {newer: func(t *testing.T, e *openpgp.Entity) { direct(t, e, day) }, want: "the key had expired on 2024-01-02"},
		"subkey in one copy":          {subkey: true, older: func(_ *testing.T, e *openpgp.Entity) { e.Subkeys = nil }},
		"subkey revoked in one copy": {subkey: true, newer: func(t *testing.T, e *openpgp.Entity) {
			if err := e.Subkeys[0].Revoke(packet.NoReason, "", goConfig()); err != nil {
				t.Fatal(err)
			}
		}, want: "the subkey was revoked"},
		"another user ID": {newer: func(t *testing.T, e *openpgp.Entity) {
			for name := range e.Identities {
				delete(e.Identities, name)
			}
			if err := e.AddUserId("eve", "", "eve@example.com", configAt(date(2024, 5), ed)); err != nil {
				t.Fatal(err)
			}
		}, user: "eve <eve@example.com>"},
		"the only user ID revoked": {newer: func(t *testing.T, e *openpgp.Entity) {
			for _, id := range e.Identities {
				sig := *id.SelfCertifications[0].Packet
				sig.SigType, sig.CreationTime = packet.SigTypeCertificationRevocation, date(2024, 6)
				if err := sig.SignUserId(id.Name, e.PrimaryKey, e.PrivateKey, goConfig()); err != nil {
					t.Fatal(err)
				}
				id.Revocations = append(id.Revocations, packet.NewVerifiableSig(&sig))
			}
		}, want: "no valid self-signature"},
	} {
		t.Run(name, func(t *testing.T) {
			e := certOf(t, ed, ed)
			key := e.PrivateKey
			if c.subkey {
				key = e.Subkeys[0].PrivateKey
			}
			subkeys := slices.Clone(e.Subkeys)
			var copies [][]byte
			for _, edit := range []func(*testing.T, *openpgp.Entity){c.older, c.newer} {
				e.Subkeys = subkeys
				if edit != nil {
					edit(t, e)
				}
				copies = append(copies, goExport(t, e))
			}
			for range 2 {
				slices.Reverse(copies)
				k := ring(t, bytes.Join(copies, nil))
				only, err := k.Only(k.Fingerprints()...)
				if err != nil {
					t.Fatal(err)
				}
				again, err := verify.NewKeyring(k.Certificate(k.Fingerprints()[0]))
				if err != nil {
					t.Fatal(err)
				}
				for _, k := range []*verify.Keyring{k, only, again} {
					got, err := verify.Policy{Keyring: k, Time: now2025}.Verify(testDoc, signBy(t, key, date(2025, 1)))
					checkVerdict(t, got, err, testDoc, c.want)
					if c.user == "" {
						c.user = "dave <dave@example.com>"
					}
					if err == nil && got.Signers[0].UserID != c.user {
						t.Errorf("the user ID is %q; want %q", got.Signers[0].UserID, c.user)
					}
				}
			}
			k := ring(t, bytes.Join([][]byte{copies[0], copies[1], copies[0]}, nil))
			if got := k.Certificate(k.Fingerprints()[0]); len(got) != len(copies[0])+len(copies[1]) {
				t.Errorf("of two copies, one of them twice, %d bytes are kept; want %d", len(got), len(copies[0])+len(copies[1]))
			}
		})
	}
}

// TestRevocationPackets: a revocation that cannot be checked makes its certificate unusable, in any place; the revocation of a key that
// this program cannot read does not matter.
func TestRevocationPackets(t *testing.T) {
	e := certOf(t, ed, ed)
	whole := packets(t, goExport(t, e)) // key, user ID, certification, subkey, binding
	of := func(e *openpgp.Entity) *packet.OpaquePacket {
		t.Helper()
		if err := e.Subkeys[0].Revoke(packet.NoReason, "", goConfig()); err != nil {
			t.Fatal(err)
		}
		list := packets(t, goExport(t, e))
		return list[4] // before the binding
	}
	own, foreign := of(e), of(certOf(t, ed, ed))
	with := func(p *packet.OpaquePacket, edit func(body []byte)) *packet.OpaquePacket {
		q := *p
		q.Contents = bytes.Clone(p.Contents)
		edit(q.Contents)
		return &q
	}
	unknown := with(whole[3], func(b []byte) { b[5] = 99 }) // its algorithm
	old := func(kind byte) *packet.OpaquePacket {
		return &packet.OpaquePacket{Tag: 2, Contents: []byte{3, 5, kind, 0, 0, 0, 0}}
	}
	for name, c := range map[string]struct {
		at   int // where they are inserted
		more []*packet.OpaquePacket
		ok   bool
	}{
		"of the subkey":                   {5, []*packet.OpaquePacket{own}, true},
		"by another key":                  {5, []*packet.OpaquePacket{foreign}, false},
		"of no subkey":                    {3, []*packet.OpaquePacket{own}, false},
		"of a subkey of unknown kind":     {5, []*packet.OpaquePacket{unknown, foreign}, true},
		"of an unknown one before it":     {3, []*packet.OpaquePacket{unknown, foreign}, true},
		"unreadable, of the key":          {5, []*packet.OpaquePacket{old(0x20)}, false},
		"unreadable, of the subkey":       {5, []*packet.OpaquePacket{old(0x28)}, false},
		"unreadable, of the user ID":      {3, []*packet.OpaquePacket{old(0x30)}, false},
		"an old signature of two bytes":   {5, []*packet.OpaquePacket{{Tag: 2, Contents: []byte{3, 5}}}, true},
		"no revocation, unreadable":       {5, []*packet.OpaquePacket{old(0x18)}, true},
		"a signature of a foreign kind":   {5, []*packet.OpaquePacket{with(own, func(b []byte) { b[1] = 0x40 })}, true},
		"the same, once more, at the end": {5, []*packet.OpaquePacket{own, own}, true},
	} {
		data := joined(t, slices.Insert(slices.Clone(whole), c.at, c.more...)...)
		k, err := verify.NewKeyring(data)
		if (err == nil) != c.ok || !c.ok && !strings.Contains(err.Error(), "a revocation cannot be checked") {
			t.Errorf("%s: NewKeyring() = %v, %v; want it to succeed: %v", name, k, err, c.ok)
		}
	}
}

// TestForeignPackets: packets that do not belong in a certificate are refused, gpg's private packets are skipped, and no key is in two certificates.
func TestForeignPackets(t *testing.T) {
	e, other := certOf(t, ed, ed), certOf(t, ed)
	cert, trust := goExport(t, e), []byte{0xc0 | 12, 2, 6, 0}
	literal := []byte{0xc0 | 11, 6, 'b', 0, 0, 0, 0, 0}
	adopted := joined(t, append(packets(t, goExport(t, other)), packets(t, cert)[3:]...)...)
	fill := binaryFill(verify.MaxKeyringSize - len(cert))
	for name, c := range map[string]struct {
		data []byte
		want string // "": loads
	}{
		"trust":               {slices.Concat(trust, cert, trust), ""},
		"nothing but trust":   {trust, "holds no certificate"},
		"empty armor":         {[]byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n-----END PGP PUBLIC KEY BLOCK-----\n"), "holds no certificate"},
		"a message":           {slices.Concat(cert, literal), fmt.Sprintf("byte %d: packet of type 11 does not belong", len(cert))},
		"a message before it": {slices.Concat(literal, cert), "packet of type 11 does not belong"},
		"a subkey of both":    {slices.Concat(cert, adopted), "belongs to two certificates"},
		"a keybox's header":   {[]byte("\x00\x00\x00\x20\x01\x01\x00\x02KBXf"), "keybox"},
		"a user ID first":     {slices.Concat(joined(t, packets(t, cert)[1]), cert), "packet of type 13 comes before any public key"},
		"an empty signature":  {[]byte{0xc2, 0}, "packet of type 2 comes before any public key"},
		"the largest":         {slices.Concat(cert, fill), ""},
		"larger by one byte":  {slices.Concat(cert, fill, []byte{0}), "larger than 1048576 bytes"},
	} {
		path := t.TempDir() + "/ring"
		writeFile(t, path, c.data)
		k, err := verify.LoadKeyring(path)
		if c.want == "" && (err != nil || k.Len() != 1) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: LoadKeyring() = %v, %v; want %q", name, k, err, c.want)
		}
	}
	if k, err := verify.NewKeyring(); err == nil {
		t.Errorf("NewKeyring() of nothing = %v", k)
	}
	if k, err := verify.NewKeyring(cert, literal); err == nil || !strings.Contains(err.Error(), "certificate block 2: ") {
		t.Errorf("NewKeyring() of a message = %v, %v", k, err)
	}
}

// binaryFill is one trust packet of n bytes.
func binaryFill(n int) []byte {
	body := n - 6
	return append([]byte{0xc0 | 12, 255, byte(body >> 24), byte(body >> 16), byte(body >> 8), byte(body)}, make([]byte, body)...)
}

// TestKeys: each certificate is judged by its key that can sign the longest.
func TestKeys(t *testing.T) {
	primary := func(change func(s *packet.Signature)) func(*testing.T, *openpgp.Entity) {
		return func(t *testing.T, e *openpgp.Entity) { recertify(t, e, change) }
	}
	certifies := func(s *packet.Signature) { s.FlagSign = false }
	lives := func(lives ...time.Duration) func(*testing.T, *openpgp.Entity) { // of the subkeys of a primary key that may not sign
		return func(t *testing.T, e *openpgp.Entity) {
			recertify(t, e, certifies)
			for i, life := range lives {
				rebind(t, e, i, func(b *packet.Signature) { b.KeyLifetimeSecs = seconds(life) })
			}
		}
	}
	const year = 365 * day
	weak := certOf(t, rsa, ed)
	for name, c := range map[string]struct {
		cert     *openpgp.Entity // default: two subkeys
		edit     func(t *testing.T, e *openpgp.Entity)
		policy   verify.Policy // default at 2025-06-01
		expires  time.Time
		unusable string // part
	}{
		"never expires":           {},
		"the primary key expires": {edit: primary(func(s *packet.Signature) { s.KeyLifetimeSecs = seconds(2 * year) }), expires: date(2024, 1).Add(2 * year)},
		"the primary key expired": {edit: primary(func(s *packet.Signature) { s.KeyLifetimeSecs = seconds(day) }), unusable: "the key had expired on 2024-01-02"},
		"by a direct signature":   {edit: func(t *testing.T, e *openpgp.Entity) { direct(t, e, 3*year) }, expires: date(2024, 1).Add(3 * year)},
		"never, by a direct signature": {edit: func(t *testing.T, e *openpgp.Entity) {
			key := packets(t, goExport(t, e))[0].Contents
			covered := append([]byte{0x99, byte(len(key) >> 8), byte(len(key))}, key...)
			sig := signKind(t, e, packet.SigTypeDirectSignature, covered, 5, 9, 0, 0, 0, 0) // a lifetime of 0
			parsed, err := packet.Read(bytes.NewReader(sig))
			if err != nil {
				t.Fatal(err)
			}
			e.DirectSignatures = append(e.DirectSignatures, packet.NewVerifiableSig(parsed.(*packet.Signature)))
		}},
		"the later subkey counts":      {edit: lives(2*year, 3*year), expires: date(2024, 3).Add(3 * year)},
		"the later one is the first":   {edit: lives(3*year, 2*year), expires: date(2024, 3).Add(3 * year)},
		"one never expires":            {edit: lives(2*year, 0)},
		"the first never expires":      {edit: lives(0, 2*year)},
		"one has expired":              {edit: lives(day, 2*year), expires: date(2024, 3).Add(2 * year)},
		"the second has expired":       {edit: lives(2*year, day), expires: date(2024, 3).Add(2 * year)},
		"all have expired":             {edit: lives(day, 2*day), unusable: "subkey: the key had expired on 2024-03-03"},
		"no key for signing":           {cert: certOf(t, ed), edit: primary(certifies), unusable: "signing flag is not set"},
		"a weak primary key":           {cert: weak, unusable: "RSA key of 2048 bits"},
		"a weak one, by policy":        {cert: weak, policy: verify.Policy{Time: now2025, MinRSABits: 2048}},
		"the clock is before the key":  {policy: verify.Policy{Time: date(2023, 1)}, unusable: "its certificate is not usable"},
		"a clock that is a least time": {policy: verify.Policy{Time: date(2023, 1), LowerBound: true}},
		"the earlier end of both": {edit: func(t *testing.T, e *openpgp.Entity) {
			lives(3*year, 3*year)(t, e)
			recertify(t, e, func(s *packet.Signature) { s.KeyLifetimeSecs = seconds(2 * year) })
		}, expires: date(2024, 1).Add(2 * year)},
		"revoked": {edit: func(t *testing.T, e *openpgp.Entity) {
			if err := e.Revoke(packet.KeyCompromised, "", goConfig()); err != nil {
				t.Fatal(err)
			}
		}, unusable: "was revoked on 2025-01-01 00:00:00 UTC (the secret key is compromised)"},
	} {
		t.Run(name, func(t *testing.T) {
			e := c.cert
			if e == nil {
				e = certOf(t, ed, ed, ed)
			}
			if c.edit != nil {
				c.edit(t, e)
			}
			if c.policy.Time.IsZero() {
				c.policy.Time = now2025
			}
			c.policy.Keyring = ring(t, goExport(t, e))
			keys, err := c.policy.Keys()
			if err != nil || len(keys) != 1 {
				t.Fatalf("Keys() = %+v, %v", keys, err)
			}
			k := keys[0]
			if !k.Expires.Equal(c.expires) || (k.Unusable == "") != (c.unusable == "") || !strings.Contains(k.Unusable, c.unusable) ||
				k.Fingerprint != c.policy.Keyring.Fingerprints()[0] || c.unusable == "" && k.UserID != "dave <dave@example.com>" {
				t.Errorf("Keys() = %+v; want it to expire at %v, unusable %q", k, c.expires, c.unusable)
			}
		})
	}
	if keys, err := (verify.Policy{Time: now2025}).Keys(); err == nil {
		t.Errorf("Keys() without a keyring = %v", keys)
	}
}

// TestSignatureVersion: a version 6 key makes signatures of version 6 only, and every signature names its key.
func TestSignatureVersion(t *testing.T) {
	e := goKey(t, packet.Config{Algorithm: packet.PubKeyAlgoEd25519, V6Keys: true})
	p := verify.Policy{Keyring: ring(t, goExport(t, e)), Time: now2025}
	got, err := p.Verify(testDoc, signWith(t, e))
	checkVerdict(t, got, err, nil, "it is of version 4, its key of version 6")

	nameless := goKey(t, packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	p.Keyring = ring(t, goExport(t, nameless))
	list := packets(t, signWith(t, nameless))
	list[0].Contents = editUnhashed(list[0].Contents, func([]byte) []byte { return nil })
	got, err = p.Verify(testDoc, joined(t, list...))
	checkVerdict(t, got, err, nil, "does not name the key that made it")
	if claimed, err := p.Claimed(joined(t, list...)); err == nil {
		t.Errorf("Claimed() = %v", claimed)
	}
}

// TestHashes: SHA-2 and SHA-3 of 256 bits or more are accepted, detached and clearsigned, and no others.
func TestHashes(t *testing.T) {
	e := goKey(t, packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	p := verify.Policy{Keyring: ring(t, goExport(t, e)), Time: now2025}
	for hash, name := range map[crypto.Hash]string{
		crypto.SHA256: "SHA256", crypto.SHA384: "SHA384", crypto.SHA512: "SHA512", crypto.SHA3_256: "SHA3-256", crypto.SHA3_512: "SHA3-512",
		crypto.SHA1: "", crypto.SHA224: "",
	} {
		want := ""
		if name == "" {
			want = "expected sha256 or stronger"
		}
		sig := &packet.Signature{SigType: packet.SigTypeBinary, Hash: hash, CreationTime: date(2025, 1)}
		got, err := p.Verify(testDoc, signAs(t, e.PrivateKey, sig, testDoc))
		checkVerdict(t, got, err, testDoc, want)
		if err == nil && got.Signers[0].Hash != strings.ToLower(name) {
			t.Errorf("the hash is %q; want %s", got.Signers[0].Hash, name)
		}
		for _, other := range []string{name, "SHA256"} {
			text := &packet.Signature{SigType: packet.SigTypeText, Hash: hash, CreationTime: date(2025, 1)}
			doc := fmt.Appendf(nil, "-----BEGIN PGP SIGNED MESSAGE-----\nHash: %s\n\na\nb\n", other)
			got, err := p.Verify(append(doc, armoredAs(signAs(t, e.PrivateKey, text, []byte("a\r\nb")), "PGP SIGNATURE")...), nil)
			switch {
			case name == "":
				checkVerdict(t, got, err, nil, "hash")
			case other != name:
				checkVerdict(t, got, err, nil, "the document's header says SHA256")
			default:
				checkVerdict(t, got, err, []byte("a\nb\n"), "")
			}
		}
	}
}

// TestSignOnlyRSA: RSA keys of the old kind that only signs are accepted by the same bound.
func TestSignOnlyRSA(t *testing.T) {
	var secret bytes.Buffer
	if err := certOf(t, rsa).PrivateKey.Serialize(&secret); err != nil {
		t.Fatal(err)
	}
	list := packets(t, secret.Bytes())
	list[0].Contents[5] = byte(packet.PubKeyAlgoRSASignOnly)
	parsed, err := packet.Read(bytes.NewReader(joined(t, list...)))
	key, ok := parsed.(*packet.PrivateKey)
	if !ok {
		t.Fatalf("the key is %T, %v", parsed, err)
	}
	e := &openpgp.Entity{PrimaryKey: &key.PublicKey, PrivateKey: key, Identities: map[string]*openpgp.Identity{}}
	if err := e.AddUserId("erin", "", "", configAt(date(2024, 1), rsa)); err != nil {
		t.Fatal(err)
	}
	p := verify.Policy{Keyring: ring(t, goExport(t, e)), Time: now2025}
	got, err := p.Verify(testDoc, signBy(t, key, date(2025, 1)))
	checkVerdict(t, got, err, nil, "an RSA key of 2048 bits, expected at least 3072")
	p.MinRSABits = 2048
	got, err = p.Verify(testDoc, signBy(t, key, date(2025, 1)))
	checkVerdict(t, got, err, testDoc, "")
	if err == nil && got.Signers[0].Algorithm != "rsa2048" {
		t.Errorf("the signer is %+v", got.Signers[0])
	}
}

// TestErrors: an error names the key, its owner, the time and the reason; an unverified text has the same type of error.
func TestErrors(t *testing.T) {
	e, other := certOf(t, ed), certOf(t, ed)
	k := ring(t, goExport(t, e))
	p := verify.Policy{Keyring: k, Time: now2025}
	id, name := fmt.Sprintf("%016X", other.PrimaryKey.KeyId), k.Fingerprints()[0]
	future, unknown := signBy(t, e.PrivateKey, date(2030, 1)), signBy(t, other.PrivateKey, date(2025, 1))
	for _, c := range []struct {
		sig        []byte
		text, hint string
	}{
		{future, "signature by key " + name[24:] + " (dave <dave@example.com>) of 2030-01-01 00:00:00 UTC: it is from the future: the trusted clock says 2025-06-01 00:00:00 UTC",
			"set the clock of this device, if it is behind"},
		{unknown, "signature by key " + id + " of 2025-01-01 00:00:00 UTC: the key is not in the keyring", "trusted keys: " + name},
		{append(bytes.Clone(unknown), unknown...), "none of the keys that signed (" + id + ", " + id + ") is in the keyring", "trusted keys: " + name},
		{unknown[:9], "reading the signature: byte 0: OpenPGP packet is truncated",
			"download the file and its signature again; if that does not help, report it to their publisher"},
	} {
		_, err := p.Verify(testDoc, c.sig)
		if e, ok := errors.AsType[*verify.SignatureError](err); !ok || err.Error() != c.text || e.Hint() != c.hint {
			t.Errorf("Verify() = %v, hint %v; want %s, hint %s", err, e, c.text, c.hint)
		}
	}
	ofAnother := signAs(t, e.PrivateKey, &packet.Signature{Hash: crypto.SHA512, CreationTime: date(2025, 1)}, testDoc[1:])
	for _, sig := range [][]byte{unknown[:9], ofAnother} {
		if _, err := p.Verify(testDoc, sig); errors.Unwrap(err) == nil {
			t.Errorf("Verify() = %v; want it to wrap its cause", err)
		}
	}
	if err := e.Revoke(packet.KeyRetired, "", goConfig()); err != nil {
		t.Fatal(err)
	}
	p.Keyring = ring(t, goExport(t, e))
	_, err := p.Verify(testDoc, future)
	checkVerdict(t, nil, err, nil, "the key "+name+" was revoked on 2025-01-01 00:00:00 UTC (no longer used)")
	if e, ok := errors.AsType[*verify.SignatureError](err); !ok || e.Hint() != "sign with a key that is in use" {
		t.Errorf("Verify() = %v, hint %v", err, e)
	}
	clear := goClearsign(t, other, testDoc)
	if text, err := verify.UnverifiedText(clear); err != nil || !bytes.Equal(text, testDoc) {
		t.Errorf("UnverifiedText() = %q, %v", text, err)
	}
	if text, err := verify.UnverifiedText(testDoc); text != nil || errors.Unwrap(err) == nil {
		t.Errorf("UnverifiedText() of another document = %q, %v", text, err)
	} else if _, ok := errors.AsType[*verify.SignatureError](err); !ok {
		t.Errorf("UnverifiedText() = %T", err)
	}
	if _, err := verify.UnverifiedText([]byte{0}); err == nil || !strings.Contains(err.Error(), "line 1 holds the control character 0x00") {
		t.Errorf("UnverifiedText() of a control character = %v", err)
	}
	mismatch := &verify.MismatchError{Object: "range 3", Type: "sha256", Got: "ab", Want: "cd"}
	if want := "range 3: sha256 is ab, bmap says cd"; mismatch.Error() != want {
		t.Errorf("Error() = %q; want %q", mismatch, want)
	}
}

// TestProblems: every certificate with an unreadable copy is a problem, in the order of the fingerprints, and none of them is trusted.
func TestProblems(t *testing.T) {
	good := certOf(t, ed)
	data := goExport(t, good)
	var want []string
	for range 3 {
		bad := certOf(t, ed)
		data = append(data, joined(t, packets(t, goExport(t, bad))[0])...)
		want = append(want, fmt.Sprintf("%X", bad.PrimaryKey.Fingerprint))
	}
	slices.Sort(want)
	k := ring(t, data)
	problems := k.Problems()
	for i, p := range problems {
		if i >= len(want) || !strings.HasPrefix(p, "key "+want[i]+" is not trusted: reading keyring ") || !strings.Contains(p, "without any identities") {
			t.Errorf("problem %d is %q; want the keys %q", i, p, want)
		}
	}
	if len(problems) != len(want) || k.Len() != 1 {
		t.Errorf("Problems() = %q, of %d keys", problems, k.Len())
	}
}
