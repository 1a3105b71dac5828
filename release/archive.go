package release

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"updater/verify"
)

// DocumentName is the name of a release document in its folder and in an archive.
const DocumentName = "release.toml"

// maxFolders is how many folder members of an archive are skipped; they hold nothing.
const maxFolders = 1024

// ArchiveError reports a tar stream that is not an archive of a release.
type ArchiveError struct {
	Name string // of the member; "" at the end of the stream
	Msg  string
}

func (e *ArchiveError) Error() string {
	if e.Name == "" {
		return "archive: " + e.Msg
	}
	return fmt.Sprintf("archive member %.200q: %s", e.Name, e.Msg)
}

// Archive is a release that arrives as one tar stream: release.toml, its signature (unless it is clearsigned), every block
// map, then every image in any order, each file once. It takes no temporary space and cannot go back. Not safe for concurrent
// use.
type Archive struct {
	Opened
	Document  []byte // as it came
	Signature []byte // detached; nil for a clearsigned document

	maps    map[string][]byte // by file
	tar     *tar.Reader
	size    int64 // of the current member
	folders int
	left    []string // images that are still to come, by file
}

// OpenArchive reads a stream up to its first image. It opens the document as [Trust.OpenRelease] does before it reads on, and
// checks every block map by [Release.Map]. Errors: theirs, [ArchiveError], those of r.
func (t Trust) OpenArchive(r io.Reader) (*Archive, error) {
	a := &Archive{tar: tar.NewReader(r), maps: map[string][]byte{}}
	if err := a.open(t); err != nil {
		return nil, err
	}
	images := a.Release.Images()
	var maps []string // that are still to come
	for _, i := range images {
		maps, a.left = addOnce(maps, i.Bmap), addOnce(a.left, i.File)
	}
	for len(maps) > 0 {
		name, err := a.expect("block map "+quoted(maps[:1])+" before the images", maps...)
		if err != nil {
			return nil, err
		}
		maps = slices.DeleteFunc(maps, func(m string) bool { return m == name })
		data, err := a.read(name, t.maxSize(TypeMap))
		if err != nil {
			return nil, err
		}
		for _, i := range images {
			if i.Bmap != name {
				continue
			}
			if _, err = a.Release.Map(i, data); err != nil {
				return nil, err
			}
		}
		a.maps[name] = data
	}
	return a, nil
}

