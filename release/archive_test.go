package release_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"updater/bmap"
	"updater/release"
	"updater/verify"
)

// published makes a signed release of three images in a folder, and returns the document.
func published(t testing.TB, l *lab) (document string, r *release.Release) {
	t.Helper()
	dir := folder(t, map[string]int{"boot-a.img": 1, "boot-b.img": 2, "images/rootfs.img": 3})
	b, err := release.Build(t.Context(), buildOptions(dir, "boot@A=boot-a.img", "boot@B=boot-b.img", "rootfs=images/rootfs.img"))
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range b.Maps {
		writeFile(t, path, data)
	}
	document = filepath.Join(dir, "release.toml")
	writeFile(t, document, b.Release.Encode())
	writeFile(t, document+".sig", l.sign(b.Release.Encode(), "alice"))
	return document, b.Release
}

// archived writes the archive of a document.
func archived(t testing.TB, document string) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := release.WriteArchive(t.Context(), &out, document); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// drain reads all images of an archive, and returns their names.
func drain(a *release.Archive) (names []string, err error) {
	for {
		name, size, content, err := a.Next()
		if err != nil {
			return names, err
		}
		n, err := io.Copy(io.Discard, content)
		if err != nil || n != size {
			return names, errors.Join(err, errors.New(name+" is not whole"))
		}
		names = append(names, name)
	}
}

func TestArchive(t *testing.T) {
	l := newLab(t, "alice")
	document, r := published(t, l)
	stream := archived(t, document)
	if again := archived(t, document); !bytes.Equal(stream, again) {
		t.Error("WriteArchive() is not reproducible")
	}
	a, err := l.trust().OpenArchive(bytes.NewReader(stream))
	if err != nil {
		t.Fatal(err)
	}
	if a.Release.Identity() != r.Identity() || l.names(a.Signers) != "alice" {
		t.Errorf("OpenArchive() = %+v", a.Opened)
	}
	for _, i := range r.Images() {
		file, size, content, err := a.Next()
		if err != nil || file != i.File {
			t.Fatalf("Next() = %q, %v; want %q", file, err, i.File)
		}
		data, err := io.ReadAll(content)
		if err != nil || int64(len(data)) != size {
			t.Fatalf("%s: %d of %d bytes, %v", file, len(data), size, err)
		}
		m, err := bmap.Parse(a.Map(i))
		if err == nil {
			err = bmap.Verify(t.Context(), m, bytes.NewReader(data), nil)
		}
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	if _, _, _, err := a.Next(); err != io.EOF {
		t.Errorf("Next() at the end = %v", err)
	}
}

func TestArchiveOfAClearsignedRelease(t *testing.T) {
	l := newLab(t, "alice")
	document, r := published(t, l)
	writeFile(t, document, l.clearsign(r.Encode(), "alice"))
	if err := os.Remove(document + ".sig"); err != nil {
		t.Fatal(err)
	}
	a, err := l.trust().OpenArchive(bytes.NewReader(archived(t, document)))
	if err != nil || a.Release.Identity() != r.Identity() {
		t.Fatalf("OpenArchive() = %v, %v", a, err)
	}
	if names, err := drain(a); err != io.EOF || len(names) != 3 {
		t.Errorf("images %v, %v", names, err)
	}
}

// tarMember is one member of an archive that is put together by hand.
type tarMember struct {
	header tar.Header
	data   []byte
}

// members takes an archive apart.
func members(t testing.TB, stream []byte) (list []tarMember) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(stream))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, tarMember{tar.Header{Typeflag: h.Typeflag, Name: h.Name, Size: h.Size, Mode: h.Mode}, data})
	}
}

