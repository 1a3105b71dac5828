package verify_test

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	goed25519 "github.com/ProtonMail/go-crypto/openpgp/ed25519"
	"github.com/ProtonMail/go-crypto/openpgp/eddsa"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"updater/verify"
)

// Signatures and certificates made by gpg, changed at places that no signature covers.

// packets takes binary OpenPGP data apart.
func packets(t testing.TB, data []byte) []*packet.OpaquePacket {
	t.Helper()
	var list []*packet.OpaquePacket
	for r := packet.NewOpaqueReader(bytes.NewReader(data)); ; {
		p, err := r.Next()
		if err != nil {
			break
		}
		list = append(list, p)
	}
	if len(list) == 0 {
		t.Fatal("no packets")
	}
	return list
}

// joined is the reverse of packets.
func joined(t testing.TB, list ...*packet.OpaquePacket) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, p := range list {
		if err := p.Serialize(&b); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// editUnhashed changes the unhashed subpackets of a version 4 signature's body (RFC 9580 section 5.2.3).
func editUnhashed(body []byte, edit func(area []byte) []byte) []byte {
	at := 6 + int(binary.BigEndian.Uint16(body[4:]))
	length := int(binary.BigEndian.Uint16(body[at:]))
	area := edit(bytes.Clone(body[at+2 : at+2+length]))
	out := binary.BigEndian.AppendUint16(bytes.Clone(body[:at]), uint16(len(area)))
	return append(append(out, area...), body[at+2+length:]...)
}

// withUnhashed adds a subpacket to the unhashed area of a detached signature.
func withUnhashed(t testing.TB, sig []byte, kind byte, data ...byte) []byte {
	t.Helper()
	p := packets(t, sig)[0]
	p.Contents = editUnhashed(p.Contents, func(area []byte) []byte {
		return append(append(area, byte(len(data)+1), kind), data...)
	})
	return joined(t, p)
}

// withoutCrossCertificate removes the embedded signatures, which gpg keeps unhashed, from all subkey bindings.
func withoutCrossCertificate(t testing.TB, cert []byte) []byte {
	t.Helper()
	list, removed := packets(t, cert), 0
	for _, p := range list {
		if p.Tag != 2 || p.Contents[1] != 0x18 {
			continue
		}
		p.Contents = editUnhashed(p.Contents, func(area []byte) []byte {
			subpackets, err := packet.OpaqueSubpackets(area)
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			for _, s := range subpackets {
				if s.SubType == 32 {
					removed++
					continue
				}
				if err := s.Serialize(&b); err != nil {
					t.Fatal(err)
				}
			}
			return b.Bytes()
		})
	}
	if removed == 0 {
		t.Fatal("the certificate has no cross-certificate")
	}
	return joined(t, list...)
}

// selfCertification returns the first signature of type 0x13 in a certificate.
func selfCertification(t testing.TB, cert []byte) []byte {
	t.Helper()
	for _, p := range packets(t, cert) {
		if p.Tag == 2 && p.Contents[1] == 0x13 {
			return joined(t, p)
		}
	}
	t.Fatal("no self-certification")
	return nil
}

// version3 is a signature packet in the obsolete format (RFC 9580 section 5.2.2) by the issuer of sig.
func version3(t testing.TB, sig []byte, keyID []byte) []byte {
	t.Helper()
	body := append([]byte{3, 5, 0, 0x65, 0x92, 0, 0}, keyID...)
	body = append(body, 1, 8, 0, 0, 0, 8, 0xff)
	return joined(t, &packet.OpaquePacket{Tag: 2, Contents: body})
}

// signWith makes a version 4 signature of testDoc by hand, with further hashed subpackets that the library would not
// write. e is an Ed25519 key; only the unhashed key ID names it.
func signWith(t testing.TB, e *openpgp.Entity, subpackets ...byte) []byte {
	t.Helper()
	return signKind(t, e, packet.SigTypeBinary, testDoc, subpackets...)
}

// signKind makes any kind of signature of the covered bytes, as signWith does.
func signKind(t testing.TB, e *openpgp.Entity, kind packet.SignatureType, covered []byte, subpackets ...byte) []byte {
	t.Helper()
	key := e.PrivateKey
	made := uint32(time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC).Unix())
	hashed := binary.BigEndian.AppendUint32([]byte{5, 2}, made)
	hashed = append(hashed, subpackets...)
	body := binary.BigEndian.AppendUint16([]byte{4, byte(kind), byte(key.PubKeyAlgo), 10}, uint16(len(hashed)))
	body = append(body, hashed...)
	h := crypto.SHA512.New()
	h.Write(covered)
	h.Write(body)
	h.Write(binary.BigEndian.AppendUint32([]byte{4, 0xff}, uint32(len(body))))
	digest := h.Sum(nil)
	body = append(body, 0, 10, 9, 16)
	body = append(binary.BigEndian.AppendUint64(body, key.KeyId), digest[:2]...)
	if native, ok := key.PrivateKey.(*goed25519.PrivateKey); ok {
		return joined(t, &packet.OpaquePacket{Tag: 2, Contents: append(body, ed25519.Sign(native.Key, digest)...)})
	}
	secret, ok := key.PrivateKey.(*eddsa.PrivateKey)
	if !ok {
		t.Fatalf("key is a %T", key.PrivateKey)
	}
	raw := ed25519.Sign(ed25519.NewKeyFromSeed(secret.D), digest)
	for _, half := range [][]byte{raw[:32], raw[32:]} {
		n := new(big.Int).SetBytes(half)
		body = append(binary.BigEndian.AppendUint16(body, uint16(n.BitLen())), n.Bytes()...)
	}
	return joined(t, &packet.OpaquePacket{Tag: 2, Contents: body})
}

