// Package fat writes small FAT32 file systems into a partition of a disk and reads files from one, without mounting them.
//
// It guarantees that nothing outside the partition is read or written and that reads go past the page cache. The content of the medium
// is hostile: only [updater/blockdev/fat] parses it, in bounded time and memory. A file system is made in memory, and the sectors that differ
// are written, so the library that makes it never sees a byte of the medium. A power cut during [Write] can damage everything except the
// files whose place and content do not change.
package fat

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"

	"updater/blockdev/fat"
)

// maxFile bounds a file that is read, in bytes.
const maxFile = 1 << 20

// Medium is the disk.
type Medium interface {
	io.WriterAt
	ReadBackAt(p []byte, off int64) (n int, err error) // from the medium, past the page cache
	Sync() error
}

// Window is the partition.
type Window struct {
	Medium Medium
	Offset int64 // bytes
	Length int64 // bytes
	Sector int64 // logical sector size of the disk, in bytes; 0 is 512
}

// ReadBackAt reads from the partition.
func (w Window) ReadBackAt(p []byte, off int64) (int, error) {
	if off < 0 || off > w.Length-int64(len(p)) {
		return 0, fmt.Errorf("reading %d bytes at %d, outside of the partition of %d bytes", len(p), off, w.Length)
	}
	return w.Medium.ReadBackAt(p, w.Offset+off)
}

// FS is the file system of a partition. Only its root directory is used. Not safe for concurrent use.
type FS struct{ f *fat.FS }

// Open opens the file system of a partition for reading.
func Open(w Window) (*FS, error) {
	f, err := fat.Open(w, w.Length)
	if err != nil {
		return nil, err
	}
	return &FS{f}, nil
}

// Get reads a file of at most 1 MiB; it returns nil if there is none, and an empty slice if it is empty.
func (f *FS) Get(name string) ([]byte, error) {
	data, err := f.f.ReadFile(name, maxFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return data, nil
}

// File is a file to be written.
type File struct {
	Name string
	Data []byte
}

// Write makes the partition a file system that holds these files and no others. The label has at most 11 characters; the partition needs at
// least 33 MiB. The file system has the sectors of the disk, because Linux mounts no other. Where the partition holds the same files already,
// only the sectors that differ are written: list a file that a power cut must not lose before all files whose size or presence changes. The
// result is on stable storage after the medium's Sync.
func Write(w Window, label string, files []File) error {
	img, err := build(w.Length, cmp.Or(w.Sector, 512), label, files)
	if err != nil {
		return err
	}
	return img.write(w)
}

// Compare reads files back past the page cache and compares them.
func Compare(w Window, files map[string][]byte) error {
	from, err := Open(w)
	if err != nil {
		return fmt.Errorf("reading the file system back: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		got, err := from.Get(name)
		if err != nil {
			return fmt.Errorf("reading back: %w", err)
		}
		if !bytes.Equal(got, files[name]) {
			return fmt.Errorf("reading %s back: found %d other bytes, expected the %d written", name, len(got), len(files[name]))
		}
	}
	return nil
}
