package provision

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/filesystem"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
)

// maxFile bounds a file that is read from an identity partition.
const maxFile = 1 << 20

// minFilesystem is the smallest partition that a file system is made in; FAT32 is none below.
const minFilesystem = 33 << 20

// Window is a part of a medium, as a partition is.
type Window struct {
	Medium Medium
	Offset int64
	Length int64
	direct bool // read past the page cache
}

// fromMedium reads what the medium has, past the page cache.
func (w Window) fromMedium() Window {
	w.direct = true
	return w
}

// makeFilesystem makes an empty FAT32 file system, which is durable after the medium's Sync.
func makeFilesystem(w Window, label string) (fs filesystem.FileSystem, err error) {
	defer guard(&err)
	if w.Length < minFilesystem {
		return nil, fmt.Errorf("%d bytes are too few for a FAT32 file system, expected at least %d", w.Length, minFilesystem)
	}
	// The library forgets the two reserved entries of the FAT, which some sizes have no room for, such as 64 MiB. A
	// little less of the partition has.
	for length := w.Length; ; length -= 4096 {
		if fs, err = fat32.Create(storage{w}, length, 0, 512, label, false); err != nil {
			return nil, err
		}
		if roomy, err := roomyFAT(w); err != nil || roomy {
			return fs, err
		}
	}
}

// roomyFAT tells whether the FAT of a FAT32 file system has an entry for every cluster, after the two reserved ones
// (Microsoft, FAT specification, section 3).
func roomyFAT(w Window) (bool, error) {
	b := make([]byte, 512)
	if _, err := w.Medium.ReadAt(b, w.Offset); err != nil {
		return false, err
	}
	number := binary.LittleEndian.Uint32
	reserved, fats, size := int64(binary.LittleEndian.Uint16(b[14:])), int64(b[16]), int64(number(b[36:]))
	clusters := (int64(number(b[32:])) - reserved - fats*size) / max(int64(b[13]), 1)
	return clusters+2 <= size*512/4, nil
}

// openFilesystem opens the file system of a window.
func openFilesystem(w Window) (_ filesystem.FileSystem, err error) {
	defer guard(&err)
	return fat32.Read(storage{w}, w.Length, 0, 512)
}

// guard turns a panic of the library, on what a damaged medium may hold, into an error.
func guard(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("malformed file system: %v", r)
	}
}

// putFiles writes files; what is there already under a name is replaced.
func putFiles(to filesystem.FileSystem, files map[string][]byte) (err error) {
	defer guard(&err)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f, err := to.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_TRUNC) // the library's Remove would lose clusters
		if err != nil {
			return fmt.Errorf("making %s: %w", name, err)
		}
		_, err = f.Write(files[name])
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
	}
	return nil
}

// getFile reads one file; nil is none.
func getFile(from filesystem.FileSystem, name string) (data []byte, err error) {
	defer guard(&err)
	f, err := from.OpenFile(name, os.O_RDONLY)
	if err != nil {
		return nil, nil //nolint:nilerr // the library has no error of its own for a name that is not there
	}
	defer func() { _ = f.Close() }()
	data, err = io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", name, maxFile)
	}
	return data, err
}

// compareFiles reads files back from the medium, past the page cache, and compares them.
func compareFiles(w Window, files map[string][]byte) error {
	from, err := openFilesystem(w.fromMedium())
	if err != nil {
		return fmt.Errorf("reading the identity back: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		got, err := getFile(from, name)
		if err != nil {
			return fmt.Errorf("reading %s back: %w", name, err)
		}
		if !bytes.Equal(got, files[name]) {
			return fmt.Errorf("reading %s back: it has %d bytes that differ from the %d written", name, len(got), len(files[name]))
		}
	}
	return nil
}

// storage lets the file system library use a window and nothing around it.
type storage struct{ w Window }

func (s storage) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > s.w.Length {
		return 0, fmt.Errorf("reading at %d, outside the partition's %d bytes", off, s.w.Length)
	}
	n, err := min(int64(len(p)), s.w.Length-off), error(nil)
	if s.w.direct {
		_, err = s.w.Medium.ReadBackAt(p[:n], s.w.Offset+off)
	} else {
		_, err = s.w.Medium.ReadAt(p[:n], s.w.Offset+off)
	}
	if err == nil && n < int64(len(p)) {
		err = io.EOF
	}
	return int(n), err
}

func (s storage) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off > s.w.Length-int64(len(p)) {
		return 0, fmt.Errorf("writing %d bytes at %d, outside the partition's %d bytes", len(p), off, s.w.Length)
	}
	return s.w.Medium.WriteAt(p, s.w.Offset+off)
}

func (s storage) Stat() (fs.FileInfo, error)              { return nil, backend.ErrNotSuitable }
func (s storage) Read([]byte) (int, error)                { return 0, backend.ErrNotSuitable }
func (s storage) Seek(int64, int) (int64, error)          { return 0, backend.ErrNotSuitable }
func (s storage) Close() error                            { return nil }
func (s storage) Path() string                            { return "" }
func (s storage) Sys() (*os.File, error)                  { return nil, backend.ErrNotSuitable }
func (s storage) Writable() (backend.WritableFile, error) { return s, nil }
