package release_test

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"updater/bmap"
	"updater/release"
	"updater/verify"
)

func TestOpenRelease(t *testing.T) {
	l := newLab(t, "alice", "bob", "channel", "boot")
	l.key("mallory")
	doc, two := []byte(small()), []byte(image2())
	limits := func(tr *release.Trust) {
		tr.Policy.Documents = map[string][]string{l.ids["channel"]: {"channel"}}
		tr.Policy.Roles = map[string][]string{l.ids["boot"]: {"boot"}}
	}
	of := func(n int) func(tr *release.Trust) {
		return func(tr *release.Trust) { limits(tr); tr.Policy.MinSigners = n }
	}
	rootfsOf := func(n int) func(tr *release.Trust) {
		return func(tr *release.Trust) { limits(tr); tr.Policy.RoleSigners = map[string]int{"rootfs": n} }
	}
	untrusted, another := new(verify.SignatureError), new(release.TypeError)
	for _, tc := range []struct {
		name     string
		doc, sig []byte
		edit     func(tr *release.Trust)
		want     error
		text     string // of the error; else names of the signers
	}{
		{"detached", doc, l.sign(doc, "alice"), limits, nil, "alice"},
		{"clearsigned", l.clearsign(doc, "alice"), nil, limits, nil, "alice"},
		{"two signers", doc, l.sign(doc, "alice", "bob"), of(2), nil, "alice bob"},
		{"an unknown key beside a good one", doc, l.sign(doc, "mallory", "alice"), limits, nil, "alice"},
		{"a channel's key beside a good one", doc, l.sign(doc, "channel", "alice"), limits, nil, "alice"},
		{"a role's key counts for its role", two, l.sign(two, "alice", "bob", "boot"), of(2), nil, "alice bob boot"},
		{"not signed", doc, nil, limits, untrusted, "not signed"},
		{"signed by an unknown key", doc, l.sign(doc, "mallory"), limits, untrusted, "not in the keyring"},
		{"another document's signature", doc, l.sign(two, "alice"), limits, untrusted, "signature by key"},
		{"signed by a channel's key", doc, l.sign(doc, "channel"), limits, untrusted, "may sign only for channel"},
		{"one of two signers", doc, l.sign(doc, "alice"), of(2), untrusted, "1 of the trusted keys signed, 2 must"},
		{"one key twice", doc, l.sign(doc, "alice", "alice"), of(2), untrusted, "1 of the trusted keys signed, 2 must"},
		{"a channel's key does not count", doc, l.sign(doc, "alice", "channel"), of(2), untrusted, `a document of type "release"; 2 must`},
		{"the key of another role does not count", doc, l.sign(doc, "alice", "boot"), of(2), untrusted, `which is "rootfs" here; 2 must`},
		{"a key of one role for two", two, l.sign(two, "boot"), limits, untrusted, `which is "rootfs" here; 1 must`},
		{"a role that needs two", doc, l.sign(doc, "alice"), rootfsOf(2), untrusted, `which is "rootfs" here; 2 must`},
		{"two for a role that needs two", doc, l.sign(doc, "alice", "bob"), rootfsOf(2), nil, "alice bob"},
		{"a channel", readFile(t, "channel.toml"), l.sign(readFile(t, "channel.toml"), "alice"), limits, another, `of type "channel"`},
		{"a block map", []byte("<bmap/>\n"), l.sign([]byte("<bmap/>\n"), "alice"), limits, another, "no type"},
		{"a bad release", []byte(small("version", "v")), l.sign([]byte(small("version", "v")), "alice"), limits, new(release.SyntaxError), "line 4"},
		{"over 1 MiB", bytes.Repeat([]byte("#"), release.MaxSize+1), []byte("x"), limits, untrusted, "more than the 1048576 bytes"},
		{"no keyring", doc, l.sign(doc, "alice"), func(tr *release.Trust) { tr.Policy.Keyring = nil }, untrusted, "keyring is empty"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			trust := l.trust()
			tc.edit(&trust)
			o, err := trust.OpenRelease(tc.doc, tc.sig)
			if tc.want != nil {
				if o != nil || !sameError(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
					t.Errorf("OpenRelease() = %v, %T %v; want %T with %q", o, err, err, tc.want, tc.text)
				}
				return
			}
			if err != nil {
				t.Fatalf("OpenRelease() = %v", err)
			}
			if got := l.names(o.Signers); got != tc.text || o.Map != nil || o.Release.Product() != "p" || len(o.SHA256) != 64 {
				t.Errorf("OpenRelease() signed by %q, %+v; want %q", got, o, tc.text)
			}
		})
	}
}

