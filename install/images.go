package install

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"updater/release"
	"updater/source"
	"updater/update"
)

// releaseDocument returns the release document that an argument names: the file, release.toml in a folder, or the address of either;
// false for an image.
func releaseDocument(name string) (string, bool) {
	if u, remote, err := source.ParseURL(name); err == nil && remote {
		if strings.HasSuffix(u.Path, "/") {
			return u.JoinPath(release.DocumentName).String(), true
		}
		return name, path.Ext(u.Path) == ".toml"
	}
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return filepath.Join(name, release.DocumentName), true
	}
	return name, filepath.Ext(name) == ".toml"
}

// isArchive reports whether an argument names a release as one tar stream: standard input, unless it has a bmap, or a file.
func (r Request) isArchive() bool {
	if _, remote, _ := source.ParseURL(r.Image); remote {
		return false
	}
	return r.Image == "-" && r.Documents.Bmap == "" && r.Partition == "" || path.Ext(r.Image) == ".tar"
}

// images opens the files that a release names, beside its document. It implements update.Images and keeps the block maps that it has read.
type images struct {
	from     *Origins
	document string
	maps     map[string][]byte // by role
}

// Map implements update.Images.
func (s *images) Map(ctx context.Context, i release.Image) ([]byte, error) {
	data, err := s.from.Read(ctx, Beside(s.document, i.Bmap), s.from.Trust.Limit(release.TypeMap))
	if err != nil {
		return nil, fmt.Errorf("reading the block map of role %s: %w", i.Role, err)
	}
	s.maps[i.Role] = data
	return data, nil
}

// Open implements update.Images.
func (s *images) Open(ctx context.Context, i release.Image) (update.ImageCloser, int64, error) {
	name := Beside(s.document, i.File)
	img, size, err := s.from.Open(ctx, name)
	if err != nil {
		return nil, 0, err
	}
	return s.from.planned(img, name), size, nil
}
