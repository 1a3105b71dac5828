package survey

import (
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"updater/blockdev"
	"updater/blockdev/fat"
)

// maxNames bounds the names that are looked at in one file system, maxSmall the bytes of a file.
const (
	maxNames = 1000
	maxSmall = 1 << 20
)

// depth is how many folders deep a file system is searched.
const depth = 4

// volume is a file system outside the slots, or the FAT one of a slot.
type volume struct {
	part  blockdev.Partition
	spec  string
	files []string // paths from its root, in the case of the file system
	read  func(name string) ([]byte, error)
}

// find returns the first file whose path ends in name, whole segments without regard to case; "" for none.
func (v volume) find(name string) string {
	for _, f := range v.files {
		if strings.HasSuffix(strings.ToLower("/"+f), "/"+strings.ToLower(name)) {
			return f
		}
	}
	return ""
}

// below reports whether there is a file below a folder, without regard to case.
func (v volume) below(dir string) bool {
	for _, f := range v.files {
		if strings.HasPrefix(strings.ToLower(f), strings.ToLower(dir)+"/") {
			return true
		}
	}
	return false
}

// volumes opens the FAT file systems of the disk, and those of other kinds outside the slots that are mounted.
func (l *look) volumes() {
	for _, p := range l.disk.Partitions() {
		if v, ok := l.openFAT(p); ok {
			l.vols = append(l.vols, v)
			continue
		}
		mount, err := "", error(nil)
		if l.Root != "" && !l.inSlot[p.Number] {
			mount, err = blockdev.MountPoint(p.Path)
		}
		if err != nil || mount == "" || mount == "/" {
			continue
		}
		v := volume{part: p, spec: l.spec(p), read: func(name string) ([]byte, error) { return readSmall(filepath.Join(mount, name)) }}
		v.walk("", depth, func(dir string) ([]string, error) { return list(filepath.Join(mount, dir)) })
		l.vols = append(l.vols, v)
	}
}

func (l *look) openFAT(p blockdev.Partition) (volume, bool) {
	d, err := p.Open(blockdev.ReadOnly)
	if err != nil {
		return volume{}, false
	}
	l.devices = append(l.devices, d)
	f, err := fat.Open(d, d.Size())
	if err != nil {
		return volume{}, false
	}
	v := volume{part: p, spec: l.spec(p), read: func(name string) ([]byte, error) { return f.ReadFile("/"+name, maxSmall) }}
	v.walk("", depth, func(dir string) ([]string, error) { return f.Names(dir, maxNames) })
	return v, true
}

// walk lists the files below dir. A name is a folder when it can be listed.
func (v *volume) walk(dir string, depth int, names func(dir string) ([]string, error)) {
	list, err := names(dir)
	if err != nil {
		return
	}
	for _, name := range list {
		full := path.Join(dir, name)
		if name == "." || name == ".." || len(v.files) >= maxNames {
			continue
		}
		if _, err := names(full); err != nil {
			v.files = append(v.files, full)
		} else if depth > 1 {
			v.walk(full, depth-1, names)
		}
	}
}

func list(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(maxNames)
	if err == io.EOF {
		err = nil
	}
	return names, err
}

func readSmall(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxSmall))
}
