package release_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"updater/release"
)

func TestChannel(t *testing.T) {
	c, err := release.ParseChannel(readFile(t, "channel.toml"))
	if err != nil {
		t.Fatal(err)
	}
	noon := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	want := release.ChannelContents{
		Product: "acme-gw", Channel: "stable", Created: noon, Expires: time.Date(2026, 12, 5, 0, 0, 0, 0, time.UTC),
		Releases: []release.Entry{
			{Identity: strings.Repeat("1", 64), Version: "2026.10.1", RollbackIndex: 16, Path: "2026.10.1/release.toml", Attempt: 1, Withdrawn: true},
			{
				Identity: strings.Repeat("2", 64), Version: "2026.11.1", RollbackIndex: 17, Path: "2026.11.1/release.toml", FromIndex: 12, Attempt: 2,
				Rollout: &release.Rollout{Start: noon, Percent: 5, Hours: 72},
			},
		},
		Keyring: release.KeyringRef{Number: 2, Path: "keyring-2.toml", SHA256: strings.Repeat("4", 64)},
	}
	if diff := cmp.Diff(want, c.Contents()); diff != "" {
		t.Errorf("Contents() (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(string(readFile(t, "channel.golden")), string(c.Encode())); diff != "" {
		t.Errorf("Encode() (-want +got):\n%s", diff)
	}
	built, err := release.NewChannel(c.Contents())
	if err != nil || !bytes.Equal(built.Encode(), c.Encode()) {
		t.Errorf("NewChannel() = %v, %v", built, err)
	}
	c.Contents().Releases[1].Rollout.Percent = 100
	if diff := cmp.Diff(want, c.Contents()); diff != "" {
		t.Errorf("a caller changed the channel (-want +got):\n%s", diff)
	}
}

func TestEmptyChannel(t *testing.T) {
	doc, _, _ := strings.Cut(string(readFile(t, "channel.toml")), "[[release]]")
	c, err := release.ParseChannel([]byte(doc))
	if err != nil || len(c.Contents().Releases) != 0 {
		t.Errorf("ParseChannel() = %v, %v", c, err)
	}
}

func TestParseChannelRefuses(t *testing.T) {
	base := string(readFile(t, "channel.toml"))
	edit := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(base) }
	var many strings.Builder
	head, _, _ := strings.Cut(base, "[[release]]")
	many.WriteString(head)
	for i := range 1025 {
		fmt.Fprintf(&many, "[[release]]\nidentity = \"%064x\"\nversion = \"1\"\nrollback_index = 1\npath = \"r\"\n", i)
	}
	syntax := new(release.SyntaxError)
	for _, tc := range []struct {
		name, doc string
		want      error
		text      string
	}{
		{"a release", small(), new(release.TypeError), `of type "release"`},
		{"another format", edit("format = 1", "format = 9"), new(release.UnsupportedError), "format is 9"},
		{"a feature", edit("format = 1", "format = 1\nrequires = [\"x\"]"), new(release.UnsupportedError), `"x"`},
		{"unknown key", edit("channel = ", "name = "), syntax, "line 4: name: unknown key"},
		{"unknown key of a release", edit("from_index", "from"), syntax, "release 2: from: unknown key"},
		{"unknown key of a rollout", edit("percent", "per_cent"), syntax, "release 2: rollout: per_cent: unknown key"},
		{"no expiry", edit("expires = 2026-12-05T00:00:00Z", ""), syntax, "expires: is missing"},
		{"expires before created", edit("2026-12-05", "2026-11-05"), syntax, "line 6: expires: is not after created"},
		{"channel with a slash", edit(`"stable"`, `"a/b"`), syntax, "channel: is"},
		{"identity twice", edit(strings.Repeat("2", 64), strings.Repeat("1", 64)), syntax, "line 16: release 2: identity: is that of release 1"},
		{"identity is short", edit(strings.Repeat("2", 64), "22"), syntax, "64 lower-case hex digits"},
		{"path upwards", edit("2026.11.1/release", "../release"), syntax, "release 2: path"},
		{"path on another host", edit("2026.11.1/release", "https://h/release"), syntax, "release 2: path"},
		{"stepping stone above itself", edit("from_index = 12", "from_index = 18"), syntax, "from_index: is 18, expected at most the rollback index 17"},
		{"attempt 0", edit("attempt = 2", "attempt = 0"), syntax, "attempt: is 0, expected 1"},
		{"withdrawn is a string", edit("withdrawn = true", `withdrawn = "true"`), syntax, "is a string, expected a boolean"},
		{"percent over 100", edit("percent = 5", "percent = 101"), syntax, "percent: is 101, expected 0 to 100"},
		{"percent is a float", edit("percent = 5", "percent = 0.5"), syntax, "value"},
		{"negative hours", edit("hours = 72", "hours = -1"), syntax, "hours: is -1"},
		{"rollout without a start", edit("start = 2026-11-28T12:00:00Z\n", ""), syntax, "rollout: start: is missing"},
		{"two rollouts", edit("[keyring]", "[release.rollout]"), syntax, "appears twice"},
		{"rollout of no release", edit("[[release]]", "[release.rollout]"), syntax, "before the first"},
		{"too many releases", many.String(), syntax, "release 1025 is one too many"},
		{"too large", base + "#" + strings.Repeat("x", release.MaxSize), syntax, "at most 1048576"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := release.ParseChannel([]byte(tc.doc))
			if c != nil || !sameError(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("ParseChannel() = %v, %T %v; want %T with %q", c, err, err, tc.want, tc.text)
			}
		})
	}
}

