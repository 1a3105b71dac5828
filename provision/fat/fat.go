// Package fat makes and reads small FAT32 file systems inside a partition of a disk, without mounting them.
//
// It guarantees that nothing outside the partition is read or written, that a malformed file system is an error and never a
// panic, and that [Compare] reads past the page cache. It does not make a change atomic: what was written is durable only after
// the medium's Sync, and a power cut before it may leave anything.
package fat

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

const (
	maxFile = 1 << 20  // of a file that is read, bytes
	minSize = 33 << 20 // of a FAT32 file system, bytes
)

// Medium is the disk.
type Medium interface {
	io.ReaderAt
	io.WriterAt
	ReadBackAt(p []byte, off int64) (n int, err error) // from the medium, past the page cache
	Sync() error
}

// Window is the partition.
type Window struct {
	Medium Medium
	Offset int64 // bytes
	Length int64 // bytes
}

// FS is the file system of a window. Only its root directory is used. Not safe for concurrent use.
type FS struct{ lib filesystem.FileSystem }

// Format makes an empty file system with a label of at most 11 characters. The partition needs at least 33 MiB.
func Format(w Window, label string) (_ *FS, err error) {
	defer guard(&err)
	if w.Length < minSize {
		return nil, fmt.Errorf("making a FAT32 file system: the partition has %d bytes, expected at least %d", w.Length, minSize)
	}
	// The library forgets the two reserved entries of the FAT, for which some sizes have no room, such as 64 MiB. A slightly
	// smaller file system has.
	for length := w.Length; ; length -= 4096 {
		lib, err := fat32.Create(storage{w: w}, length, 0, 512, label, false)
		if err != nil {
			return nil, err
		}
		if roomy, err := roomyFAT(w); err != nil || roomy {
			return &FS{lib}, err
		}
	}
}

// roomyFAT reports whether the FAT has an entry for every cluster after the two reserved ones (Microsoft FAT specification,
// section 3).
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

// Open opens the file system of a partition as the page cache has it.
func Open(w Window) (*FS, error) { return open(storage{w: w}) }

// OpenMedium opens the file system of a partition and reads past the page cache.
func OpenMedium(w Window) (*FS, error) { return open(storage{w: w, direct: true}) }

func open(s storage) (_ *FS, err error) {
	defer guard(&err)
	lib, err := fat32.Read(s, s.w.Length, 0, 512)
	if err != nil {
		return nil, err
	}
	return &FS{lib}, nil
}

// guard turns a panic of the library, which a damaged medium can cause, into an error.
func guard(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("malformed FAT file system: %v", r)
	}
}

// Names lists the files.
func (f *FS) Names() (names []string, err error) {
	defer guard(&err)
	entries, err := f.lib.ReadDir(".")
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// Put writes files by name. Existing ones are overwritten in place.
func (f *FS) Put(files map[string][]byte) (err error) {
	defer guard(&err)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		file, err := f.lib.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_TRUNC) // the library's Remove would lose clusters
		if err != nil {
			return fmt.Errorf("creating %s: %w", name, err)
		}
		_, err = file.Write(files[name])
		if err = errors.Join(err, file.Close()); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
	}
	return nil
}

// Get reads a file of at most 1 MiB; it returns nil if there is none.
func (f *FS) Get(name string) (data []byte, err error) {
	defer guard(&err)
	file, err := f.lib.OpenFile(name, os.O_RDONLY)
	if err != nil {
		return nil, nil //nolint:nilerr // the library has no error of its own for a missing file
	}
	defer func() { _ = file.Close() }()
	data, err = io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("reading %s: more than %d bytes", name, maxFile)
	}
	return data, err
}

// Compare reads files back past the page cache and compares them.
func Compare(w Window, files map[string][]byte) error {
	from, err := OpenMedium(w)
	if err != nil {
		return fmt.Errorf("reading the file system back: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		got, err := from.Get(name)
		if err != nil {
			return fmt.Errorf("reading %s back: %w", name, err)
		}
		if !bytes.Equal(got, files[name]) {
			return fmt.Errorf("reading %s back: found %d other bytes, expected the %d written", name, len(got), len(files[name]))
		}
	}
	return nil
}

// storage restricts the library to the window.
type storage struct {
	w      Window
	direct bool // reads go past the page cache
}

func (s storage) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > s.w.Length {
		return 0, fmt.Errorf("reading at %d, outside of the partition of %d bytes", off, s.w.Length)
	}
	read := s.w.Medium.ReadAt
	if s.direct {
		read = s.w.Medium.ReadBackAt
	}
	n := min(int64(len(p)), s.w.Length-off)
	_, err := read(p[:n], s.w.Offset+off)
	if err == nil && n < int64(len(p)) {
		err = io.EOF
	}
	return int(n), err
}

func (s storage) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off > s.w.Length-int64(len(p)) {
		return 0, fmt.Errorf("writing %d bytes at %d, outside of the partition of %d bytes", len(p), off, s.w.Length)
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
