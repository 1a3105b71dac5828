package release_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// imageFile makes a file of size bytes that are not zero, and opens it.
func imageFile(t testing.TB, name string, size int) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, bytes.Repeat([]byte{'x'}, size), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}