func TestKeyring(t *testing.T) {
	doc := readFile(t, "keyring.toml")
	k, err := release.ParseKeyring(doc)
	if err != nil {
		t.Fatal(err)
	}
	want := release.KeyringContents{
		Number: 2, Created: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC), MinSigners: 1,
		Certificates: []release.Certificate{
			{Fingerprint: "0123456789ABCDEF0123456789ABCDEF01234567", OpenPGP: []byte{0x98, 0x33, 4, 0x64}},
			{
				Fingerprint: "89ABCDEF0123456789ABCDEF0123456789ABCDEF", OpenPGP: []byte{0x98, 0x33, 4, 0x65},
				Roles: []string{"rootfs", "boot"}, Documents: []string{"release", "channel"},
			},
		},
		Roles: []release.RoleRule{{Role: "rootfs", MinSigners: 2}},
	}
	if diff := cmp.Diff(want, k.Contents()); diff != "" {
		t.Errorf("Contents() (-want +got):\n%s", diff)
	}
	if !bytes.Equal(k.Encode(), doc) {
		t.Errorf("Encode() = %s", k.Encode())
	}
	built, err := release.NewKeyring(k.Contents())
	if err != nil || !bytes.Equal(built.Encode(), doc) {
		t.Errorf("NewKeyring() = %v, %v", built, err)
	}
	k.Contents().Certificates[0].OpenPGP[0] = 0
	if diff := cmp.Diff(want, k.Contents()); diff != "" {
		t.Errorf("a caller changed the keyring (-want +got):\n%s", diff)
	}
}

func TestParseKeyringRefuses(t *testing.T) {
	base := string(readFile(t, "keyring.toml"))
	edit := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(base) }
	head, _, _ := strings.Cut(base, "[[role]]")
	for _, tc := range []struct{ name, doc, text string }{
		{"number 0", edit("number = 2", "number = 0"), "line 3: number: is 0"},
		{"no certificate", head, "no [[certificate]]"},
		{"certificate twice", edit("89ABCDEF0123456789ABCDEF0123456789ABCDEF", "0123456789ABCDEF0123456789ABCDEF01234567"), "appears twice"},
		{"short fingerprint", edit("89ABCDEF0123456789ABCDEF0123456789ABCDEF", "89ABCDEF"), "upper-case hex digits"},
		{"fingerprint in lower case", edit("89ABCDEF0123456789ABCDEF0123456789ABCDEF", strings.Repeat("a", 40)), "upper-case hex digits"},
		{"fingerprint with blanks", edit("89ABCDEF0123456789ABCDEF0123456789ABCDEF", "89AB CDEF0123456789ABCDEF0123456789ABCDEF"), "upper-case hex digits"},
		{"no base64", edit("mDMEZQ==", "mDMEZQ="), "openpgp: has 7 characters, expected base64"},
		{"base64 with a line break", edit("mDMEZQ==", `mDMEZQ==\n`), "expected base64"},
		{"base64 with loose bits", edit("mDMEZQ==", "mDMEZR=="), "expected base64"},
		{"empty certificate", edit("mDMEZQ==", ""), "expected base64 of 1"},
		{"certificate is too large", edit("mDMEZQ==", strings.Repeat("A", 4*(64<<10)/3+8)), "expected base64"},
		{"unknown type of document", edit(`"channel"`, `"chanel"`), "documents: has \"chanel\""},
		{"role with a blank", edit(`"boot"`, `"boo t"`), "certificate 2: roles"},
		{"threshold above the keys", edit("min_signers = 1", "min_signers = 3"), "min_signers: is 3, but the keyring has 2"},
		{"role's threshold above the keys", edit("min_signers = 2", "min_signers = 3"), "role 1: min_signers: is 3"},
		{"role twice", edit("[[role]]\n", "[[role]]\nname = \"rootfs\"\nmin_signers = 1\n[[role]]\n"), "role 2: name: rootfs appears twice"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k, err := release.ParseKeyring([]byte(tc.doc))
			if _, ok := errors.AsType[*release.SyntaxError](err); !ok || k != nil || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("ParseKeyring() = %v, %T %v; want a SyntaxError with %q", k, err, err, tc.text)
			}
		})
	}
	if _, err := release.ParseKeyring([]byte(small())); !sameError(err, new(release.TypeError)) {
		t.Errorf("ParseKeyring() of a release: %T %v", err, err)
	}
}
