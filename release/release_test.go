package release_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"updater/release"
)

var (
	sumA = strings.Repeat("a", 64)
	sumB = strings.Repeat("b", 64)
)

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func parse(t testing.TB, doc string) *release.Release {
	t.Helper()
	r, err := release.Parse([]byte(doc))
	if err != nil {
		t.Fatalf("Parse(): %v", err)
	}
	return r
}

// sameError reports whether err has the type of want.
func sameError(err, want error) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		if reflect.TypeOf(err) == reflect.TypeOf(want) {
			return true
		}
	}
	return false
}

func TestParse(t *testing.T) {
	r := parse(t, string(readFile(t, "release.toml")))
	want := release.Contents{
		Product: "acme-gw", Hardware: []string{"1.0", "1.1"}, Version: "2026.11.1", RollbackIndex: 17,
		Created: time.Date(2026, 11, 28, 10, 0, 0, 0, time.UTC), Expires: time.Date(2027, 11, 28, 0, 0, 0, 0, time.UTC),
		Notes: "https://acme.example/notes/2026.11.1",
		Images: []release.Image{
			{Role: "boot", Slot: "A", File: "boot-a.vfat.zst", Bmap: "boot-a.vfat.bmap", BmapSHA256: strings.Repeat("1", 64)},
			{Role: "boot", Slot: "B", File: "boot-b.vfat.zst", Bmap: "boot-b.vfat.bmap", BmapSHA256: strings.Repeat("2", 64)},
			{Role: "rootfs", File: "images/rootfs.ext4.zst", Bmap: "images/rootfs.ext4.bmap", BmapSHA256: strings.Repeat("3", 64)},
		},
		Meta:    map[string]string{"branch": "main", "note": `say "hi" \ bye`},
		Keyring: release.KeyringRef{Number: 2, Path: "keyring-2.toml", SHA256: strings.Repeat("4", 64)},
	}
	if diff := cmp.Diff(want, r.Contents()); diff != "" {
		t.Errorf("Contents() (-want +got):\n%s", diff)
	}
	if got := r.Roles(); !reflect.DeepEqual(got, []string{"boot", "rootfs"}) {
		t.Errorf("Roles() = %v", got)
	}
	if r.Product() != "acme-gw" || r.Version() != "2026.11.1" || r.Order().RollbackIndex != 17 || len(r.Images()) != 3 {
		t.Errorf("Release = %+v", r)
	}
}

func TestReleaseNeverChanges(t *testing.T) {
	r := parse(t, string(readFile(t, "release.toml")))
	before := r.Contents()
	c := r.Contents()
	c.Images[0].Role, c.Hardware[0], c.Meta["branch"] = "x", "x", "x"
	r.Images()[0].Role, r.Hardware()[0], r.Meta()["branch"] = "x", "x", "x"
	if diff := cmp.Diff(before, r.Contents()); diff != "" {
		t.Errorf("a caller changed the release (-want +got):\n%s", diff)
	}
}

func TestEncodeIsCanonical(t *testing.T) {
	r := parse(t, string(readFile(t, "release.toml")))
	if diff := cmp.Diff(string(readFile(t, "release.golden")), string(r.Encode())); diff != "" {
		t.Errorf("Encode() (-want +got):\n%s", diff)
	}
	again := parse(t, string(r.Encode()))
	if diff := cmp.Diff(r.Contents(), again.Contents()); diff != "" || !bytes.Equal(again.Encode(), r.Encode()) {
		t.Errorf("Parse(Encode()) (-want +got):\n%s", diff)
	}
	built, err := release.New(r.Contents())
	if err != nil || !bytes.Equal(built.Encode(), r.Encode()) || built.Identity() != r.Identity() {
		t.Errorf("New() = %v, %v", built, err)
	}
}

// small is a release with as little as possible; edit replaces parts of it.
func small(edit ...string) string {
	return strings.NewReplacer(edit...).Replace(`type = "release"
format = 1
product = "p"
version = "1"
rollback_index = 1
created = 2026-01-01T00:00:00Z
[[image]]
role = "rootfs"
file = "r.img"
bmap = "r.bmap"
bmap_sha256 = "` + sumA + `"
`)
}

