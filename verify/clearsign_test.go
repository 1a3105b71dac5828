package verify_test

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/clearsign"

	"updater/verify"
)

func TestClearsigned(t *testing.T) {
	l := newLab(t)
	doc := []byte("first\n- dashed\n-----BEGIN X-----\nFrom here\n\n  indented, \"ü\"\n")
	good := l.clearsign(t, "alice", jan2025, doc, "--digest-algo", "SHA512")
	replace := func(old, new string) []byte {
		t.Helper()
		out := bytes.Replace(good, []byte(old), []byte(new), 1)
		if bytes.Equal(out, good) {
			t.Fatalf("%q is not in the document", old)
		}
		return out
	}
	join := func(parts ...string) []byte { return []byte(strings.Join(parts, "")) }

	tests := []struct {
		name   string
		doc    []byte
		text   []byte // default doc
		want   string
		noGPGV bool // gpgv is not asked: without the header it expects SHA-1 and fails
	}{
		{name: "good", doc: good},
		{name: "without final newline", doc: l.clearsign(t, "alice", jan2025, bytes.TrimSuffix(doc, []byte("\n")))},
		{name: "no newline at the end of the file", doc: bytes.TrimSuffix(good, []byte("\n"))},
		{name: "blank lines at its end", doc: l.clearsign(t, "alice", jan2025, []byte("a\n\n\n")), text: []byte("a\n\n\n")},
		{name: "sha1", doc: l.clearsign(t, "alice", jan2025, doc, "--digest-algo", "SHA1"), want: `names the hash "SHA1"`},
		{name: "hash header removed", doc: replace("Hash: SHA512\n", ""), noGPGV: true},
		{name: "hash header of another hash", doc: replace("Hash: SHA512\n", "Hash: SHA256\n"), want: "header says SHA256"},
		{name: "hash header with more", doc: replace("Hash: SHA512\n", "Hash: SHA512, SHA256\n")},
		{name: "hash header with as many as allowed", doc: replace("SHA512\n", "SHA512"+strings.Repeat(",SHA3-512", 15)+"\n"), noGPGV: true},
		{name: "hash header with too many", doc: replace("SHA512\n", "SHA512"+strings.Repeat(",SHA256", 16)+"\n"), want: "more than 16 hashes"},
		{name: "other header", doc: replace("Hash: SHA512\n", "Comment: x\n"), want: "expected Hash"},
		{name: "text instead of a header", doc: replace("Hash: SHA512\n", "Hash: SHA512\nfirst\n"), want: "expected Hash"},
		{name: "header line of blanks", doc: replace("SHA512\n\n", "SHA512\n \n"), want: "expected Hash"},
		{name: "unknown key", doc: l.clearsign(t, "bob", jan2025, doc), want: "not in the keyring"},
		{name: "tampered", doc: replace("first", "First"), want: "not over this document"},
		{name: "line added", doc: replace("first", "first\nsecond"), want: "not over this document"},
		{name: "prefix", doc: join("x\n", string(good)), want: "not signed"},
		{name: "newline in front", doc: join("\n", string(good)), want: "not signed"},
		{name: "byte order mark", doc: join("\ufeff", string(good)), want: "not signed"},
		{name: "suffix", doc: join(string(good), "x\n"), want: "follows the signature"},
		{name: "blank line after it", doc: join(string(good), "\n"), want: "follows the signature"},
		{name: "blank after it", doc: join(string(good), " "), want: "follows the signature"},
		{name: "two documents", doc: join(string(good), string(good)), want: "follows the signature"},
		{name: "two signatures in armor", doc: join(string(good), string(good[bytes.Index(good, []byte("-----BEGIN PGP SIG")):])),
			want: "follows the signature"},
		{name: "CRLF", doc: bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n")), want: "control character 0x0d"},
		{name: "CR in a line", doc: replace("first", "fi\rrst"), want: "line 4 holds the control character 0x0d"},
		{name: "NUL", doc: replace("first", "first\x00"), want: "control character 0x00"},
		{name: "form feed", doc: replace("first\n", "first\f\n"), want: "control character 0x0c"},
		{name: "vertical tab", doc: replace("first\n", "first\v\n"), want: "control character 0x0b"},
		{name: "C1 control", doc: replace("first", "fi\u0085rst"), want: "control character"},
		{name: "delete", doc: replace("first", "fi\x7frst"), want: "line 4 holds the control character 0x7f"},
		{name: "the last C1 control", doc: replace("first", "fi\u009frst"), want: "control character"},
		{name: "tab and no-break space in a line", doc: l.clearsign(t, "alice", jan2025, []byte("a\tb\u00a0c\n")), text: []byte("a\tb\u00a0c\n")},
		{name: "From not escaped", doc: replace("- From here", "From here")},
		{name: "blank at the end of a line", doc: replace("first\n", "first \n"), want: "line 4 ends with a blank"},
		{name: "tab at the end of a line", doc: replace("first\n", "first\t\n"), want: "line 4 ends with a blank"},
		{name: "signed with blanks at line ends", doc: l.clearsign(t, "alice", jan2025, []byte("a \nb\n")), want: "ends with a blank"},
		{name: "dash not escaped", doc: replace("- -----BEGIN X", "-----BEGIN X"), want: "not escaped"},
		{name: "escaped for no reason", doc: replace("first", "- first"), want: "dash-escaped for no reason"},
		{name: "escaped twice", doc: replace("- - dashed", "- - - dashed"), want: "not over this document"},
		{name: "truncated in the text", doc: good[:80], want: "truncated"},
		{name: "truncated in the signature", doc: good[:len(good)-40], want: "truncated"},
		{name: "only the mark", doc: []byte("-----BEGIN PGP SIGNED MESSAGE-----\n"), want: "truncated in its headers"},
		{name: "mark with more", doc: replace("SIGNED MESSAGE-----\n", "SIGNED MESSAGE-----x\n"), want: "first line"},
		{name: "empty text", doc: l.clearsign(t, "alice", jan2025, nil), text: []byte("\n")},
		{name: "no text", doc: []byte("-----BEGIN PGP SIGNED MESSAGE-----\n\n-----BEGIN PGP SIGNATURE-----\n"), want: "document is empty"},
		{name: "a binary signature inside", doc: inlay(good, l.sign(t, "alice", jan2025,
			bytes.ReplaceAll(bytes.TrimSuffix(doc, []byte("\n")), []byte("\n"), []byte("\r\n")), "--armor")), want: "expected text (0x01)"},
		{name: "a packet of its signature truncated", doc: inlay(good, armoredAs([]byte{0xc2, 1}, "PGP SIGNATURE")),
			want: "reading the signature of the clearsigned document: byte 0: OpenPGP packet is truncated"},
		{name: "not signed", doc: doc, want: "not signed"},
		{name: "empty", doc: []byte{}, want: "not signed"},
	}
	p := verify.Policy{Keyring: ring(t, l.export(t, "alice")), Time: now2025}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			text := tc.text
			if text == nil {
				text = doc
			}
			got, err := p.Verify(tc.doc, nil)
			checkVerdict(t, got, err, text, tc.want)
			if err != nil {
				return
			}
			if got.Form != "clearsigned" {
				t.Errorf("Form = %q", got.Form)
			}
			if block, rest := clearsign.Decode(tc.doc); block == nil || len(rest) > 0 || string(block.Plaintext)+"\n" != string(got.Data) {
				t.Errorf("clearsign.Decode disagrees: rest %q", rest)
			}
			if tc.noGPGV {
				return
			}
			if plain := l.gpgvText(t, l.export(t, "alice"), tc.doc); string(plain) != string(got.Data) && string(plain)+"\n" != string(got.Data) {
				t.Errorf("gpgv reads %q; want %q", plain, got.Data)
			}
		})
	}
}

// inlay replaces the signature of a clearsigned document.
func inlay(doc, armor []byte) []byte {
	return append(bytes.Clone(doc[:bytes.Index(doc, []byte("-----BEGIN PGP SIGNATURE"))]), armor...)
}

// gpgvText returns the signed text of a clearsigned document as gpgv reads it.
func (l *lab) gpgvText(t *testing.T, ring, doc []byte) []byte {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "ring")
	writeFile(t, path, ring)
	cmd := exec.Command("gpgv", "--homedir", l.home, "--keyring", path, "--output", "-")
	cmd.Stdin = bytes.NewReader(doc)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("gpgv: %v", err)
	}
	return out
}

func TestIsClearsigned(t *testing.T) {
	const mark = "-----BEGIN PGP SIGNED MESSAGE-----"
	for doc, want := range map[string]bool{mark + "\n": true, mark: true, " " + mark: false, "\n" + mark: false, "": false, "<bmap/>": false} {
		if got := verify.IsClearsigned([]byte(doc)); got != want {
			t.Errorf("IsClearsigned(%q) = %v", doc, got)
		}
	}
}
