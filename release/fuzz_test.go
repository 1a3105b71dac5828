package release_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"

	"updater/release"
)

// encoder is the interface of every document.
type encoder interface{ Encode() []byte }

// fuzz checks, for one type of document, that nothing panics, that every refusal is typed, that an accepted document is TOML
// which another reader understands in the same way, and that its canonical spelling is stable.
func fuzz(f *testing.F, parse func([]byte) (encoder, error)) {
	f.Helper()
	for _, name := range []string{"release.toml", "release.golden", "channel.toml", "channel.golden", "keyring.toml"} {
		f.Add(readFile(f, name))
	}
	f.Add([]byte(small()))
	f.Add([]byte(image2()))
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, err := parse(data)
		if err != nil {
			if !sameError(err, new(release.SyntaxError)) && !sameError(err, new(release.TypeError)) && !sameError(err, new(release.UnsupportedError)) {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		canonical := doc.Encode()
		again, err := parse(canonical)
		if err != nil || !bytes.Equal(again.Encode(), canonical) {
			t.Fatalf("canonical spelling is not stable: %v\n%s", err, canonical)
		}
		if diff := cmp.Diff(oracle(t, data), oracle(t, canonical)); diff != "" {
			t.Fatalf("another reader disagrees (-document +canonical):\n%s", diff)
		}
	})
}

// oracle returns the values that BurntSushi/toml reads, without those that equal an absent value.
func oracle(t *testing.T, data []byte) map[string]any {
	var v map[string]any
	if _, err := toml.Decode(string(data), &v); err != nil {
		t.Fatalf("not TOML: %v", err)
	}
	kept, _ := keep(v).(map[string]any)
	return kept
}

// keep returns nil for a value that counts as absent.
func keep(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if value = keep(value); value == nil || key == "attempt" && value == int64(1) {
				delete(v, key)
			} else {
				v[key] = value
			}
		}
		if len(v) == 0 {
			return nil
		}
	case []map[string]any:
		for _, table := range v {
			keep(table)
		}
	case []any:
		if len(v) == 0 {
			return nil
		}
	case time.Time:
		return v.UTC()
	case bool:
		if !v {
			return nil
		}
	case int64:
		if v == 0 {
			return nil
		}
	}
	return v
}

func FuzzRelease(f *testing.F) {
	fuzz(f, func(data []byte) (encoder, error) {
		r, err := release.Parse(data)
		return r, err
	})
}

func FuzzChannel(f *testing.F) {
	fuzz(f, func(data []byte) (encoder, error) {
		c, err := release.ParseChannel(data)
		return c, err
	})
}

func FuzzKeyring(f *testing.F) {
	fuzz(f, func(data []byte) (encoder, error) {
		k, err := release.ParseKeyring(data)
		return k, err
	})
}

// FuzzArchive checks that only the signed release and its maps come out of a tar stream, each image once, and that nothing panics.
func FuzzArchive(f *testing.F) {
	l := newLab(f, "alice")
	document, r := published(f, l)
	stream := archived(f, document)
	list := members(f, stream)
	f.Add(stream)
	f.Add(joined(f, list[:5]))
	f.Add(joined(f, append(list[:1:1], list...)))
	trust := l.trust()
	f.Fuzz(func(t *testing.T, stream []byte) {
		a, err := trust.OpenArchive(bytes.NewReader(stream))
		if err != nil {
			return
		}
		if a.Release.Identity() != r.Identity() {
			t.Fatalf("another release is accepted: %s", a.Document)
		}
		for _, i := range r.Images() {
			if _, err := r.Map(i, a.Map(i)); err != nil {
				t.Fatal(err)
			}
		}
		if names, err := drain(a); err == io.EOF && len(names) != len(r.Images()) {
			t.Fatalf("the archive is complete with %q", names)
		}
	})
}