func image(role, slot string) string {
	if slot != "" {
		slot = "slot = \"" + slot + "\"\n"
	}
	return "[[image]]\nrole = \"" + role + "\"\n" + slot + "file = \"f\"\nbmap = \"m\"\nbmap_sha256 = \"" + sumB + "\"\n"
}

func TestSpellings(t *testing.T) {
	want := parse(t, small())
	for name, doc := range map[string]string{
		"comments and blanks":   "# x\n\n" + small("version = \"1\"", "\tversion=\"1\"\t# \"é\" [x]", "[[image]]", "  [[image]] # ]"),
		"literal strings":       small(`"p"`, `'p'`),
		"escapes":               small(`"p"`, `"\u0070"`, `"r.img"`, `"\U00000072.img"`),
		"CRLF":                  small("\n", "\r\n"),
		"another zone":          small("2026-01-01T00:00:00Z", "2026-01-01T02:30:00+02:30"),
		"no requirements":       small("format = 1", "format = 1\nrequires = []"),
		"an array over lines":   small("format = 1", "format = 1\nrequires = [ # none\n\n]"),
		"meta without a key":    small() + "[meta]\n",
		"another order of keys": small("version = \"1\"\n", "", "created", "version = \"1\"\ncreated"),
		"no newline at the end": strings.TrimSuffix(small(), "\n"),
	} {
		if got := parse(t, doc); !bytes.Equal(got.Encode(), want.Encode()) {
			t.Errorf("%s: Parse() = %s", name, got.Encode())
		}
	}
}

