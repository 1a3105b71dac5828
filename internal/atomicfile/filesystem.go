package atomicfile

import (
	"errors"
	"io"
	"os"
)

// filesystem is the operations that a replacement consists of. Tests make each of them fail.
type filesystem interface {
	Create(dir, pattern string) (file, error)
	Rename(from, to string) error
	Remove(name string) error
	SyncDir(dir string) error
}

type file interface {
	io.Writer
	io.Closer
	Name() string
	Truncate(size int64) error
	Chmod(mode os.FileMode) error
	Sync() error
}

// kernel is the running system.
type kernel struct{}

// Create implements filesystem. os.CreateTemp opens with O_EXCL and mode 0600.
func (kernel) Create(dir, pattern string) (file, error) { return os.CreateTemp(dir, pattern) }
func (kernel) Rename(from, to string) error             { return os.Rename(from, to) }
func (kernel) Remove(name string) error                 { return os.Remove(name) }
func (kernel) SyncDir(dir string) error                 { return SyncDir(dir) }

// SyncDir flushes a directory, so that names made, changed and removed in it are durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
