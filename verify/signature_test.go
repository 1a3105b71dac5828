package verify_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"updater/verify"
)

var testDoc = []byte("<?xml version=\"1.0\" ?>\n<bmap version=\"2.0\">\n  <ImageSize> 4096 </ImageSize>\n</bmap>\n")

// ring loads a keyring from the bytes of one file.
func ring(t testing.TB, data []byte) *verify.Keyring {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ring.gpg")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := verify.LoadKeyring(path)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// checkVerdict compares the outcome of Verify with want: "" is acceptance, else a part of the message.
func checkVerdict(t *testing.T, got *verify.Signed, err error, data []byte, want string) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Fatalf("Verify() = %v; want acceptance", err)
		}
		if len(got.Signers) == 0 || !bytes.Equal(got.Data, data) {
			t.Fatalf("Verify() = %d signers, data %q; want %q", len(got.Signers), got.Data, data)
		}
		return
	}
	if err == nil {
		t.Fatalf("Verify() accepted; want an error with %q", want)
	}
	if got != nil {
		t.Error("Verify() returned a document beside the error")
	}
	e, ok := errors.AsType[*verify.SignatureError](err)
	if !ok {
		t.Fatalf("Verify() = %T %v; want *SignatureError", err, err)
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("Verify() = %q; want a message with %q", err, want)
	}
	if e.Hint() == "" {
		t.Error("Hint() is empty")
	}
}