func TestParseRefuses(t *testing.T) {
	var (
		syntax  = new(release.SyntaxError)
		another = new(release.TypeError)
		newer   = new(release.UnsupportedError)
	)
	long := strings.Repeat("x", 2000)
	many := func(n int, line func(i int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(line(i))
		}
		return b.String()
	}
	for _, tc := range []struct {
		name, doc string
		want      error
		text      string
	}{
		// The head.
		{"nothing", "", another, "no type"},
		{"a block map", "<?xml version=\"1.0\"?>\n<bmap/>\n", another, "no type"},
		{"another type", small(`"release"`, `"channel"`), another, `of type "channel"`},
		{"type in another case", small(`"release"`, `"Release"`), another, `of type "Release"`},
		{"type is no string", small(`"release"`, `1`), another, "no type"},
		{"type is not first", "format = 1\n" + small("format = 1\n", ""), another, "no type"},
		{"key in another case", small("type", "Type"), another, "no type"},
		{"byte order mark", "\ufeff" + small(), another, "no type"},
		{"another format", small("format = 1", "format = 2\nanything = {}"), newer, "its format is 2"},
		{"format is no integer", small("format = 1", `format = "1"`), syntax, "line 2: format: is a string, expected an integer"},
		{"no format", small("format = 1\n", ""), syntax, "line 2: product: is out of order"},
		{"no format and no key", `type = "release"`, syntax, "format: is missing"},
		{"a feature", small("format = 1", "format = 1\nrequires = [\"deltas\", \"x\"]\nanything = {}"), newer, `"deltas", "x"`},
		{"late requires", small("version", "requires = []\nversion"), syntax, "line 4: requires: is out of order"},
		{"late format", small("format = 1\n", "") + "format = 1\n", syntax, "out of order"},
		{"requires of another kind", small("format = 1", "format = 1\nrequires = 1"), syntax, "is an integer, expected an array of strings"},

		// Keys and tables.
		{"unknown key", small("version", "color = 1\nversion"), syntax, "line 4: color: unknown key"},
		{"key of another case", small("version", "Version"), syntax, "line 4: Version: unknown key"},
		{"unknown key of an image", small() + "size = 1\n", syntax, "line 12: image 1: size: unknown key"},
		{"key of the document behind a table", small() + "notes = \"x\"\n", syntax, "image 1: notes: unknown key"},
		{"unknown table", small() + "[extra]\n", syntax, "line 12: unknown table [extra]"},
		{"unknown array of tables", small() + "[[extra]]\n", syntax, "unknown table [[extra]]"},
		{"image as a table", small("[[image]]", "[image]"), syntax, "unknown table [image]"},
		{"table in an image", small() + "[image.x]\n", syntax, "unknown table [image.x]"},
		{"duplicate key", small("version", "product = \"q\"\nversion"), syntax, "line 4: product: appears twice, first on line 3"},
		{"duplicate key of an image", small() + "role = \"x\"\n", syntax, "image 1: role: appears twice, first on line 8"},
		{"duplicate table", small() + "[meta]\n[meta]\n", syntax, "appears twice, first on line 12"},
		{"duplicate key of meta", small() + "[meta]\na = \"1\"\na = \"1\"\n", syntax, "meta: a: appears twice"},
		{"no product", small("product = \"p\"\n", ""), syntax, "product: is missing"},
		{"no created", small("created = 2026-01-01T00:00:00Z\n", ""), syntax, "created: is missing"},
		{"no file", small("file = \"r.img\"\n", ""), syntax, "line 7: image 1: file: is missing"},
		{"no checksum", small("bmap_sha256", "file_sha256"), syntax, "unknown key"},
		{"no image", small()[:strings.Index(small(), "[[")], syntax, "no [[image]]"},
		{"half a keyring", small() + "[keyring]\nnumber = 1\n", syntax, "keyring: path: is missing"},

		// Values.
		{"version is an integer", small(`version = "1"`, `version = 1`), syntax, "is an integer, expected a string"},
		{"index is a string", small("rollback_index = 1", `rollback_index = "1"`), syntax, "is a string, expected an integer"},
		{"index is a float", small("rollback_index = 1", "rollback_index = 1.0"), syntax, "line 5: value"},
		{"index is hexadecimal", small("rollback_index = 1", "rollback_index = 0x1"), syntax, "value"},
		{"index with an underscore", small("rollback_index = 1", "rollback_index = 1_0"), syntax, "value"},
		{"index with a leading zero", small("rollback_index = 1", "rollback_index = 01"), syntax, "value"},
		{"index with a plus", small("rollback_index = 1", "rollback_index = +1"), syntax, "value"},
		{"index is negative", small("rollback_index = 1", "rollback_index = -1"), syntax, "is -1, expected 0"},
		{"index is out of range", small("rollback_index = 1", "rollback_index = 9223372036854775808"), syntax, "out of range"},
		{"index is a boolean", small("rollback_index = 1", "rollback_index = true"), syntax, "is a boolean"},
		{"created is a string", small("2026-01-01T00:00:00Z", `"2026-01-01T00:00:00Z"`), syntax, "is a string, expected a time"},
		{"created is a date", small("2026-01-01T00:00:00Z", "2026-01-01"), syntax, "RFC 3339"},
		{"created is local", small("2026-01-01T00:00:00Z", "2026-01-01T00:00:00"), syntax, "RFC 3339"},
		{"created with a blank", small("2026-01-01T00:00:00Z", "2026-01-01 00:00:00Z"), syntax, "RFC 3339"},
		{"created in lower case", small("2026-01-01T00:00:00Z", "2026-01-01t00:00:00z"), syntax, "RFC 3339"},
		{"created with an hour of one digit", small("T00:00:00Z", "T0:00:00Z"), syntax, "RFC 3339"},
		{"created with a comma", small("T00:00:00Z", "T00:00:00,5Z"), syntax, "RFC 3339"},
		{"created with an offset of a day", small("T00:00:00Z", "T00:00:00+24:00"), syntax, "RFC 3339"},
		{"created on no day", small("2026-01-01T00:00:00Z", "2026-02-30T00:00:00Z"), syntax, "RFC 3339"},
		{"created too early", small("2026-01-01T00:00:00Z", "1969-12-31T23:59:59Z"), syntax, "year 1969"},
		{"created after the year 9999", small("2026-01-01T00:00:00Z", "9999-12-31T23:59:59-01:00"), syntax, "year 10000"},
		{"expires before created", small("[[image]]", "expires = 2026-01-01T00:00:00Z\n[[image]]"), syntax, "line 7: expires: is not after created"},
		{"empty product", small(`"p"`, `""`), syntax, "product: is \"\""},
		{"product with blanks around", small(`"p"`, `" p"`), syntax, "without blanks"},
		{"product with a line break", small(`"p"`, `"p\nq"`), syntax, "printable"},
		{"product with a bidi override", small(`"p"`, `"p\u202eq"`), syntax, "printable"},
		{"product with an escape character", small(`"p"`, `"p\u001b[1m"`), syntax, "printable"},
		{"product is too long", small(`"p"`, `"`+long+`"`), syntax, "has 2000 bytes, expected at most 255"},
		{"empty hardware", small("version", "hardware = [\"\"]\nversion"), syntax, "hardware"},
		{"hardware twice", small("version", "hardware = [\"1\", \"1\"]\nversion"), syntax, `has "1" twice`},
		{"hardware is a string", small("version", "hardware = \"1\"\nversion"), syntax, "is a string, expected an array"},
		{"hardware of integers", small("version", "hardware = [1]\nversion"), syntax, "expected strings"},
		{"hardware of arrays", small("version", "hardware = [[\"1\"]]\nversion"), syntax, "expected strings"},
		{"role with a slash", small(`"rootfs"`, `"a/b"`), syntax, "image 1: role"},
		{"role with an equals sign", small(`"rootfs"`, `"a=b"`), syntax, "image 1: role"},
		{"role is a parent", small(`"rootfs"`, `".."`), syntax, "image 1: role"},
		{"role is too long", small(`"rootfs"`, `"`+long[:65]+`"`), syntax, "image 1: role"},
		{"slot is empty", small("file", "slot = \"\"\nfile"), syntax, "image 1: slot"},
		{"checksum is too short", small(sumA, sumA[1:]), syntax, "64 lower-case hex digits"},
		{"checksum in upper case", small(sumA, strings.ToUpper(sumA)), syntax, "64 lower-case hex digits"},
		{"checksum is no number", small(sumA, "g"+sumA[1:]), syntax, "64 lower-case hex digits"},
		{"keyring number 0", small() + "[keyring]\nnumber = 0\n", syntax, "keyring: number: is 0"},
		{"meta value is an integer", small() + "[meta]\na = 1\n", syntax, "meta: a: is an integer"},
		{"meta value with a control character", small() + "[meta]\na = \"\\u0000\"\n", syntax, "printable"},
		{"meta value is too long", small() + "[meta]\na = \"" + long + "\"\n", syntax, "at most 1024"},
		{"meta key is too long", small() + "[meta]\n" + long[:65] + " = \"\"\n", syntax, "key has 65 bytes"},
		{"too many keys in meta", small() + "[meta]\n" + many(65, func(i int) string { return fmt.Sprintf("k%d = \"\"\n", i) }), syntax, "at most 64"},
		{"too many strings", small("version", "hardware = ["+strings.Repeat(`"1",`, 65)+"]\nversion"), syntax, "more than 64"},

		// Images.
		{"role twice", small() + image("rootfs", ""), syntax, "line 13: image 2: role: rootfs appears twice"},
		{"variant twice", small() + image("boot", "A") + image("boot", "A"), syntax, "boot@A appears twice"},
		{"with and without a slot", small() + image("rootfs", "A"), syntax, "with and without a slot"},
		{"without and with a slot", small() + image("boot", "A") + image("boot", ""), syntax, "with and without a slot"},
		{"slots of two roles differ", small() + image("boot", "A") + image("boot", "B") + image("dtb", "A"), syntax, "slot A, but none for slot B"},
		{"two checksums of one map", small() + strings.ReplaceAll(image("boot", ""), `"m"`, `"r.bmap"`), syntax, "another image says"},
		{"too many roles", small() + many(32, func(i int) string { return image(fmt.Sprintf("r%d", i), "") }), syntax, "33 roles"},
		{"too many images", small() + many(128, func(i int) string { return image("boot", fmt.Sprintf("s%d", i)) }), syntax, "129 is one too many"},

		// The text.
		{"not UTF-8", small(`"p"`, "\"\xff\""), syntax, "line 3: byte 0xff is not UTF-8"},
		{"control character in a comment", small() + "# \x1b\n", syntax, "line 12: control character U+001B"},
		{"C1 control character", small() + "# \u0085\n", syntax, "control character"},
		{"lone carriage return", small("\"p\"\n", "\"p\"\r"), syntax, "control character U+000D"},
		{"nothing but a key", small() + "role\n", syntax, "expected KEY = VALUE"},
		{"no value", small(`"p"`, ""), syntax, "value"},
		{"dotted key", small() + "[meta]\na.b = \"\"\n", syntax, "expected KEY = VALUE"},
		{"quoted key", small("version", `"version"`), syntax, "expected KEY = VALUE"},
		{"inline table", small("[[image]]", "meta = {}\n[[image]]"), syntax, "value"},
		{"multi-line string", small(`"p"`, "\"\"\"\np\"\"\""), syntax, "multi-line string"},
		{"multi-line literal", small(`"p"`, "'''p'''"), syntax, "multi-line string"},
		{"string is not closed", small(`"p"`, `"p`), syntax, "not closed"},
		{"literal is not closed", small(`"p"`, `'p`), syntax, "not closed"},
		{"string ends in a backslash", small(`"p"`, `"p\`), syntax, "ends in a backslash"},
		{"escape of TOML 1.1", small(`"p"`, `"\x70"`), syntax, "escape sequence"},
		{"escape is cut", small(`"p"`, `"\u00`), syntax, "escape sequence"},
		{"escape is a surrogate", small(`"p"`, `"\ud800"`), syntax, "no character"},
		{"escape is beyond Unicode", small(`"p"`, `"\U00110000"`), syntax, "no character"},
		{"two values", small(`"p"`, `"p" "q"`), syntax, "expected the end of the line"},
		{"two headers", small("[[image]]", "[[image]][meta]"), syntax, "header"},
		{"header is not closed", small("[[image]]", "[[image]"), syntax, "header"},
		{"header with blanks", small("[[image]]", "[[ image ]]"), syntax, "header"},
		{"header without a name", small("[[image]]", "[]"), syntax, "header"},
		{"array is not closed", small("version", "hardware = [\"1\"\nversion"), syntax, "expected strings"},
		{"array until the end", small() + "x = [\"1\"", syntax, "array is not closed"},
		{"array without commas", small("version", "hardware = [\"1\" \"2\"]\nversion"), syntax, "with a comma"},
		{"array with a leading comma", small("version", "hardware = [,\"1\"]\nversion"), syntax, "with a comma"},
		{"array with two commas", small("version", "hardware = [\"1\",,]\nversion"), syntax, "with a comma"},
		{"too large", small() + "#" + strings.Repeat("x", release.MaxSize), syntax, "at most 1048576"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := release.Parse([]byte(tc.doc))
			if r != nil || !sameError(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("Parse() = %v, %T %v; want %T with %q", r, err, err, tc.want, tc.text)
			}
		})
	}
}

func TestFileNames(t *testing.T) {
	for _, good := range []string{"a", "a/b", "a b.img", "..a", "a..b", ".a", "é.img", "-a", "a@b=c,d;e&f", strings.Repeat("x", 1024)} {
		if _, err := release.Parse([]byte(small("r.img", good, "r.bmap", good))); err != nil {
			t.Errorf("file %q: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "/", "/a", "//a", "a/", "a//b", ".", "..", "./a", "../a", "a/..", "a/../b", "a/.", `a\\b`, `..\\a`, "C:a", "http:a", "http://h/a", "//h/a",
		"file:a", "a?b", "a#b", "%2e%2e/a", "a%00", " a", "a ", "a/ ../b", "a/.. /b",
		`a\nb`, `a\u0000`, `a\u007f`, `a\u0085`, `a\u202eb`, `a\u200bb`, `a\u00a0b`,
		strings.Repeat("x", 1025),
	} {
		for _, key := range []string{"r.img", "r.bmap"} {
			_, err := release.Parse([]byte(small(key, bad)))
			if e, ok := errors.AsType[*release.SyntaxError](err); !ok || !strings.HasPrefix(e.Key, "image 1: ") {
				t.Errorf("%s %q: %T %v; want a SyntaxError of its key", key, bad, err, err)
			}
		}
		doc := small() + "[keyring]\nnumber = 1\npath = \"" + bad + "\"\nsha256 = \"" + sumA + "\"\n"
		if _, err := release.Parse([]byte(doc)); err == nil {
			t.Errorf("keyring path %q was accepted", bad)
		}
	}
}

func TestNewRefusesWhatParseRefuses(t *testing.T) {
	good := parse(t, small()).Contents()
	for name, edit := range map[string]func(c *release.Contents){
		"line break in a string":  func(c *release.Contents) { c.Version = "1\"\nrollback_index = 9\n" },
		"line break in meta":      func(c *release.Contents) { c.Meta = map[string]string{"a": "x\ny"} },
		"key of meta with syntax": func(c *release.Contents) { c.Meta = map[string]string{"a = \"\"\nb": ""} },
		"not UTF-8":               func(c *release.Contents) { c.Product = "\xff" },
		"no time":                 func(c *release.Contents) { c.Created = time.Time{} },
		"no image":                func(c *release.Contents) { c.Images = nil },
		"path upwards":            func(c *release.Contents) { c.Images[0].File = "../x" },
	} {
		c := good
		c.Images = append([]release.Image(nil), good.Images...)
		edit(&c)
		r, err := release.New(c)
		if e, ok := errors.AsType[*release.SyntaxError](err); !ok || e.Line != 0 || r != nil {
			t.Errorf("%s: New() = %v, %T %v; want a SyntaxError without a line", name, r, err, err)
		}
	}
}

func TestOrder(t *testing.T) {
	at := func(index int64, hour int) release.Order {
		return release.Order{RollbackIndex: index, Created: time.Date(2026, 1, 1, hour, 0, 0, 0, time.UTC)}
	}
	for _, tc := range []struct {
		a, b release.Order
		want bool
	}{
		{at(2, 0), at(1, 5), true}, {at(1, 5), at(2, 0), false}, {at(1, 2), at(1, 1), true}, {at(1, 1), at(1, 1), false}, {at(1, 0), at(1, 1), false},
	} {
		if got := tc.a.Newer(tc.b); got != tc.want {
			t.Errorf("%v.Newer(%v) = %v; want %v", tc.a, tc.b, got, tc.want)
		}
	}
}

// A signed document of the largest size costs a few copies of it, whatever it holds: its key may be one of lesser trust.
func TestParseIsCheap(t *testing.T) {
	fill := func(head, line string) string {
		return head + strings.Repeat(line, (release.MaxSize-len(head))/len(line))
	}
	for name, doc := range map[string]string{
		"headers":        fill(small(), "[[image]]\n"),
		"nested headers": fill(small()+"[a", ".a"),
		"keys":           fill(small()+"[meta]\n", "a = 1\n"),
		"comments":       fill(small(), "#\n"),
		"an array":       fill(small("version", "hardware = [\""), "\",\""),
		"nested arrays":  fill(small("version", "hardware = "), "["),
		"a string":       fill(strings.TrimSuffix(small(), "\n"), "\\t"),
		"escapes":        fill("type = \"release\"\nformat = 1\nproduct = \"", "\\t"),
		"a type":         fill("type = \"", "x"),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r, err := release.Parse([]byte(doc))
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 8*release.MaxSize || r != nil && name != "comments" {
			t.Errorf("%s: Parse() = %v, %v; it allocated %d KiB", name, r, err, used>>10)
		}
	}
}
