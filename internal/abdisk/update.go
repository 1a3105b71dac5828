package abdisk

import (
	"context"
	"fmt"
	"os"
)

// Update makes a signed update of a slot image: the image compressed with zstd, its bmap made by `updater bmap create` (Lab.Updater), and the
// bmap's detached signature. flags are further ones of that command. The result is what Stick takes: image.zst, image.bmap and image.bmap.asc with the paths of their files.
func (l *Lab) Update(ctx context.Context, image string, flags ...string) (map[string]string, error) {
	sum, err := fileSum(image)
	if err != nil {
		return nil, fmt.Errorf("update of %s: %w", image, err)
	}
	binary, err := fileSum(l.Updater)
	if err != nil {
		return nil, fmt.Errorf("update of %s: %w", image, err)
	}
	packed, bmap := image+".zst", image+".bmap"
	pack := func() error { return replace(ctx, packed, "zstd", "-q", "-f", "-3", "-o", packed+".tmp", image) }
	if err := l.cached(packed, pack, sum); err != nil {
		return nil, err
	}
	create := func() error {
		if err := replace(ctx, bmap, l.Updater, append(append([]string{"bmap", "create"}, flags...), "-o", bmap+".tmp", image)...); err != nil {
			return err
		}
		_, err := l.Sign(ctx, bmap)
		return err
	}
	key, err := l.Keys(ctx)
	if err != nil {
		return nil, err
	}
	keySum, err := fileSum(key)
	if err != nil {
		return nil, err
	}
	if err := l.cached(bmap, create, append([]string{sum, binary, keySum}, flags...)...); err != nil {
		return nil, err
	}
	return map[string]string{"image.zst": packed, "image.bmap": bmap, "image.bmap.asc": bmap + ".asc"}, nil
}

// replace runs a tool that writes PATH.tmp, then puts that in the place of PATH.
func replace(ctx context.Context, path string, name string, args ...string) error {
	os.Remove(path + ".tmp")
	if _, err := (command{}).run(ctx, name, args...); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}
