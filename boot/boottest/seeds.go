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

// Seeds wants at least count seeds of a fuzz target below testdata/fuzz, and that at least accepted of them are
// taken: a target that only ever sees refusals finds nothing behind them. Strings and byte slices are handed
// over as they are, everything else as Go writes it.
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
		t.Errorf("%s has %d seeds, of which %d are taken; want at least %d and %d", target, len(names), n, count, accepted)
	}
}

// Takes reports whether a backend that A runs on reads its state; then marking A good works, and something boots.
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
