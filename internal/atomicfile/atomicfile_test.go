package atomicfile

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

var errInjected = errors.New("injected")

// failing is the running system, with an error of the operation number failAt, from 0. With it the removal of the temporary file
// works: it is the last of the operations and is not counted.
type failing struct {
	kernel
	failAt int
	log    []string
}

func (s *failing) step(name string) error {
	s.log = append(s.log, name)
	if len(s.log)-1 == s.failAt {
		return errInjected
	}
	return nil
}

func (s *failing) Create(dir, pattern string) (file, error) {
	if err := s.step("create"); err != nil {
		return nil, err
	}
	f, err := s.kernel.Create(dir, pattern)
	return &failingFile{f, s}, err
}

func (s *failing) Rename(from, to string) error {
	if err := s.step("rename"); err != nil {
		return err
	}
	return s.kernel.Rename(from, to)
}

func (s *failing) SyncDir(dir string) error {
	return errors.Join(s.step("fsync directory"), s.kernel.SyncDir(dir))
}

type failingFile struct {
	file
	s *failing
}

func (f *failingFile) Write(p []byte) (int, error) {
	if err := f.s.step("write"); err != nil {
		n, _ := f.file.Write(p[:len(p)/2])
		return n, err
	}
	return f.file.Write(p)
}

func (f *failingFile) Truncate(size int64) error {
	return errors.Join(f.s.step("truncate"), f.file.Truncate(size))
}

func (f *failingFile) Chmod(mode os.FileMode) error {
	return errors.Join(f.s.step("chmod"), f.file.Chmod(mode))
}
func (f *failingFile) Sync() error  { return errors.Join(f.s.step("fsync"), f.file.Sync()) }
func (f *failingFile) Close() error { return errors.Join(f.s.step("close"), f.file.Close()) }

// replace replaces name as a caller would that checks every error only in Commit.
func replace(fs filesystem, name string, data []byte) error {
	f, err := create(fs, name)
	if err != nil {
		return err
	}
	for _, half := range [][]byte{data[:len(data)/2], data[len(data)/2:]} {
		_, _ = f.Write(half)
	}
	err = f.Commit(int64(len(data)), 0o640)
	return errors.Join(err, f.Discard())
}

// content reads the only file of a directory.
func content(t *testing.T, name string) []byte {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(name))
	if err != nil || len(entries) != 1 || entries[0].Name() != filepath.Base(name) {
		t.Fatalf("the directory holds %v, %v; want %s alone", entries, err, filepath.Base(name))
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestEveryOperationFails(t *testing.T) {
	order := []string{"create", "write", "write", "truncate", "chmod", "fsync", "close", "rename", "fsync directory"}
	before, after := []byte("the old file, longer than the new one"), []byte("the new file")
	for failAt := range len(order) + 1 {
		name := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(name, before, 0o600); err != nil {
			t.Fatal(err)
		}
		s := &failing{failAt: failAt}
		err := replace(s, name, after)
		want := before
		switch {
		case failAt == len(order):
			want = after
			if err != nil || !slices.Equal(s.log, order) {
				t.Errorf("replace = %v after %q; want nil after %q", err, s.log, order)
			}
			if info, err := os.Stat(name); err != nil || info.Mode() != 0o640 {
				t.Errorf("mode is %v, %v; want 0640", info.Mode(), err)
			}
		case order[failAt] == "fsync directory":
			want = after
			fallthrough
		default:
			if !errors.Is(err, errInjected) {
				t.Errorf("replace with %s failing = %v; want the injected error", order[failAt], err)
			}
		}
		if got := content(t, name); !bytes.Equal(got, want) {
			t.Errorf("operation %d failing leaves %q; want %q", failAt, got, want)
		}
	}
}

func TestWrite(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	for _, text := range []string{"first", "second"} {
		if err := Write(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := content(t, name); string(got) != text {
			t.Errorf("Write left %q; want %q", got, text)
		}
	}
	err := WriteFunc(name, 0o644, func(w io.Writer) error {
		_, _ = io.WriteString(w, "half")
		return errInjected
	})
	if !errors.Is(err, errInjected) || string(content(t, name)) != "second" {
		t.Errorf("WriteFunc = %v; want the error of the content, and the old file", err)
	}
	if err := Write(filepath.Join(name, "below"), nil, 0o644); err == nil {
		t.Error("Write below a file = nil; want an error")
	}
}

func TestWriteDoesNotFollowLinks(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside")
	if err := errors.Join(os.WriteFile(outside, []byte("untouched"), 0o600), os.Symlink(outside, filepath.Join(dir, "file"))); err != nil {
		t.Fatal(err)
	}
	if err := Write(filepath.Join(dir, "file"), []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := content(t, outside); string(got) != "untouched" {
		t.Errorf("the file behind the link is %q; want it untouched", got)
	}
}

// TestOtherDescriptor writes as an image is written: through another descriptor, to a larger size than the image has.
func TestOtherDescriptor(t *testing.T) {
	name := filepath.Join(t.TempDir(), "image")
	f, err := Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(f.Name(), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteAt([]byte("end"), 4093); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), f.Commit(4096, 0o644)); err != nil {
		t.Fatal(err)
	}
	if got := content(t, name); len(got) != 4096 || string(got[4093:]) != "end" {
		t.Errorf("the file has %d bytes; want 4096 that end as written", len(got))
	}
}

func TestDiscard(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Discard(), f.Discard()); err != nil || string(content(t, name)) != "old" {
		t.Errorf("Discard = %v; want nil twice, and the old file alone", err)
	}
}
