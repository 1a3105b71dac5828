package source

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// FindBmap finds the bmap beside an image, as bmaptool does: IMAGE.bmap, then with the endings taken off one
// by one (a.img.zst.bmap, a.img.bmap, a.bmap). The error lists the names that were tried.
func FindBmap(image string) (string, error) {
	var tried []string
	dir, base := filepath.Split(image)
	for {
		name := dir + base + ".bmap"
		if exists(name) {
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

// FindSignature finds the detached signature of a bmap: BMAP.asc, then BMAP.sig.
func FindSignature(bmap string) (string, bool) {
	for _, ext := range []string{".asc", ".sig"} {
		if exists(bmap + ext) {
			return bmap + ext, true
		}
	}
	return "", false
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}
