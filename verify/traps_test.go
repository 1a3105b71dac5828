package verify_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"updater/verify"
)

// TestTraps verifies signatures that gpgv or careless use of the library accepts, and others at the limits of the policy.
func TestTraps(t *testing.T) {
	l := newLab(t)
	l.newKey(t, "rsa4096", "rsa4096", "sign", "never")
	l.newKey(t, "short", "ed25519", "sign", "never")
	l.newKey(t, "sub", "ed25519", "cert", "never")
	l.gpg(t, jan2024, nil, "--quick-add-key", l.fpr["sub"], "ed25519", "sign", "never")
	l.newKey(t, "subshort", "ed25519", "cert", "never")
	l.gpg(t, jan2024, nil, "--quick-add-key", l.fpr["subshort"], "ed25519", "sign", "never")

	good := l.sign(t, "alice", jan2025, testDoc)
	long := l.sign(t, "rsa4096", jan2025, testDoc)
	sub := l.sign(t, "sub", jan2025, testDoc)
	// Signed while they lived; then their owner shortened their lives to before that.
	short, subshort := l.sign(t, "short", mar2024, testDoc), l.sign(t, "subshort", mar2024, testDoc)
	l.gpg(t, "20240102T000000", nil, "--quick-set-expire", l.fpr["short"], "20240201T000000")
	l.gpg(t, "20240102T000000", nil, "--quick-set-expire", l.fpr["subshort"], "20240201T000000", "*")
	l.newKey(t, "expired", "ed25519", "sign", "20240601T000000")
	expired := l.sign(t, "expired", mar2024, testDoc)
	l.newKey(t, "subexpired", "ed25519", "cert", "never")
	l.gpg(t, jan2024, nil, "--quick-add-key", l.fpr["subexpired"], "ed25519", "sign", "20240601T000000")
	subexpired := l.sign(t, "subexpired", mar2024, testDoc)
	keyID, err := hex.DecodeString(l.fpr["alice"][24:])
	if err != nil {
		t.Fatal(err)
	}

	tests := []struct {
		name string
		keys string // default "alice"
		ring []byte // instead of keys
		sig  []byte
		edit func(*verify.Policy)
		gpgv string // empty: not asked
		want string // part of the error; empty: accepted
	}{
		{name: "rsa4096", keys: "rsa4096", sig: long, gpgv: "GOODSIG"},
		{name: "rsa4096 armored", keys: "rsa4096", sig: l.sign(t, "rsa4096", jan2025, testDoc, "--armor"), gpgv: "GOODSIG"},
		{name: "rsa4096 sha1", keys: "rsa4096", sig: l.sign(t, "rsa4096", jan2025, testDoc, "--digest-algo", "SHA1"), gpgv: "GOODSIG",
			want: "hash is sha1"},
		{name: "sha256, 512 bits asked for", sig: l.sign(t, "alice", jan2025, testDoc, "--digest-algo", "SHA256"),
			edit: func(p *verify.Policy) { p.MinHash = 512 }, want: "the policy asks for 512 bits"},
		{name: "sha512, 512 bits asked for", sig: l.sign(t, "alice", jan2025, testDoc, "--digest-algo", "SHA512"),
			edit: func(p *verify.Policy) { p.MinHash = 512 }},
		{name: "a hash floor that is none", sig: good, edit: func(p *verify.Policy) { p.MinHash = 128 }, want: "expected 256, 384 or 512"},
		{name: "signed after the key expired", keys: "short", sig: short, gpgv: "EXPKEYSIG", want: "the key had expired on 2024-02-01"},
		{name: "signed after the subkey expired", keys: "subshort", sig: subshort, gpgv: "EXPKEYSIG", want: "subkey: the key had expired on 2024-02-01"},
		{name: "expired key, signed before", keys: "expired", sig: expired, gpgv: "EXPKEYSIG"},
		{name: "expired key, signed before, refused by policy", keys: "expired", sig: expired, edit: func(p *verify.Policy) { p.RefuseExpired = true },
			want: "the key had expired on 2024-06-01"},
		{name: "expired subkey by policy", keys: "subexpired", sig: subexpired, edit: func(p *verify.Policy) { p.RefuseExpired = true },
			want: "subkey: the key had expired on 2024-06-01"},
		{name: "living key by policy, clock before it is a lower bound", sig: good,
			edit: func(p *verify.Policy) { p.RefuseExpired, p.LowerBound, p.Time = true, true, time.Unix(1, 0) }},
		{name: "expired key by policy, clock before", keys: "expired", sig: expired,
			edit: func(p *verify.Policy) { p.RefuseExpired, p.Time = true, p.Time.AddDate(-1, -1, 0) }},
		{name: "signature of another file", sig: l.sign(t, "alice", jan2025, []byte("<bmap/>\n")), gpgv: "BADSIG", want: "not over this document"},
		{name: "self-certification as signature", sig: selfCertification(t, l.export(t, "alice")), gpgv: "ERRSIG", want: "expected binary (0x00)"},
		{name: "version 3", sig: version3(t, good, keyID), want: "of version 3, which is obsolete"},
		{name: "an inline-signed message, binary", sig: l.gpg(t, jan2025, testDoc, "-u", l.fpr["alice"], "--sign", "-o", "-"), want: "reading"},
		{name: "subkey", keys: "sub", sig: sub, gpgv: "GOODSIG"},
		{name: "subkey without cross-certificate", ring: withoutCrossCertificate(t, l.export(t, "sub")), sig: sub, gpgv: "ERRSIG",
			want: "not validly bound"},
		{name: "unhashed subpackets, which nobody signed, say nothing", sig: withUnhashed(t, withUnhashed(t, good, 99), 0x80|99)},
		{name: "unhashed creation time", sig: withUnhashed(t, l.sign(t, "alice", jan2030, testDoc), 2, 0x60, 0, 0, 0), want: "from the future"},
		{name: "unhashed expiry does not replace the signed one", sig: withUnhashed(t,
			l.sign(t, "alice", mar2024, testDoc, "--default-sig-expire", "20240401T000000"), 3, 0x7f, 0xff, 0xff, 0xff), want: "it expired"},
		{name: "unhashed issuer of another key", keys: "alice bob", sig: withUnhashed(t, l.sign(t, "bob", jan2025, []byte("x")), 16, keyID...),
			want: "not in the keyring"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			names := strings.Fields(tc.keys)
			if len(names) == 0 {
				names = []string{"alice"}
			}
			cert := tc.ring
			if cert == nil {
				cert = l.export(t, names...)
			}
			if tc.gpgv != "" {
				if got := l.gpgv(t, cert, testDoc, tc.sig); got != tc.gpgv {
					t.Errorf("gpgv says %s; want %s", got, tc.gpgv)
				}
			}
			p := verify.Policy{Keyring: ring(t, cert), Time: now2025}
			if tc.edit != nil {
				tc.edit(&p)
			}
			got, err := p.Verify(testDoc, tc.sig)
			checkVerdict(t, got, err, testDoc, tc.want)
		})
	}
}

