package boottest

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"updater/boot"
)

var literal = regexp.MustCompile(`(?m)^[][\w]+\((.*)\)$`)

// Seeds checks that a fuzz target has at least count seeds in testdata/fuzz and that at least accepted of them are valid
// input: a target that only sees rejected input tests nothing behind the checks. taken gets strings and byte slices as
// they are, other values as Go literals.
func Seeds(t *testing.T, target string, count, accepted int, taken func(values []string) bool) {
	t.Helper()
	names, err := filepath.Glob("testdata/fuzz/" + target + "/*")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var values []string
		for _, m := range literal.FindAllStringSubmatch(string(text), -1) {
			if s, err := strconv.Unquote(m[1]); err == nil {
				m[1] = s
			}
			values = append(values, m[1])
		}
		if taken(values) {
			n++
		}
	}
	if len(names) < count || n < accepted {
		t.Errorf("%s has %d seeds, %d of them valid; want at least %d and %d", target, len(names), n, count, accepted)
	}
}

// Takes reports whether a backend with slot A running can read its state. If so, mark good of A must work, and a slot must
// boot next.
func Takes(t *testing.T, b boot.Backend) bool {
	t.Helper()
	if _, err := b.State(t.Context()); err != nil {
		return false
	}
	if err := b.MarkGood(t.Context(), "A"); err != nil {
		t.Fatal(err)
	}
	if st, err := b.State(t.Context()); err != nil || st.Next == "" {
		t.Fatalf("after mark good State = %+v, %v", st, err)
	}
	return true
}