func addOnce(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

// open reads the document and its signature, and nothing after them.
func (a *Archive) open(t Trust) error {
	name, err := a.expect(DocumentName+" as the first member", DocumentName)
	if err != nil {
		return err
	}
	doc, err := a.read(name, t.Limit(TypeRelease))
	if err != nil {
		return err
	}
	var sig []byte
	if !verify.IsClearsigned(doc) {
		if name, err = a.expect("signature of "+DocumentName+" behind it", signatureNames(DocumentName)...); err != nil {
			return err
		}
		if sig, err = a.read(name, verify.MaxSignatureSize); err != nil {
			return err
		}
	}
	opened, err := t.OpenRelease(doc, sig)
	if err != nil {
		return err
	}
	a.Opened, a.Document, a.Signature = *opened, doc, sig
	return nil
}

func signatureNames(document string) []string { return []string{document + ".asc", document + ".sig"} }

// Map returns the block map of an image, which [Release.Map] has accepted; nil for another image.
func (a *Archive) Map(i Image) []byte { return a.maps[i.Bmap] }

// Next returns the next image of the stream: its name as the release has it, its size in bytes as it is packed, and its
// content, which is valid until Next is called again. It returns io.EOF once every image of the release came, and reads no
// further then. Errors: [ArchiveError], those of the stream.
func (a *Archive) Next() (file string, size int64, content io.Reader, err error) {
	if len(a.left) == 0 {
		if err := a.end(); err != nil {
			return "", 0, nil, err
		}
		return "", 0, nil, io.EOF
	}
	if file, err = a.expect("image "+quoted(a.left[:1]), a.left...); err != nil {
		return "", 0, nil, err
	}
	a.left = slices.DeleteFunc(a.left, func(f string) bool { return f == file })
	return file, a.size, a.tar, nil
}

// expect reads the header of the next member, which must have one of the names.
func (a *Archive) expect(what string, names ...string) (string, error) {
	name, err := a.member()
	switch {
	case err == io.EOF:
		return "", &ArchiveError{"", "ends before " + what}
	case err != nil:
		return "", err
	case !slices.Contains(names, name):
		return "", &ArchiveError{name, "is unknown, repeated or out of order, expected " + what}
	}
	return name, nil
}

// end refuses a member after the last image.
func (a *Archive) end() error {
	name, err := a.member()
	switch {
	case err == io.EOF:
		return nil
	case err != nil:
		return err
	}
	return &ArchiveError{name, "follows the last image"}
}

// member reads the header of the next file. Folders are skipped: they hold nothing. A leading "./" is dropped.
func (a *Archive) member() (string, error) {
	for {
		h, err := a.tar.Next()
		if err != nil {
			if errors.Is(err, tar.ErrHeader) {
				return "", &ArchiveError{"", "is no tar archive, or is damaged"}
			}
			if err != io.EOF {
				err = fmt.Errorf("reading the archive: %w", err)
			}
			return "", err
		}
		sparse := h.Typeflag == tar.TypeGNUSparse
		for key := range h.PAXRecords {
			sparse = sparse || strings.HasPrefix(key, "GNU.sparse.")
		}
		switch {
		case h.Typeflag == tar.TypeDir && a.folders < maxFolders:
			a.folders++
			continue
		case h.Typeflag != tar.TypeReg || sparse:
			return "", &ArchiveError{h.Name, "is no plain file; links, sparse files and devices are refused"}
		}
		a.size = h.Size
		return strings.TrimPrefix(h.Name, "./"), nil
	}
}

// read reads the content of a small member.
func (a *Archive) read(name string, limit int64) ([]byte, error) {
	if a.size > limit {
		return nil, &ArchiveError{name, fmt.Sprintf("has %d bytes, expected at most %d", a.size, limit)}
	}
	data, err := io.ReadAll(a.tar)
	if err != nil {
		return nil, fmt.Errorf("reading archive member %q: %w", name, err)
	}
	return data, nil
}

// ArchiveMember finds a file in an archive that [Trust.OpenArchive] has accepted, and returns its content and size in bytes, to read an
// image once more. Errors: [ArchiveError], those of r.
func ArchiveMember(r io.Reader, file string) (content io.Reader, size int64, err error) {
	for m := NewMembers(r); ; {
		name, size, content, err := m.Next(file)
		if err != nil || name == file {
			return content, size, err
		}
	}
}

// Members are the files of a tar stream in their order. Not safe for concurrent use.
type Members struct{ a Archive }

// NewMembers reads a tar stream.
func NewMembers(r io.Reader) *Members { return &Members{Archive{tar: tar.NewReader(r)}} }

// Next returns the next file: its name, its size in bytes and its content, which is valid until Next is called again. A stream that ends is
// an [ArchiveError], in which wanted is missing. Other errors are those of the stream.
func (m *Members) Next(wanted string) (name string, size int64, content io.Reader, err error) {
	if name, err = m.a.member(); err == io.EOF {
		err = &ArchiveError{wanted, "is missing"}
	}
	return name, m.a.size, m.a.tar, err
}

// WriteArchive writes the release of a document, with its signature, block maps and images beside it, as one tar stream that
// [Trust.OpenArchive] reads. The same files give the same bytes. It checks the block maps, not the signature. Errors:
// [SyntaxError], those of [Release.Map], [ArchiveError] for a document without a signature, those of the files and of w.
func WriteArchive(ctx context.Context, w io.Writer, document string) error {
	doc, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	text := doc
	if verify.IsClearsigned(doc) {
		if text, err = verify.UnverifiedText(doc); err != nil {
			return err
		}
	}
	r, err := Parse(text)
	if err != nil {
		return fmt.Errorf("%s: %w", document, err)
	}
	out := &archiveWriter{ctx: ctx, tar: tar.NewWriter(w), release: r, dir: filepath.Dir(document)}
	if err := out.file(document, DocumentName); err != nil {
		return err
	}
	if !verify.IsClearsigned(doc) {
		if err := out.signature(document); err != nil {
			return err
		}
	}
	if err := out.images(); err != nil {
		return err
	}
	return out.tar.Close()
}

type archiveWriter struct {
	ctx     context.Context
	tar     *tar.Writer
	release *Release
	dir     string
}

// signature writes the first signature that is beside the document.
func (w *archiveWriter) signature(document string) error {
	names := signatureNames(DocumentName)
	for i, path := range signatureNames(document) {
		if isThere(path) {
			return w.file(path, names[i])
		}
	}
	return &ArchiveError{DocumentName, "is not signed: it is not clearsigned, and has no .asc or .sig beside it"}
}

// images writes the maps and then the images, each file once.
func (w *archiveWriter) images() error {
	var maps, files []string
	for _, i := range w.release.contents.Images {
		data, err := readMap(w.path(i.Bmap))
		if err != nil {
			return err
		}
		if _, err := w.release.Map(i, data); err != nil {
			return err
		}
		maps, files = addOnce(maps, i.Bmap), addOnce(files, i.File)
	}
	for _, name := range append(maps, files...) {
		if err := w.file(w.path(name), name); err != nil {
			return err
		}
	}
	return nil
}

func (w *archiveWriter) path(name string) string {
	return filepath.Join(w.dir, filepath.FromSlash(name))
}

// file writes one member.
func (w *archiveWriter) file(path, name string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err == nil {
		err = w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: info.Size(), Mode: 0o644, ModTime: w.release.contents.Created})
	}
	if err == nil {
		_, err = io.Copy(w.tar, &cancelReader{w.ctx, io.LimitReader(f, info.Size())})
	}
	if err == nil {
		err = w.tar.Flush() // refuses a file that became shorter
	}
	if err != nil {
		return fmt.Errorf("archiving %s: %w", path, err)
	}
	return nil
}

// cancelReader ends with its context.
type cancelReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancelReader) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
