// Package atomicfile replaces files durably. A reader, and the next boot after a power cut, sees either the old file or the
// complete new one.
//
// The order: create a temporary file with an exclusive, unpredictable name in the same directory, write it, set its size and
// mode, fsync, close, rename, fsync the directory. On any error the temporary file is removed and the old file stays. A power
// cut before the rename leaves the old file, and a temporary file ".NAME.<digits>" that nothing reads. vfat writes a new name
// before the size: where there was no old file, a cut at the rename may leave an empty one.
package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// KeepSize as a size leaves a file as long as it was written.
const KeepSize = -1

// Write replaces the file name with data. It returns nil once the file and its name are on stable storage.
func Write(name string, data []byte, mode os.FileMode) error {
	return WriteFunc(name, mode, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// WriteFunc is [Write] for content that write produces. An error of write leaves the old file.
func WriteFunc(name string, mode os.FileMode, write func(io.Writer) error) error {
	f, err := Create(name)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", name, err), f.Discard())
	}
	return f.Commit(KeepSize, mode)
}

// File is a replacement that does not have its name yet. It ends with Commit or Discard. Not safe for concurrent use; other
// descriptors may write to the file called Name at the same time.
type File struct {
	name string
	temp string
	f    file // nil after Commit and Discard
	err  error
	fs   filesystem
}

// Create begins the replacement of the file name, which need not exist. A symbolic link at name is itself replaced. The
// temporary file has mode 0600 until Commit.
func Create(name string) (*File, error) { return create(kernel{}, name) }

func create(fs filesystem, name string) (*File, error) {
	f, err := fs.Create(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return nil, fmt.Errorf("writing %s: creating a temporary file: %w", name, err)
	}
	return &File{name: name, temp: f.Name(), f: f, fs: fs}, nil
}

// Name is the path of the temporary file. Write errors of other descriptors of it are seen by Commit.
func (f *File) Name() string { return f.temp }

// Write appends to the file. After an error Commit fails.
func (f *File) Write(p []byte) (int, error) {
	n, err := f.f.Write(p)
	f.err = errors.Join(f.err, err)
	return n, err
}

// Truncate sets the size in bytes before the content is written. After an error Commit fails.
func (f *File) Truncate(size int64) error {
	err := f.f.Truncate(size)
	f.err = errors.Join(f.err, err)
	return err
}

// Commit sets the size in bytes (unless it is [KeepSize]) and the mode, and gives the file its name. It returns nil once file
// and name are on stable storage. On an error the temporary file is gone and the old file is in place, except after a
// failed flush of the directory: then the new file is in place, and may be lost with the next power cut.
func (f *File) Commit(size int64, mode os.FileMode) error {
	err := errors.Join(f.finish(size, mode), f.f.Close())
	f.f = nil
	if err == nil {
		err = f.fs.Rename(f.temp, f.name)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", f.name, err), f.fs.Remove(f.temp))
	}
	if err := f.fs.SyncDir(filepath.Dir(f.name)); err != nil {
		return fmt.Errorf("writing %s: flushing its directory: %w", f.name, err)
	}
	return nil
}

// finish brings the content to stable storage.
func (f *File) finish(size int64, mode os.FileMode) error {
	if f.err != nil {
		return f.err
	}
	if size != KeepSize {
		if err := f.f.Truncate(size); err != nil {
			return err
		}
	}
	if err := f.f.Chmod(mode); err != nil {
		return err
	}
	return f.f.Sync()
}

// Discard removes the temporary file. After Commit and after another Discard it does nothing.
func (f *File) Discard() error {
	if f.f == nil {
		return nil
	}
	err := errors.Join(f.f.Close(), f.fs.Remove(f.temp))
	f.f = nil
	return err
}
