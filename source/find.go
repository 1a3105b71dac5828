package source

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// FindBmap returns the path of the bmap beside an image. Like bmaptool it tries IMAGE.bmap, then removes one extension after
// another: a.img.zst.bmap, a.img.bmap, a.bmap. A file without permission counts as found, so that opening it reports the cause. Image may be a file:
// address. Standard input, "-", has no bmap beside it. The error lists the names tried, or reports that the image is not there.
func FindBmap(image string) (string, error) {
	if image == "-" {
		return "", errors.New("no bmap beside standard input; name it")
	}
	image, err := localPath(image)
	if err != nil {
		return "", err
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
			if _, err := os.Stat(image); err != nil {
				return "", err
			}
			return "", fmt.Errorf("no bmap beside %s; tried %s", image, strings.Join(tried, ", "))
		}
		base = strings.TrimSuffix(base, ext)
	}
}

// FindSignature returns the path of the detached signature of a bmap: BMAP.asc, else BMAP.sig. If there is none, the bmap may
// still be clearsigned.
func FindSignature(bmap string) (string, bool) {
	bmap, err := localPath(bmap)
	if err != nil {
		return "", false
	}
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
