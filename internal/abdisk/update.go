package abdisk

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Update makes a signed update of a slot image: the image compressed with zstd, its bmap made by `updater bmap create` (Builder.Updater)
// with flags, and the bmap's detached signature. It returns the files for Stick: paths by the names image.zst, image.bmap and
// image.bmap.asc.
func (b *Builder) Update(ctx context.Context, image string, flags ...string) (map[string]string, error) {
	sum, err := fileSum(image)
	if err != nil {
		return nil, fmt.Errorf("update of %s: %w", image, err)
	}
	binary, err := fileSum(b.Updater)
	if err != nil {
		return nil, fmt.Errorf("update of %s: %w", image, err)
	}
	packed, bmap := image+".zst", image+".bmap"
	pack := func() error { return replace(ctx, packed, "zstd", "-q", "-f", "-3", "-o", packed+".tmp", image) }
	if err := b.cached(packed, pack, sum); err != nil {
		return nil, err
	}
	create := func() error {
		if err := replace(ctx, bmap, b.Updater, append(append([]string{"bmap", "create"}, flags...), "-o", bmap+".tmp", image)...); err != nil {
			return err
		}
		_, err := b.Sign(ctx, bmap)
		return err
	}
	key, err := b.Keys(ctx)
	if err != nil {
		return nil, err
	}
	keySum, err := fileSum(key)
	if err != nil {
		return nil, err
	}
	if err := b.cached(bmap, create, append([]string{sum, binary, keySum}, flags...)...); err != nil {
		return nil, err
	}
	return map[string]string{"image.zst": packed, "image.bmap": bmap, "image.bmap.asc": bmap + ".asc"}, nil
}

// Release makes a signed release in the folder dir, which is emptied, by Builder.Updater: it packs the images, ROLE=FILE or ROLE@SLOT=FILE, and
// creates the document with flags. It returns the files for Stick. All of them are in dir, so that a server can offer it.
func (b *Builder) Release(ctx context.Context, dir string, flags []string, images ...string) (map[string]string, error) {
	if err := emptyDir(dir); err != nil {
		return nil, err
	}
	files := map[string]string{}
	add := func(name string) string { files[name] = filepath.Join(dir, name); return files[name] }
	args := append([]string{"release", "create", "-o", add("release.toml")}, flags...)
	for _, image := range images {
		role, file, _ := strings.Cut(image, "=")
		file, err := filepath.Abs(file)
		if err != nil {
			return nil, err
		}
		name := strings.ReplaceAll(role, "@", "-") + ".img"
		raw := filepath.Join(dir, name)
		if err := os.Symlink(file, raw); err != nil {
			return nil, err
		}
		if _, err := (command{}).run(ctx, b.Updater, "pack", raw); err != nil {
			return nil, err
		}
		add(name + ".bmap")
		args = append(args, role+"="+add(name+".zst"))
	}
	if _, err := (command{}).run(ctx, b.Updater, args...); err != nil {
		return nil, err
	}
	add("release.toml.asc")
	_, err := b.Sign(ctx, files["release.toml"])
	return files, err
}

// replace runs a tool that writes PATH.tmp, then renames that to PATH.
func replace(ctx context.Context, path string, name string, args ...string) error {
	os.Remove(path + ".tmp")
	if _, err := (command{}).run(ctx, name, args...); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}
