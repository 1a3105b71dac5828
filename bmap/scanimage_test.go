package bmap

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestNotZero puts a byte into a reported hole, which no real file system does.
func TestNotZero(t *testing.T) {
	const size = 40 << 20
	for _, at := range []int64{0, 4095, 8192, 16<<20 - 1, 16 << 20, 30<<20 + 7, size - 1} {
		m, err := CreateOptions{}.newMap()
		if err != nil {
			t.Fatal(err)
		}
		m.imageSize = size
		if err := m.cut([]blockRange{{1, 1}, {5000, 5999}}, 1<<20); err != nil {
			t.Fatal(err)
		}
		image := make([]byte, size)
		image[4096], image[5500<<12] = 1, 1
		image[at] = 0x80
		var gaps []Span
		for gap := range m.Gaps() {
			gaps = append(gaps, gap)
		}
		err = m.readImage(t.Context(), bytes.NewReader(image), gaps, &meter{})
		if bad, ok := errors.AsType[*NotZeroError](err); !ok || bad.Offset != at {
			t.Errorf("byte %d of a hole is not zero: readImage = %v", at, err)
		}
		image[at] = 0
		if err := m.readImage(t.Context(), bytes.NewReader(image), gaps, &meter{}); err != nil {
			t.Errorf("holes are zero: readImage = %v", err)
		}
	}
}

// TestStub distinguishes a stub of SEEK_HOLE from a file without holes.
func TestStub(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, bytes.Repeat([]byte{1}, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil { // some file systems do not count delayed blocks yet
		t.Fatal(err)
	}
	check := func() error {
		return control(f, func(fd int) error { info, _ := f.Stat(); return checkStub(fd, info.Size()) })
	}
	if err := check(); err != nil {
		t.Errorf("a full file: %v", err)
	}
	if err := f.Truncate(4 << 20); err != nil {
		t.Fatal(err)
	}
	if err := check(); !errors.Is(err, errNoExtents) {
		t.Errorf("a sparse file that shows no hole: %v; want errNoExtents", err)
	}
}
