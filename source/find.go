package source

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// FindBmap finds the bmap beside an image, as bmaptool does: IMAGE.bmap, then with the endings taken off one
// by one (a.img.zst.bmap, a.img.bmap, a.bmap). The error lists the names that were tried. A file that may not
// be looked at is found, so that opening it tells why, and not passed over for another one. Standard input,
// "-", has no bmap beside it.
func FindBmap(image string) (string, error) {
	if image == "-" {
		return "", errors.New("no bmap is beside an image on standard input; it has to be named")
	}
	var tried []string
	dir, base := filepath.Split(image)
	for {
		name := dir + base + ".bmap"
		if name != image && exists(name) {
			return name, nil
		}
		tried = append(tried, name)
		ext := filepath.Ext(base)
		if ext == "" || ext == base {
			return "", fmt.Errorf("no bmap beside %s; tried %s", image, strings.Join(tried, ", "))
		}
		base = strings.TrimSuffix(base, ext)
	}
}

// FindSignature finds the detached signature of a bmap: BMAP.asc, then BMAP.sig. Without one, the bmap may
// still be clearsigned.
func FindSignature(bmap string) (string, bool) {
	for _, ext := range []string{".asc", ".sig"} {
		if exists(bmap + ext) {
			return bmap + ext, true
		}
	}
	return "", false
}

func exists(name string) bool {
	info, err := os.Stat(name)
	return err == nil && !info.IsDir() || errors.Is(err, fs.ErrPermission)
}