func joined(t testing.TB, list []tarMember) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, m := range list {
		if err := w.WriteHeader(&m.header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestArchiveOrder(t *testing.T) {
	l := newLab(t, "alice")
	document, _ := published(t, l)
	// Document, signature, 3 maps, 3 images.
	base := members(t, archived(t, document))
	file := func(name string) tarMember {
		return tarMember{tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 1, Mode: 0o644}, []byte("x")}
	}
	order := func(at ...int) []tarMember {
		var list []tarMember
		for _, i := range at {
			list = append(list, base[i])
		}
		return list
	}
	as := func(flag byte, i int) []tarMember {
		list := order(0, 1, 2, 3, 4, 5, 6, 7)
		list[i].header.Typeflag, list[i].header.Linkname = flag, "x"
		list[i].header.Size, list[i].data = 0, nil
		return list
	}
	dotted := order(0, 1, 2, 3, 4, 5, 6, 7)
	for i := range dotted {
		dotted[i].header.Name = "./" + dotted[i].header.Name
	}
	dotted = append([]tarMember{{header: tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}}}, dotted...)
	archive := new(release.ArchiveError)
	for _, tc := range []struct {
		name string
		list []tarMember
		want error // nil: all is well
		text string
	}{
		{"images in another order", order(0, 1, 4, 3, 2, 7, 5, 6), nil, ""},
		{"names with ./, and a folder", dotted, nil, ""},
		{"nothing", nil, archive, "ends before release.toml"},
		{"signature first", order(1, 0, 2, 3, 4, 5, 6, 7), archive, "expected release.toml as the first member"},
		{"no signature", order(0, 2, 3, 4, 5, 6, 7), archive, "expected signature of release.toml"},
		{"image before a map", order(0, 1, 2, 3, 5, 4, 6, 7), archive, `expected block map "images/rootfs.img.bmap"`},
		{"map twice", order(0, 1, 2, 2, 3, 4, 5, 6, 7), archive, "is unknown, repeated or out of order"},
		{"no map", order(0, 1, 2, 3), archive, "ends before block map"},
		{"document behind an image", order(0, 1, 2, 3, 4, 5, 0, 6, 7), archive, "is unknown, repeated or out of order"},
		{"image twice", order(0, 1, 2, 3, 4, 5, 5, 6, 7), archive, "is unknown, repeated or out of order"},
		{"no image", order(0, 1, 2, 3, 4, 5, 6), archive, `ends before image "images/rootfs.img"`},
		{"something behind the last image", append(order(0, 1, 2, 3, 4, 5, 6, 7), file("more")), archive, "follows the last image"},
		{"unknown file", append(order(0, 1, 2, 3, 4), file("../x")), archive, `"../x": is unknown`},
		{"document as a link", as(tar.TypeSymlink, 0), archive, "is no plain file"},
		{"map as a hard link", as(tar.TypeLink, 2), archive, "is no plain file"},
		{"image as a link", as(tar.TypeSymlink, 6), archive, "is no plain file"},
		{"image as a device", as(tar.TypeChar, 6), archive, "is no plain file"},
		{"another map", func() []tarMember {
			list := order(0, 1, 2, 3, 4, 5, 6, 7)
			list[2].data, list[2].header.Size = list[3].data, list[3].header.Size
			return list
		}(), new(release.PinError), "boot-a.img.bmap"},
		{"changed document", func() []tarMember {
			list := order(0, 1, 2, 3, 4, 5, 6, 7)
			list[0].data = bytes.Replace(list[0].data, []byte(`version = "1"`), []byte(`version = "2"`), 1)
			return list
		}(), new(verify.SignatureError), ""},
		{"document is too large", func() []tarMember {
			list := order(0, 1)
			list[0].data = make([]byte, release.MaxSize+verify.MaxSignatureSize+1)
			list[0].header.Size = int64(len(list[0].data))
			return list
		}(), archive, "expected at most"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, err := l.trust().OpenArchive(bytes.NewReader(joined(t, tc.list)))
			if err == nil {
				var names []string
				if names, err = drain(a); err == io.EOF && len(names) == 3 {
					err = nil
				}
			}
			switch {
			case tc.want == nil:
				if err != nil {
					t.Error(err)
				}
			case !sameError(err, tc.want) || !strings.Contains(err.Error(), tc.text):
				t.Errorf("%T %v; want %T with %q", err, err, tc.want, tc.text)
			}
		})
	}
}

