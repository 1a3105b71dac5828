package sdboot

import (
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Folder is a mounted ESP.
type Folder struct{ root *os.Root }

var _ Dir = (*Folder)(nil)

// OpenFolder opens the ESP at its mount point. It does not follow links that leave it.
func OpenFolder(mount string) (*Folder, error) {
	root, err := os.OpenRoot(mount)
	if err != nil {
		return nil, err
	}
	return &Folder{root}, nil
}

// Close closes the folder.
func (f *Folder) Close() error { return f.root.Close() }

// List implements [Dir]. A missing folder has no files.
func (f *Folder) List() ([]string, error) {
	var names []string
	for _, dir := range []string{"loader/", type1.entries, type1.templates, uki.entries, uki.templates} {
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

// Open implements [Dir]. It drops the file's pages from the page cache first.
func (f *Folder) Open(name string) (File, error) {
	file, err := f.root.Open(name)
	if err != nil {
		return nil, err
	}
	if err := unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		file.Close()
		return nil, fmt.Errorf("dropping the cache of %s: %w", name, err)
	}
	return file, nil
}

// Write implements [Dir].
func (f *Folder) Write(name string, r io.Reader) error {
	if err := f.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	file, err := f.root.Create(name)
	if err != nil {
		return err
	}
	if _, err := io.Copy(file, r); err != nil {
		file.Close()
		return err
	}
	if err := file.Sync(); err != nil {
		file.Close()
		return err
	}
	return file.Close()
}

// Free implements [Dir].
func (f *Folder) Free() (int64, error) {
	root, err := f.root.Open(".")
	if err != nil {
		return 0, err
	}
	defer root.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(root.Fd()), &st); err != nil {
		return 0, fmt.Errorf("determining the free space of %s: %w", root.Name(), err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// Rename implements [Dir].
func (f *Folder) Rename(from, to string) error { return f.root.Rename(from, to) }

// Remove implements [Dir].
func (f *Folder) Remove(name string) error { return f.root.Remove(name) }

// Sync implements [Dir]. syncfs writes the file system back; the fsync of a folder then makes the drive flush its cache,
// which syncfs does not do on FAT (kernel, fs/fat/file.c, fat_file_fsync).
func (f *Folder) Sync() error {
	for _, name := range []string{".", type1.entries, uki.entries} {
		d, err := f.root.Open(strings.TrimSuffix(name, "/"))
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