// TestRevokedLater checks that a revocation counts with every reason, at any time of the clock, for later signatures too.
func TestRevokedLater(t *testing.T) {
	l := newLab(t)
	reasons := map[string]string{"unstated": "0", "stolen": "1", "superseded": "2", "retired": "3"}
	words := map[string]string{"unstated": "no reason given", "stolen": "the secret key is compromised", "superseded": "superseded by another key",
		"retired": "no longer used"}
	for _, name := range []string{"unstated", "stolen", "superseded", "retired"} {
		l.newKey(t, name, "ed25519", "sign", "never")
		before, after := l.sign(t, name, mar2024, testDoc), l.sign(t, name, jan2025, testDoc)
		l.gpg(t, jul2024, l.interact(t, jul2024, []string{"y", reasons[name], "", "y"}, "--armor", "--gen-revoke", l.fpr[name]), "--import")
		k := ring(t, l.export(t, name))
		for when, sig := range map[string][]byte{"before": before, "after": after} {
			for _, years := range []int{-55, 0, 75} {
				p := verify.Policy{Keyring: k, Time: now2025.AddDate(years, 0, 0), LowerBound: true}
				got, err := p.Verify(testDoc, sig)
				if want := "was revoked on 2024-07-01 00:00:00 UTC (" + words[name] + ")"; err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s, signed %s it, clock %d: Verify() = %v, %v", name, when, p.Time.Year(), got, err)
				}
			}
		}
	}
}

func TestOnly(t *testing.T) {
	l := newLab(t)
	both := ring(t, l.export(t, "alice", "bob"))
	spaced := l.fpr["alice"][:20] + "  " + strings.ToLower(l.fpr["alice"][20:])
	only, err := both.Only(spaced)
	if err != nil || !slices.Equal(only.Fingerprints(), []string{l.fpr["alice"]}) {
		t.Fatalf("Only() = %v, %v", only, err)
	}
	p := verify.Policy{Keyring: only, Time: now2025}
	got, err := p.Verify(testDoc, l.sign(t, "alice", jan2025, testDoc))
	checkVerdict(t, got, err, testDoc, "")
	got, err = p.Verify(testDoc, l.sign(t, "bob", jan2025, testDoc))
	checkVerdict(t, got, err, testDoc, "not in the keyring")
	p.MinSigners = 2
	got, err = p.Verify(testDoc, l.sign(t, "alice", jan2025, testDoc))
	checkVerdict(t, got, err, testDoc, "asks for 2 signers, but the keyring has 1")
	if known, revoked := both.Knows(l.fpr["bob"]); !known || revoked {
		t.Errorf("Knows() = %v, %v", known, revoked)
	}
	for bad, want := range map[string]string{
		"": "not a full", l.fpr["alice"][24:]: "not a full", l.fpr["alice"] + "00": "not a full", strings.Repeat("G", 40): "not a full",
		strings.Repeat("A", 40): "has no key", strings.Repeat("A", 64): "has no key",
	} {
		if k, err := both.Only(bad); k != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Only(%q) = %v, %v; want an error with %q", bad, k, err, want)
		}
	}
	if k, err := both.Only(); err == nil || k != nil {
		t.Errorf("Only() = %v, %v; want an error", k, err)
	}
}

