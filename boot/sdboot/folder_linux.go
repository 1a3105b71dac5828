package sdboot

import (
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxEntry bounds an entry.
const maxEntry = 64 << 10

// Folder is a mounted ESP.
type Folder struct{ root *os.Root }

var _ Dir = (*Folder)(nil)

// OpenFolder opens the ESP at its mount point. Nothing outside of it is touched.
func OpenFolder(mount string) (*Folder, error) {
	root, err := os.OpenRoot(mount)
	if err != nil {
		return nil, err
	}
	return &Folder{root}, nil
}

// Close closes the folder.
func (f *Folder) Close() error { return f.root.Close() }

// List implements [Dir]. A folder that is not there has no files.
func (f *Folder) List() ([]string, error) {
	var names []string
	for _, dir := range []string{"loader/", entriesDir, templatesDir} {
		d, err := f.root.Open(strings.TrimSuffix(dir, "/"))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list, err := d.ReadDir(-1)
		d.Close()
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			if e.Type().IsRegular() {
				names = append(names, dir+e.Name())
			}
		}
	}
	return names, nil
}

// Read implements [Dir].
func (f *Folder) Read(name string) ([]byte, error) {
	file, err := f.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxEntry+1))
	if err == nil && len(data) > maxEntry {
		err = fmt.Errorf("%s is longer than %d bytes", name, maxEntry)
	}
	return data, err
}

// Write implements [Dir].
func (f *Folder) Write(name string, data []byte) error {
	if err := f.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	file, err := f.root.Create(name)
	if err != nil {
		return err
	}
	if _, err := file.Write(data); err != nil {
		file.Close()
		return err
	}
	if err := file.Sync(); err != nil {
		file.Close()
		return err
	}
	return file.Close()
}

// Rename implements [Dir].
func (f *Folder) Rename(from, to string) error { return f.root.Rename(from, to) }

// Remove implements [Dir].
func (f *Folder) Remove(name string) error { return f.root.Remove(name) }

// Sync implements [Dir]: syncfs writes the file system out, and the fsync of a folder has the drive flush
// its cache, which syncfs alone does not do on FAT (fs/fat/file.c, fat_file_fsync).
func (f *Folder) Sync() error {
	for _, name := range []string{".", strings.TrimSuffix(entriesDir, "/")} {
		d, err := f.root.Open(name)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return err
		}
		if err = unix.Syncfs(int(d.Fd())); err == nil {
			err = d.Sync()
		}
		d.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