// names joins the names of signers.
func (l *lab) names(signers []verify.Signer) string {
	var names []string
	for _, s := range signers {
		for name, id := range l.ids {
			if s.Fingerprint == id {
				names = append(names, name)
			}
		}
	}
	return strings.Join(names, " ")
}

func TestOpenMap(t *testing.T) {
	l := newLab(t, "alice", "boot")
	m, data := mapOf(t, updateElement("p", "1", 1, "rootfs"))
	trust := l.trust()
	trust.Policy.Roles = map[string][]string{l.ids["boot"]: {"boot"}}
	want := parse(t, small(sumA, sumOf(data))).Identity()
	for _, role := range []string{"", "rootfs"} {
		o, err := trust.OpenMap(data, l.sign(data, "alice"), role)
		if err != nil {
			t.Fatalf("OpenMap() = %v", err)
		}
		if o.Release.Identity() != want || !bytes.Equal(o.Map.Encode(), m.Encode()) || o.SHA256 != sumOf(data) || l.names(o.Signers) != "alice" {
			t.Errorf("OpenMap() for role %q = %+v", role, o)
		}
	}
	clear, err := trust.OpenMap(l.clearsign(data, "alice"), nil, "rootfs")
	if err != nil || clear.Release.Identity() != want {
		t.Errorf("OpenMap() of a clearsigned map = %+v, %v", clear, err)
	}
	weak, err := bmap.FromRanges(4096, "md5", []bmap.Range{{Length: 4096, Checksum: strings.Repeat("0", 32)}})
	if err != nil {
		t.Fatal(err)
	}
	text := []byte(small())
	for name, tc := range map[string]struct {
		doc, sig []byte
		role     string
		want     error
	}{
		"another role":        {data, l.sign(data, "alice"), "boot", new(release.MapError)},
		"key of another role": {data, l.sign(data, "boot"), "rootfs", new(verify.SignatureError)},
		"a release":           {text, l.sign(text, "alice"), "rootfs", new(release.TypeError)},
		"no map":              {[]byte("<x/>"), l.sign([]byte("<x/>"), "alice"), "rootfs", new(bmap.SyntaxError)},
		"weak checksums":      {weak.Encode(), l.sign(weak.Encode(), "alice"), "rootfs", new(verify.SignatureError)},
		"changed":             {append(data, '\n'), l.sign(data, "alice"), "rootfs", new(verify.SignatureError)},
	} {
		if o, err := trust.OpenMap(tc.doc, tc.sig, tc.role); o != nil || !sameError(err, tc.want) {
			t.Errorf("%s: OpenMap() = %v, %T %v; want %T", name, o, err, err, tc.want)
		}
	}
}

func TestOpenChannel(t *testing.T) {
	l := newLab(t, "alice", "online")
	trust := l.trust()
	trust.Policy.Documents = map[string][]string{l.ids["online"]: {"channel"}}
	base := string(readFile(t, "channel.toml"))
	doc := []byte(strings.Replace(base, "2026-11-28T12:00:00Z ", "2026-01-02T00:00:00Z ", 1))
	c, signed, err := trust.OpenChannel(doc, l.sign(doc, "online"))
	if err != nil || c.Contents().Channel != "stable" || l.names(signed.Signers) != "online" {
		t.Fatalf("OpenChannel() = %v, %v, %v", c, signed, err)
	}
	future := []byte(strings.Replace(base, "2026-11-28T12:00:00Z ", "2026-01-02T00:00:01Z ", 1))
	for name, tc := range map[string]struct {
		doc  []byte
		key  string
		want error
	}{
		"key that may not sign channels":    {doc, "alice", new(verify.SignatureError)},
		"created a day after it was signed": {future, "online", new(verify.SignatureError)},
		"channel's key on a release":        {[]byte(small()), "online", new(release.TypeError)},
		"channel with an error":             {doc[:len(doc)-2], "online", new(release.SyntaxError)},
	} {
		if c, _, err := trust.OpenChannel(tc.doc, l.sign(tc.doc, tc.key)); c != nil || !sameError(err, tc.want) {
			t.Errorf("%s: OpenChannel() = %v, %T %v; want %T", name, c, err, err, tc.want)
		}
	}
}