func TestPermit(t *testing.T) {
	signers := []verify.Signer{{Fingerprint: "R"}, {Fingerprint: "S"}}
	p := verify.Policy{Roles: map[string][]string{"R": {"recovery"}}, RoleSigners: map[string]int{"boot": 2}}
	for _, tc := range []struct {
		name    string
		signers []verify.Signer
		role    string
		min     int
		want    int // 0: refused
	}{
		{"a key without a limit", signers[1:], "rootfs", 1, 1},
		{"a recovery key for recovery", signers[:1], "recovery", 1, 1},
		{"a recovery key for rootfs", signers[:1], "rootfs", 1, 0},
		{"a recovery key for no role", signers[:1], "", 1, 0},
		{"a key without a limit for no role", signers[1:], "", 1, 1},
		{"two for recovery", signers, "recovery", 2, 2},
		{"two for rootfs, one of them may not", signers, "rootfs", 2, 0},
		{"one of two suffices", signers, "rootfs", 0, 1},
		{"a role that needs two", signers[1:], "boot", 1, 0},
		{"two for a role that needs two, one of them may not", signers, "boot", 1, 0},
		{"two for a role that needs two", []verify.Signer{{Fingerprint: "S"}, {Fingerprint: "T"}}, "boot", 1, 2},
	} {
		p.MinSigners = tc.min
		got, err := p.Permit(tc.signers, tc.role)
		if _, refused := errors.AsType[*verify.SignatureError](err); refused != (tc.want == 0) || len(got) != tc.want {
			t.Errorf("%s: Permit() = %v, %v", tc.name, got, err)
		}
	}
	_, err := p.Permit(signers[:1], "rootfs")
	if want := `0 of the keys that signed may sign for this role, which is "rootfs" here; 1 must: key R may sign only for recovery`; err.Error() != want {
		t.Errorf("Permit() = %q; want %q", err, want)
	}
	_, err = p.Permit(nil, "")
	if want := "0 of the keys that signed may sign for this role, which the document does not name; 1 must"; err.Error() != want {
		t.Errorf("Permit() = %q; want %q", err, want)
	}
}

func TestPermitDocument(t *testing.T) {
	signers := []verify.Signer{{Fingerprint: "C"}, {Fingerprint: "R"}, {Fingerprint: "S"}}
	p := verify.Policy{Documents: map[string][]string{"C": {"channel"}, "R": {"release", "keyring"}}}
	for _, tc := range []struct {
		kind string
		min  int
		want string // fingerprints; "": refused
	}{
		{"release", 1, "RS"}, {"bmap", 1, "S"}, {"channel", 1, "C"}, {"keyring", 1, "R"}, {"plan", 1, ""},
		{"release", 2, "RS"}, {"bmap", 2, ""}, {"channel", 2, ""}, {"release", 3, ""},
	} {
		p.MinSigners = tc.min
		got, err := p.PermitDocument(signers, tc.kind)
		fingerprints := ""
		for _, s := range got {
			fingerprints += s.Fingerprint
		}
		if _, refused := errors.AsType[*verify.SignatureError](err); refused != (tc.want == "") || fingerprints != tc.want {
			t.Errorf("PermitDocument(%s) of %d = %q, %v; want %q", tc.kind, tc.min, fingerprints, err, tc.want)
		}
	}
}

func TestRoleSignersOfAPolicy(t *testing.T) {
	l := newLab(t)
	refused := `signers of role "boot", but the keyring has 1`
	for n, want := range map[int]string{-1: refused, 0: "", 1: "", 2: refused} {
		p := verify.Policy{Keyring: ring(t, l.export(t, "alice")), Time: now2025, RoleSigners: map[string]int{"boot": n}}
		got, err := p.Verify(testDoc, l.sign(t, "alice", jan2025, testDoc))
		checkVerdict(t, got, err, testDoc, want)
	}
}

