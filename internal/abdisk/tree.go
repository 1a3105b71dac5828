package abdisk

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
)

// tree is a set of files that belong to root, with the modes given here and never those of the host. Parent folders are made as needed.
type tree map[string]entry

// entry is a regular file, a symbolic link (link set) or a folder (mode has os.ModeDir).
type entry struct {
	mode os.FileMode
	body []byte
	link string
}

func (t tree) dir(name string)          { t[name] = entry{mode: os.ModeDir | 0o755} }
func (t tree) file(name, body string)   { t[name] = entry{mode: 0o644, body: []byte(body)} }
func (t tree) script(name, body string) { t[name] = entry{mode: 0o755, body: []byte(body)} }
func (t tree) symlink(name, target string) {
	t[name] = entry{mode: os.ModeSymlink | 0o777, link: target}
}
func (t tree) bytes(name string, body []byte)   { t[name] = entry{mode: 0o644, body: body} }
func (t tree) program(name, from string) error  { return t.copyFile(name, from, 0o755) }
func (t tree) hostFile(name, from string) error { return t.copyFile(name, from, 0o644) }
func (t tree) copyFile(name, from string, mode os.FileMode) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	t[name] = entry{mode: mode, body: b}
	return nil
}

// copyDir adds the regular files directly in a folder of the host.
func (t tree) copyDir(name, from string) error {
	list, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.Type().IsRegular() {
			if err := t.hostFile(path.Join(name, e.Name()), filepath.Join(from, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// names returns every path with its parents, sorted, so that a folder precedes its entries.
func (t tree) names() []string {
	all := map[string]bool{}
	for n := range t {
		for ; n != "."; n = path.Dir(n) {
			all[n] = true
		}
	}
	out := make([]string, 0, len(all))
	for n := range all {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

func (t tree) get(name string) entry {
	if e, ok := t[name]; ok {
		return e
	}
	return entry{mode: os.ModeDir | 0o755}
}

// writeTar writes the tree as a tar archive, the same bytes every time.
func (t tree) writeTar(w io.Writer) error {
	tw := tar.NewWriter(w)
	for _, n := range t.names() {
		e := t.get(n)
		h := &tar.Header{Name: n, Mode: int64(e.mode.Perm()), ModTime: epoch, Size: int64(len(e.body)), Typeflag: tar.TypeReg}
		switch {
		case e.mode.IsDir():
			h.Typeflag, h.Name = tar.TypeDir, n+"/"
		case e.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := tw.Write(e.body); err != nil {
			return err
		}
	}
	return tw.Close()
}

// writeCPIO writes the tree as a gzip-compressed newc archive (kernel, Documentation/driver-api/early-userspace/buffer-format.rst).
func (t tree) writeCPIO(w io.Writer) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return err
	}
	for i, n := range append(t.names(), "TRAILER!!!") {
		e := t.get(n)
		mode, body := 0o100000|int(e.mode.Perm()), e.body
		switch {
		case n == "TRAILER!!!":
			mode = 0
		case e.mode.IsDir():
			mode = 0o040000 | int(e.mode.Perm())
		case e.link != "":
			mode, body = 0o120777, []byte(e.link)
		}
		head := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
			i+1, mode, 0, 0, 1, epoch.Unix(), len(body), 0, 0, 0, 0, len(n)+1, 0, n)
		if _, err := io.WriteString(z, pad4(head)+pad4(string(body))); err != nil {
			return err
		}
	}
	return z.Close()
}

func pad4(s string) string { return s + "\x00\x00\x00"[:(4-len(s)%4)%4] }

// save writes the tree to a file with the given writer method.
func (t tree) save(path string, write func(tree, io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := write(t, f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