// TestDetached verifies signatures made by gpg. gpgv identifies well-formed ones.
func TestDetached(t *testing.T) {
	l := newLab(t)
	l.newKey(t, "rsa3072", "rsa3072", "sign", "never")
	l.newKey(t, "rsa2048", "rsa2048", "sign", "never")
	l.newKey(t, "rsa1024", "rsa1024", "sign", "never")
	l.newKey(t, "p256", "nistp256", "sign", "never")
	l.newKey(t, "brainpool", "brainpoolP256r1", "sign", "never")
	l.newKey(t, "koblitz", "secp256k1", "sign", "never")
	l.newKey(t, "dsa", "dsa2048", "sign", "never")
	l.newKey(t, "expired", "ed25519", "sign", "20240601T000000")
	l.newKey(t, "certonly", "ed25519", "cert", "never")
	l.newKey(t, "sub", "ed25519", "cert", "never")
	l.gpg(t, jan2024, nil, "--quick-add-key", l.fpr["sub"], "ed25519", "sign", "never")
	l.newKey(t, "subexpired", "ed25519", "cert", "never")
	l.gpg(t, jan2024, nil, "--quick-add-key", l.fpr["subexpired"], "ed25519", "sign", "20240601T000000")
	l.gpg(t, jan2024, nil, "--cert-digest-algo", "SHA1", "--quick-generate-key", "sha1self <sha1self@example.com>", "ed25519", "sign", "never")
	l.fpr["sha1self"] = l.fingerprint(t, "sha1self")

	good := l.sign(t, "alice", jan2025, testDoc)
	other := append(bytes.Clone(testDoc), ' ')
	bad := l.sign(t, "bob", jan2025, other) // a bad signature over testDoc
	armored := l.sign(t, "alice", jan2025, testDoc, "--armor")
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	gpg := func(name, at string, extra ...string) []byte { return l.sign(t, name, at, testDoc, extra...) }

	tests := []struct {
		name string
		keys string // space-separated names; default "alice"
		doc  []byte // default testDoc
		sig  []byte
		edit func(*verify.Policy)
		gpgv string // status word of gpgv; "" if gpgv is not run
		want string // part of the error; empty: accepted
	}{
		{name: "ed25519", sig: good, gpgv: "GOODSIG"},
		{name: "ed25519 armored", sig: armored, gpgv: "GOODSIG"},
		{name: "armored with CRLF", sig: bytes.ReplaceAll(armored, []byte("\n"), []byte("\r\n")), gpgv: "GOODSIG"},
		{name: "rsa3072", keys: "rsa3072", sig: gpg("rsa3072", jan2025), gpgv: "GOODSIG"},
		{name: "nistp256", keys: "p256", sig: gpg("p256", jan2025), gpgv: "GOODSIG"},
		{name: "signing subkey", keys: "sub", sig: gpg("sub", jan2025), gpgv: "GOODSIG"},
		{name: "sha256", sig: gpg("alice", jan2025, "--digest-algo", "SHA256"), gpgv: "GOODSIG"},
		{name: "sha384", sig: gpg("alice", jan2025, "--digest-algo", "SHA384"), gpgv: "GOODSIG"},
		{name: "sha224", sig: gpg("alice", jan2025, "--digest-algo", "SHA224"), gpgv: "GOODSIG", want: "hash is sha224"},
		{name: "sha1", sig: gpg("alice", jan2025, "--digest-algo", "SHA1"), gpgv: "GOODSIG", want: "hash is sha1"},
		{name: "ripemd160", sig: gpg("alice", jan2025, "--digest-algo", "RIPEMD160"), gpgv: "GOODSIG", want: "unsupported"},
		{name: "md5", keys: "rsa3072", sig: gpg("rsa3072", jan2025, "--digest-algo", "MD5", "--allow-weak-digest-algos"), want: "unsupported"},
		{name: "rsa2048", keys: "rsa2048", sig: gpg("rsa2048", jan2025), gpgv: "GOODSIG", want: "RSA key of 2048 bits, expected at least 3072"},
		{name: "rsa2048 by policy", keys: "rsa2048", sig: gpg("rsa2048", jan2025), edit: func(p *verify.Policy) { p.MinRSABits = 2048 }},
		{name: "rsa3072 with 4096 asked for", keys: "rsa3072", sig: gpg("rsa3072", jan2025), edit: func(p *verify.Policy) { p.MinRSABits = 4096 },
			want: "expected at least 4096"},
		{name: "rsa1024", keys: "rsa1024", sig: gpg("rsa1024", jan2025), gpgv: "GOODSIG", want: "RSA key of 1024 bits"},
		{name: "brainpool", keys: "brainpool", sig: gpg("brainpool", jan2025), gpgv: "GOODSIG", want: "BrainpoolP256"},
		{name: "secp256k1", keys: "koblitz", sig: gpg("koblitz", jan2025), gpgv: "GOODSIG", want: "SecP256k1"},
		{name: "dsa2048", keys: "dsa", sig: gpg("dsa", jan2025), gpgv: "GOODSIG", want: "dsa2048, which is not accepted"},
		{name: "sha1 self-signature", keys: "sha1self", sig: gpg("sha1self", jan2025), gpgv: "GOODSIG", want: "no valid self-signature"},
		{name: "tampered document", doc: other, sig: good, gpgv: "BADSIG", want: "not over this document"},
		{name: "appended data", doc: append(bytes.Clone(testDoc), testDoc...), sig: good, gpgv: "BADSIG", want: "not over this document"},
		{name: "tampered signature", sig: flipped, gpgv: "BADSIG", want: "not over this document"},
		{name: "CRLF document", doc: bytes.ReplaceAll(testDoc, []byte("\n"), []byte("\r\n")), sig: good, gpgv: "BADSIG", want: "not over this document"},
		{name: "wrong key", keys: "bob", sig: good, gpgv: "ERRSIG", want: "not in the keyring"},
		{name: "text mode", sig: gpg("alice", jan2025, "--textmode"), gpgv: "GOODSIG", want: "text-mode"},
		{name: "key expired, signed before", keys: "expired", sig: gpg("expired", mar2024), gpgv: "EXPKEYSIG"},
		{name: "subkey expired, signed before", keys: "subexpired", sig: gpg("subexpired", mar2024), gpgv: "EXPKEYSIG"},
		{name: "signature expired", sig: gpg("alice", mar2024, "--default-sig-expire", "20240401T000000"), gpgv: "EXPSIG",
			want: "it expired; the trusted clock says 2025-06-01"},
		{name: "signature expires later", sig: gpg("alice", jan2025, "--default-sig-expire", "20260101T000000")},
		{name: "from the future", sig: gpg("alice", jan2030), want: "from the future"},
		{name: "future, clock is a lower bound", sig: gpg("alice", jan2030), edit: func(p *verify.Policy) { p.LowerBound = true }},
		{name: "expired before a lower bound", sig: gpg("alice", mar2024, "--default-sig-expire", "20240401T000000"),
			edit: func(p *verify.Policy) { p.LowerBound = true }, want: "it expired"},
		{name: "future within the skew", sig: gpg("alice", "20250602T000000")},
		{name: "future, a second more than the skew", sig: gpg("alice", "20250602T000001"), want: "from the future"},
		{name: "1970 clock with a lower bound", sig: good, edit: func(p *verify.Policy) { p.Time, p.LowerBound = time.Unix(1, 0), true }},
		{name: "1970 clock believed", sig: good, edit: func(p *verify.Policy) { p.Time = time.Unix(1, 0) }, want: "from the future"},
		{name: "zero time", sig: good, edit: func(p *verify.Policy) { p.Time = time.Time{} }, want: "no trusted time"},
		{name: "no keyring", sig: good, edit: func(p *verify.Policy) { p.Keyring = nil }, want: "no key is trusted"},
		{name: "empty keyring", sig: good, edit: func(p *verify.Policy) { p.Keyring = new(verify.Keyring) }, want: "no key is trusted"},
		{name: "RSA floor too low", sig: good, edit: func(p *verify.Policy) { p.MinRSABits = 2047 }, want: "of 2047 bits, expected 2048 to 16384"},
		{name: "RSA floor too high", sig: good, edit: func(p *verify.Policy) { p.MinRSABits = 16385 }, want: "expected 2048 to 16384"},
		{name: "the highest RSA floor", sig: good, edit: func(p *verify.Policy) { p.MinRSABits = 16384 }},
		{name: "a negative threshold", sig: good, edit: func(p *verify.Policy) { p.MinSigners = -1 }, want: "asks for -1 signers"},
		{name: "more signers than keys", sig: good, edit: func(p *verify.Policy) { p.MinSigners = 2 }, want: "keyring has 1"},
		{name: "notation", sig: gpg("alice", jan2025, "--sig-notation", "role@example.com=x"), gpgv: "GOODSIG"},
		{name: "critical notation", sig: gpg("alice", jan2025, "--sig-notation", "!role@example.com=x"), gpgv: "BADSIG", want: "critical notation"},
		{name: "two signers, one known", sig: join(bytes.Clone(l.sign(t, "bob", jan2025, testDoc)), good), gpgv: "ERRSIG,GOODSIG"},
		{name: "two signers, none known", keys: "rsa3072", sig: join(l.sign(t, "bob", jan2025, testDoc), good), want: "none of the keys"},
		{name: "good then bad, both known", keys: "alice bob", sig: join(good, bad), want: "not over this document"},
		{name: "bad then good, both known", keys: "alice bob", sig: join(bad, good), gpgv: "BADSIG", want: "not over this document"},
		{name: "bad by an unknown key beside good", sig: join(bad, good)},
		{name: "good and weak, both known", keys: "alice rsa2048", sig: join(good, gpg("rsa2048", jan2025)), want: "RSA key of 2048"},
		{name: "threshold reached", keys: "alice bob", sig: join(good, l.sign(t, "bob", jan2025, testDoc)),
			edit: func(p *verify.Policy) { p.MinSigners = 2 }},
		{name: "threshold by one key twice", keys: "alice bob", sig: join(good, gpg("alice", mar2024)), edit: func(p *verify.Policy) { p.MinSigners = 2 },
			want: "1 of the trusted keys signed, 2 must"},
		{name: "several armored blocks", sig: join(armored, armored), gpgv: "GOODSIG,GOODSIG", want: "several armored blocks"},
		{name: "text before the armor", sig: join([]byte("hello\n"), armored), want: "does not begin"},
		{name: "text after the armor", sig: join(armored, []byte("hello\n")), want: "follow the armored signature"},
		{name: "truncated armor", sig: armored[:len(armored)-30], want: "truncated"},
		{name: "armor checksum", sig: bytes.Replace(armored, []byte("\n="), []byte("\n=AAAA\n="), 1), want: "armor"},
		{name: "truncated", sig: good[:len(good)-1], want: "truncated"},
		{name: "trailing bytes", sig: join(good, bytes.Repeat([]byte{1}, 100)), want: "does not begin an OpenPGP packet"},
		{name: "trailing packet", sig: join(good, []byte{0xca, 3, 'P', 'G', 'P'}), want: "not a signature"},
		{name: "bytes too many in the packet", sig: join([]byte{good[0], good[1] + 1}, good[2:], []byte{0}), want: "too many"},
		{name: "empty signature", sig: []byte{}, want: "signature file is empty"},
		{name: "signature packet without bytes", sig: []byte{0xc2, 0}, want: "EOF"},
		{name: "empty document", doc: []byte{}, sig: l.sign(t, "alice", jan2025, nil), want: "document is empty"},
		{name: "no signature", want: "document is not signed"},
		{name: "junk", sig: []byte("hello"), want: "does not begin an OpenPGP packet"},
		{name: "a certificate as signature", sig: l.export(t, "alice"), want: "not a signature"},
		{name: "an inline-signed message", sig: l.gpg(t, jan2025, testDoc, "-u", l.fpr["alice"], "--sign", "--armor", "-o", "-"), want: "PGP MESSAGE"},
		{name: "signature too large", sig: make([]byte, verify.MaxSignatureSize+1), want: "at most 65536"},
		{name: "as many signatures as allowed", sig: bytes.Repeat(good, 16)},
		{name: "too many signatures", sig: bytes.Repeat(good, 17), want: "at most 16"},
		{name: "clearsigned and detached", doc: l.clearsign(t, "alice", jan2025, testDoc), sig: good, want: "also has a detached signature"},
		{name: "clearsigned as signature", sig: l.clearsign(t, "alice", jan2025, testDoc), want: "clearsigned document"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			names := strings.Fields(tc.keys)
			if len(names) == 0 {
				names = []string{"alice"}
			}
			if tc.doc == nil {
				tc.doc = testDoc
			}
			cert := l.export(t, names...)
			p := verify.Policy{Keyring: ring(t, cert), Time: now2025}
			if tc.edit != nil {
				tc.edit(&p)
			}
			if tc.gpgv != "" {
				if got := l.gpgv(t, cert, tc.doc, tc.sig); got != tc.gpgv {
					t.Errorf("gpgv says %s; want %s", got, tc.gpgv)
				}
			}
			got, err := p.Verify(tc.doc, tc.sig)
			checkVerdict(t, got, err, tc.doc, tc.want)
		})
	}
}

func TestSigners(t *testing.T) {
	l := newLab(t)
	doc := testDoc
	p := verify.Policy{Keyring: ring(t, l.export(t, "alice", "bob")), Time: now2025, MinSigners: 2}
	sig := append(l.sign(t, "bob", jan2025, doc, "--digest-algo", "SHA512"), l.sign(t, "alice", mar2024, doc, "--digest-algo", "SHA256")...)
	got, err := p.Verify(doc, sig)
	if err != nil {
		t.Fatal(err)
	}
	want := &verify.Signed{Data: doc, Form: "detached", Signers: []verify.Signer{
		{Fingerprint: l.fpr["bob"], KeyID: l.fpr["bob"][24:], UserID: "bob <bob@example.com>", Time: time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC),
			Hash: "sha512", Algorithm: "ed25519"},
		{Fingerprint: l.fpr["alice"], KeyID: l.fpr["alice"][24:], UserID: "alice <alice@example.com>", Time: time.Date(2024, 3, 1, 0, 0, 0, 0, time.UTC),
			Hash: "sha256", Algorithm: "ed25519"},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Verify() differs (-want +got):\n%s", diff)
	}
}