// TestClaimed: a signature is refused before its document is there when no document could be accepted with it, by the same error.
func TestClaimed(t *testing.T) {
	l := newLab(t)
	p := verify.Policy{Keyring: ring(t, append(l.export(t, "alice"), l.export(t, "bob")...)), Time: now2025}
	alice, bob := l.sign(t, "alice", jan2025, testDoc), l.sign(t, "bob", jan2025, testDoc)
	both := append(bytes.Clone(alice), bob...)
	only := p
	only.Keyring = ring(t, l.export(t, "alice"))
	two := p
	two.MinSigners = 2
	for _, tc := range []struct {
		name   string
		policy verify.Policy
		sig    []byte
		want   []string
	}{
		{"one", p, alice, []string{"alice"}},
		{"two", two, both, []string{"alice", "bob"}},
		{"one beside an unknown key", only, both, []string{"alice"}},
		{"an unknown key", only, bob, nil},
		{"one of two", two, alice, nil},
		{"one of two, twice", two, append(bytes.Clone(alice), alice...), nil},
		{"nothing", p, []byte{}, nil},
		{"no signature", p, l.export(t, "alice"), nil},
		{"too large", p, make([]byte, verify.MaxSignatureSize+1), nil},
		{"no keyring", verify.Policy{Time: now2025}, alice, nil},
	} {
		got, err := tc.policy.Claimed(tc.sig)
		var names []string
		for _, s := range got {
			names = append(names, s.Fingerprint)
		}
		var want []string
		for _, name := range tc.want {
			want = append(want, l.fpr[name])
		}
		if _, refused := errors.AsType[*verify.SignatureError](err); refused != (tc.want == nil) || !slices.Equal(names, want) {
			t.Errorf("%s: Claimed() = %v, %v; want %v", tc.name, names, err, tc.want)
		}
		if _, want := tc.policy.Verify(testDoc, tc.sig); fmt.Sprint(err) != fmt.Sprint(want) {
			t.Errorf("%s: Claimed() = %v; want %v", tc.name, err, want)
		}
	}
}

// TestSizes: the caps hold at their borders, and nothing is read past them.
func TestSizes(t *testing.T) {
	l := newLab(t)
	p := verify.Policy{Keyring: ring(t, l.export(t, "alice")), Time: now2025}
	doc := bytes.Repeat([]byte{'x'}, verify.MaxDocumentSize)
	got, err := p.Verify(doc, l.sign(t, "alice", jan2025, doc))
	checkVerdict(t, got, err, doc, "")
	got, err = p.Verify(append(doc, 'x'), l.sign(t, "alice", jan2025, testDoc))
	checkVerdict(t, got, err, nil, "at most 67108864")
	clear := l.clearsign(t, "alice", jan2025, testDoc)
	long := append(bytes.Clone(clear), make([]byte, verify.MaxDocumentSize+verify.MaxSignatureSize-len(clear))...)
	got, err = p.Verify(long, nil)
	checkVerdict(t, got, err, nil, "holds the control character 0x00")
	got, err = p.Verify(append(long, 'x'), nil)
	checkVerdict(t, got, err, nil, "at most 67108864")

	sig := l.sign(t, "alice", jan2025, testDoc)
	for more, want := range []string{"", "at most 65536"} {
		filled := filledTo(t, sig, verify.MaxSignatureSize+more)
		got, err = p.Verify(testDoc, filled)
		checkVerdict(t, got, err, testDoc, want)
		text := l.sign(t, "alice", jan2025, bytes.TrimSuffix(bytes.ReplaceAll(testDoc, []byte("\n"), []byte("\r\n")), []byte("\r\n")), "--textmode")
		got, err = p.Verify(inlay(clear, armoredAs(filledTo(t, text, verify.MaxSignatureSize+more), "PGP SIGNATURE")), nil)
		checkVerdict(t, got, err, testDoc, want)
	}
}

// filledTo adds to a signature, in its unhashed part and in that of a copy, until both together have a size.
func filledTo(t *testing.T, sig []byte, size int) []byte {
	t.Helper()
	return append(filled(t, sig, size/2), filled(t, sig, size-size/2)...)
}

// filled adds to the unhashed part of a signature until it has a size.
func filled(t *testing.T, sig []byte, size int) []byte {
	t.Helper()
	for fill := size - len(sig) - 16; fill < size-len(sig); fill++ {
		p := packets(t, sig)[0]
		p.Contents = editUnhashed(p.Contents, func(area []byte) []byte {
			area = binary.BigEndian.AppendUint32(append(area, 255), uint32(fill+1))
			return append(append(area, 99), make([]byte, fill)...)
		})
		if b := joined(t, p); len(b) == size {
			return b
		}
	}
	t.Fatalf("no signature of %d bytes", size)
	return nil
}