// TestHashedSubpackets checks that unknown critical subpackets are refused.
func TestHashedSubpackets(t *testing.T) {
	e := goKey(t, packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	p := verify.Policy{Keyring: ring(t, goExport(t, e)), Time: now2025}
	for name, tc := range map[string]struct {
		subpackets []byte
		want       string
	}{
		"none":                          {},
		"unknown":                       {subpackets: []byte{1, 99}},
		"unknown and critical":          {subpackets: []byte{1, 0x80 | 99}, want: "unknown critical signature subpacket type 99"},
		"private use and critical":      {subpackets: []byte{1, 0x80 | 100}, want: "unknown critical signature subpacket type 100"},
		"of no length":                  {subpackets: []byte{0}, want: "zero length"},
		"longer than the area":          {subpackets: []byte{200, 200, 99}, want: "truncated"},
		"expiry, critical, in the past": {subpackets: []byte{5, 0x80 | 3, 0, 0, 0, 60}, want: "it expired"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := p.Verify(testDoc, signWith(t, e, tc.subpackets...))
			checkVerdict(t, got, err, testDoc, tc.want)
		})
	}
}

// TestPacketLengths: a certificate is the same with every form of packet length (RFC 9580, section 4.2), except an unknown length; one that
// ends inside a length or a body is refused.
func TestPacketLengths(t *testing.T) {
	e, err := openpgp.NewEntity("a "+strings.Repeat("release ", 24), "", "release@example.com", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	if err != nil {
		t.Fatal(err)
	}
	var cert bytes.Buffer
	if err := e.Serialize(&cert); err != nil {
		t.Fatal(err)
	}
	be := binary.BigEndian
	for name, c := range map[string]struct {
		header func(tag byte, n int) []byte
		ok     bool
	}{
		"old, one octet":   {func(tag byte, n int) []byte { return []byte{0x80 | tag<<2, byte(n)} }, true},
		"old, two octets":  {func(tag byte, n int) []byte { return be.AppendUint16([]byte{0x81 | tag<<2}, uint16(n)) }, true},
		"old, four octets": {func(tag byte, n int) []byte { return be.AppendUint32([]byte{0x82 | tag<<2}, uint32(n)) }, true},
		"old, none":        {func(tag byte, _ int) []byte { return []byte{0x83 | tag<<2} }, false},
		"new, five octets": {func(tag byte, n int) []byte { return be.AppendUint32([]byte{0xc0 | tag, 255}, uint32(n)) }, true},
		"new, one or two octets": {func(tag byte, n int) []byte {
			if n < 192 {
				return []byte{0xc0 | tag, byte(n)}
			}
			return []byte{0xc0 | tag, 192 + byte((n-192)>>8), byte(n - 192)}
		}, true},
		"new, partial":                          {func(tag byte, _ int) []byte { return []byte{0xc0 | tag, 224} }, false},
		"new, partial, at the end of its range": {func(tag byte, _ int) []byte { return []byte{0xc0 | tag, 254} }, false},
		"no packet":                             {func(tag byte, n int) []byte { return []byte{tag, byte(n)} }, false},
	} {
		var data []byte
		for _, p := range packets(t, cert.Bytes()) {
			if len(p.Contents) > 255 || p.Tag == 13 && len(p.Contents) < 192 {
				t.Fatalf("a packet of %d bytes", len(p.Contents))
			}
			data = append(append(data, c.header(p.Tag, len(p.Contents))...), p.Contents...)
		}
		data = append(data, c.header(12, 0)...) // the trust packet of nothing
		path := filepath.Join(t.TempDir(), "release.gpg")
		load := func(data []byte) ([]string, error) {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			ring, err := verify.LoadKeyring(path)
			if err != nil {
				return nil, err
			}
			return ring.Fingerprints(), nil
		}
		got, err := load(data)
		if want := fmt.Sprintf("%X", e.PrimaryKey.Fingerprint); c.ok != (err == nil) || c.ok && !slices.Equal(got, []string{want}) {
			t.Errorf("%s: LoadKeyring = %v, %v; want %s: %v", name, got, err, want, c.ok)
		}
		for n := 1; n < 8 && c.ok; n++ {
			if got, err := load(data[:n]); err == nil {
				t.Errorf("%s: LoadKeyring of %d bytes = %v", name, n, got)
			}
		}
	}
}
