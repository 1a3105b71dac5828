package boottest

import (
	"fmt"
	"io"
	"os"
	"testing"
)

// FileArea is a [boot.Area] in a regular file, which the tools of the boot loaders can read.
type FileArea struct {
	F        *os.File
	Off, Len int64
}

// OpenFileArea opens a whole file as one area until the test ends.
func OpenFileArea(t *testing.T, path string) *FileArea {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return &FileArea{F: f, Len: info.Size()}
}

func (a *FileArea) String() string { return a.F.Name() }

// Size implements [boot.Area].
func (a *FileArea) Size() int64 { return a.Len }

// Sync implements [boot.Area].
func (a *FileArea) Sync() error { return a.F.Sync() }

// ReadAt implements [boot.Area].
func (a *FileArea) ReadAt(p []byte, off int64) (int, error) {
	return io.NewSectionReader(a.F, a.Off, a.Len).ReadAt(p, off)
}

// ReadBackAt implements [boot.Area].
func (a *FileArea) ReadBackAt(p []byte, off int64) (int, error) { return a.ReadAt(p, off) }

// WriteAt implements [boot.Area].
func (a *FileArea) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > a.Len {
		return 0, fmt.Errorf("%s: write of %d bytes at %d reaches past its end", a, len(p), off)
	}
	return a.F.WriteAt(p, a.Off+off)
}