func TestOpenKeyring(t *testing.T) {
	l := newLab(t, "alice", "root")
	trust := l.trust()
	trust.Policy.Documents = map[string][]string{l.ids["root"]: {"keyring"}}
	doc := readFile(t, "keyring.toml")
	k, signed, err := trust.OpenKeyring(doc, l.sign(doc, "root", "alice"))
	if err != nil || k.Contents().Number != 2 || l.names(signed.Signers) != "root" {
		t.Fatalf("OpenKeyring() = %v, %v, %v", k, signed, err)
	}
	if k, _, err := trust.OpenKeyring(doc, l.sign(doc, "alice")); k != nil || !sameError(err, new(verify.SignatureError)) {
		t.Errorf("OpenKeyring() signed by another key = %v, %v", k, err)
	}
}

func TestCheckSignature(t *testing.T) {
	l := newLab(t, "alice", "online")
	l.key("mallory")
	trust := l.trust()
	trust.Policy.Documents = map[string][]string{l.ids["online"]: {"channel"}}
	doc := []byte(small())
	for _, tc := range []struct {
		key  string
		kind release.Type
		ok   bool
	}{
		{"alice", release.TypeRelease, true}, {"alice", release.TypeMap, true}, {"online", release.TypeChannel, true},
		{"alice", release.TypeChannel, false}, {"online", release.TypeRelease, false}, {"mallory", release.TypeRelease, false},
	} {
		err := trust.CheckSignature(tc.kind, l.sign(doc, tc.key))
		if (err == nil) != tc.ok || err != nil && !sameError(err, new(verify.SignatureError)) {
			t.Errorf("CheckSignature(%s) by %s = %T %v", tc.kind, tc.key, err, err)
		}
	}
}

// endless never ends; it counts the bytes read.
type endless struct{ read int64 }

func (e *endless) Read(p []byte) (int, error) {
	e.read += int64(len(p))
	return len(p), nil
}

func TestReadIsBounded(t *testing.T) {
	trust := release.Trust{}
	for kind, limit := range map[release.Type]int64{release.TypeRelease: 1 << 20, release.TypeMap: 4 << 20} {
		var in endless
		data, err := trust.Read(&in, kind)
		if data != nil || !sameError(err, new(verify.SignatureError)) || in.read > limit+verify.MaxSignatureSize+1 {
			t.Errorf("Read(%s) = %d bytes, %v after %d bytes", kind, len(data), err, in.read)
		}
	}
	trust.MaxMap = 1 << 40
	if got := trust.Limit(release.TypeMap); got != verify.MaxDocumentSize+verify.MaxSignatureSize {
		t.Errorf("Limit() = %d", got)
	}
	data, err := trust.Read(strings.NewReader("x"), release.TypeRelease)
	if err != nil || string(data) != "x" {
		t.Errorf("Read() = %q, %v", data, err)
	}
	broken := errors.New("broken")
	if _, err := trust.Read(io.MultiReader(strings.NewReader("x"), errReader{broken}), release.TypeRelease); !errors.Is(err, broken) {
		t.Errorf("Read() = %v", err)
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

// A document without a trusted signature must not cost memory beyond a few copies of the limit.
func TestUnsignedMemory(t *testing.T) {
	l := newLab(t, "alice")
	l.key("mallory")
	trust := l.trust()
	large := bytes.Repeat([]byte("a = 1\n"), 4<<20/6)
	clear := l.clearsign(large, "mallory")
	detached := l.sign(large, "mallory")
	for name, open := range map[string]func() error{
		"detached map":        func() error { _, err := trust.OpenMap(large, detached, ""); return err },
		"clearsigned map":     func() error { _, err := trust.OpenMap(clear, nil, ""); return err },
		"clearsigned release": func() error { _, err := trust.OpenRelease(clear, nil); return err },
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := open()
		runtime.ReadMemStats(&after)
		used := after.TotalAlloc - before.TotalAlloc
		t.Logf("%s: %d KiB in all: %v", name, used>>10, err)
		if !sameError(err, new(verify.SignatureError)) || used > 16<<20 {
			t.Errorf("%s: %d KiB, %v", name, used>>10, err)
		}
	}
}