// A sparse member has another size than its bytes in the stream.
func TestArchiveRefusesSparseMembers(t *testing.T) {
	l := newLab(t, "alice")
	document, _ := published(t, l)
	list := members(t, archived(t, document))
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	h := list[0].header
	h.PAXRecords = map[string]string{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "release.toml", "GNU.sparse.realsize": "1"}
	if err := w.WriteHeader(&h); err == nil {
		t.Skip("this version of archive/tar writes sparse members")
	}
	_ = w.Close()
	// As GNU tar 1.34 writes it, with --sparse --format=gnu: type 'S'.
	stream := joined(t, list)
	stream[156] = tar.TypeGNUSparse
	fixChecksum(stream[:512])
	if _, err := l.trust().OpenArchive(bytes.NewReader(stream)); err == nil {
		t.Error("a sparse member was accepted")
	}
}

// fixChecksum corrects the checksum of a tar header.
func fixChecksum(header []byte) {
	copy(header[148:156], "        ")
	sum := 0
	for _, b := range header {
		sum += int(b)
	}
	copy(header[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

func TestArchiveCutAnywhere(t *testing.T) {
	l := newLab(t, "alice")
	document, _ := published(t, l)
	stream := archived(t, document)
	for n := 0; n < len(stream)-1024; n += 509 { // the last 1024 bytes only end the stream
		a, err := l.trust().OpenArchive(bytes.NewReader(stream[:n]))
		if err == nil {
			if _, err = drain(a); err == io.EOF {
				t.Fatalf("a stream of %d of %d bytes is whole", n, len(stream))
			}
		}
	}
}

// A changed byte is an error, or lies in an image, which its block map covers, or in an unused field of a tar header.
func TestArchiveChangedAnywhere(t *testing.T) {
	l := newLab(t, "alice")
	document, r := published(t, l)
	stream := archived(t, document)
	for n := 0; n < len(stream); n += 11 {
		changed := bytes.Clone(stream)
		changed[n] ^= 1 << (n % 8)
		a, err := l.trust().OpenArchive(bytes.NewReader(changed))
		if err != nil {
			continue
		}
		for _, i := range r.Images() {
			if a.Release.Identity() != r.Identity() || a.Map(i) == nil {
				t.Fatalf("byte %d: %+v", n, a.Opened)
			}
		}
		if names, err := drain(a); err == io.EOF && len(names) != 3 {
			t.Fatalf("byte %d: images %v", n, names)
		}
	}
}

func TestWriteArchiveRefuses(t *testing.T) {
	l := newLab(t, "alice")
	for name, tc := range map[string]struct {
		edit func(dir string)
		want error // nil: any
	}{
		"no signature": {func(dir string) { _ = os.Remove(filepath.Join(dir, "release.toml.sig")) }, new(release.ArchiveError)},
		"bad document": {func(dir string) { writeFile(t, filepath.Join(dir, "release.toml"), []byte("type = \"release\"\n")) }, new(release.SyntaxError)},
		"another map":  {func(dir string) { writeFile(t, filepath.Join(dir, "boot-a.img.bmap"), []byte("x")) }, new(release.PinError)},
		"no image":     {func(dir string) { _ = os.Remove(filepath.Join(dir, "boot-b.img")) }, nil},
		"no document":  {func(dir string) { _ = os.Remove(filepath.Join(dir, "release.toml")) }, nil},
		"folder as one": {func(dir string) {
			_ = os.Remove(filepath.Join(dir, "boot-b.img"))
			_ = os.Mkdir(filepath.Join(dir, "boot-b.img"), 0o700)
		}, nil},
	} {
		document, _ := published(t, l)
		tc.edit(filepath.Dir(document))
		err := release.WriteArchive(t.Context(), io.Discard, document)
		if err == nil || tc.want != nil && !sameError(err, tc.want) {
			t.Errorf("%s: WriteArchive() = %T %v; want %T", name, err, err, tc.want)
		}
	}
	document, _ := published(t, l)
	cause := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := release.WriteArchive(ctx, io.Discard, document); !errors.Is(err, cause) {
		t.Errorf("WriteArchive() after a cancel = %v", err)
	}
}
