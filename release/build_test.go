package release_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"updater/bmap"
	"updater/release"
)

// folder makes files in a new folder: NAME to its size in blocks of 4096 bytes, of which every second one is a hole.
func folder(t testing.TB, blocks map[string]int) string {
	t.Helper()
	dir := t.TempDir()
	for name, n := range blocks {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < n; i += 2 {
			if _, err := f.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, 4096), int64(i)*4096); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(f.Truncate(int64(n)*4096), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func buildOptions(dir string, parts ...string) release.BuildOptions {
	o := release.BuildOptions{Dir: dir, Contents: release.Contents{Product: "p", Version: "1", RollbackIndex: 1, Created: signedAt}}
	for _, p := range parts {
		role, image, _ := strings.Cut(p, "=")
		role, slot, _ := strings.Cut(role, "@")
		o.Parts = append(o.Parts, release.Part{Role: role, Slot: slot, Image: filepath.Join(dir, image)})
	}
	return o
}

// mapFile makes the map of an image of a folder as another program would.
func mapFile(t testing.TB, dir, image, name string, o bmap.CreateOptions) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, image))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := bmap.Create(t.Context(), f, o)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, name), m.Encode())
	return m.Encode()
}

func writeFile(t testing.TB, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestBuild(t *testing.T) {
	dir := folder(t, map[string]int{"boot-a.img": 4, "boot-b.img": 6, "images/rootfs.img": 400, "dtb.img": 2})
	writeFile(t, filepath.Join(dir, "images/rootfs.img.zst"), []byte("packed"))
	writeFile(t, filepath.Join(dir, "data.img.xz"), []byte("packed, and the raw image is elsewhere"))
	have := mapFile(t, dir, "dtb.img", "data.img.bmap", bmap.CreateOptions{})
	kept := mapFile(t, dir, "dtb.img", "dtb.img.bmap", bmap.CreateOptions{ChecksumType: "sha512", Update: updateElement("p", "1", 1, "dtb")})
	o := buildOptions(dir, "boot@A=boot-a.img", "boot@B=boot-b.img", "rootfs=images/rootfs.img.zst", "dtb=dtb.img", "data=data.img.xz")
	var done, total int64
	o.Progress = func(d, t int64) { done, total = d, t }
	b, err := release.Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if done == 0 || done != total {
		t.Errorf("progress ended at %d of %d bytes", done, total)
	}
	var names []string
	for _, path := range slices.Sorted(maps.Keys(b.Maps)) {
		names = append(names, strings.TrimPrefix(path, dir+"/"))
	}
	if want := []string{"boot-a.img.bmap", "boot-b.img.bmap", "images/rootfs.img.bmap"}; !slices.Equal(names, want) {
		t.Errorf("new maps %v; want %v", names, want)
	}
	images := b.Release.Images()
	made := func(name string) string { return sumOf(b.Maps[filepath.Join(dir, name)]) }
	for i, want := range []release.Image{
		{Role: "boot", Slot: "A", File: "boot-a.img", Bmap: "boot-a.img.bmap", BmapSHA256: made("boot-a.img.bmap")},
		{Role: "boot", Slot: "B", File: "boot-b.img", Bmap: "boot-b.img.bmap", BmapSHA256: made("boot-b.img.bmap")},
		{Role: "rootfs", File: "images/rootfs.img.zst", Bmap: "images/rootfs.img.bmap", BmapSHA256: made("images/rootfs.img.bmap")},
		{Role: "dtb", File: "dtb.img", Bmap: "dtb.img.bmap", BmapSHA256: sumOf(kept)},
		{Role: "data", File: "data.img.xz", Bmap: "data.img.bmap", BmapSHA256: sumOf(have)},
	} {
		if images[i] != want {
			t.Errorf("image %d is %+v; want %+v", i, images[i], want)
		}
	}
	again, err := release.Build(t.Context(), o)
	if err != nil || !bytes.Equal(again.Release.Encode(), b.Release.Encode()) {
		t.Errorf("a second Build() differs: %v", err)
	}
}

func TestBuildOneImageForTwoSlots(t *testing.T) {
	dir := folder(t, map[string]int{"boot.img": 4, "rootfs.img": 4})
	b, err := release.Build(t.Context(), buildOptions(dir, "boot@A=boot.img", "boot@B=boot.img", "rootfs=rootfs.img"))
	if err != nil || len(b.Maps) != 2 || b.Release.Images()[0].BmapSHA256 != b.Release.Images()[1].BmapSHA256 {
		t.Errorf("Build() = %+v, %v", b, err)
	}
}

// A map of another program with a range that devices write before they compare it gets a warning.
func TestBuildWarnsOfLongRanges(t *testing.T) {
	dir := folder(t, map[string]int{"short.img": 4})
	writeFile(t, filepath.Join(dir, "long.img"), bytes.Repeat([]byte("data"), 5<<20/4))
	mapFile(t, dir, "long.img", "long.img.bmap", bmap.CreateOptions{MaxRange: -1})
	b, err := release.Build(t.Context(), buildOptions(dir, "boot=short.img", "rootfs=long.img"))
	if err != nil || len(b.Warnings) != 1 || !strings.Contains(b.Warnings[0], "long.img.bmap has a range of 5242880 bytes") {
		t.Errorf("Build() = %+v, %v", b, err)
	}
}

func TestBuildRefuses(t *testing.T) {
	for _, tc := range []struct {
		name  string
		parts []string
		edit  func(dir string, o *release.BuildOptions)
		want  error // nil: any
		text  string
	}{
		{"no image", nil, nil, new(release.SyntaxError), "no [[image]]"},
		{"role twice", []string{"rootfs=a.img", "rootfs=b.img"}, nil, new(release.SyntaxError), "rootfs appears twice"},
		{"no such image", []string{"rootfs=c.img"}, nil, nil, "c.img"},
		{"packed image alone", []string{"rootfs=packed.img.gz"}, nil, nil, "has no block map"},
		{"outside the folder", []string{"rootfs=a.img"}, func(dir string, o *release.BuildOptions) { o.Dir = dir + "/sub" }, nil, "cannot be named"},
		{"raw and packed share a map", []string{"rootfs=a.img", "boot=a.img.zst"}, nil, nil, "have one block map"},
		{"bad version", []string{"rootfs=a.img"}, func(_ string, o *release.BuildOptions) { o.Contents.Version = "" }, new(release.SyntaxError), "version"},
		{"map of another image", []string{"rootfs=a.img"}, func(dir string, _ *release.BuildOptions) {
			mapFile(t, dir, "other.img", "a.img.bmap", bmap.CreateOptions{})
		}, nil, "image has 16384 bytes, the block map says 24576"},
		{"stale map", []string{"rootfs=a.img"}, func(dir string, _ *release.BuildOptions) {
			mapFile(t, dir, "a.img", "a.img.bmap", bmap.CreateOptions{})
			poke(t, filepath.Join(dir, "a.img"), 0)
		}, new(bmap.MismatchError), "a.img.bmap"},
		{"data where the map has a hole", []string{"rootfs=a.img"}, func(dir string, _ *release.BuildOptions) {
			mapFile(t, dir, "a.img", "a.img.bmap", bmap.CreateOptions{})
			poke(t, filepath.Join(dir, "a.img"), 5000)
		}, nil, "bytes 4096 to 8191 hold data"},
		{"damaged map", []string{"rootfs=a.img"}, func(dir string, _ *release.BuildOptions) {
			writeFile(t, filepath.Join(dir, "a.img.bmap"), []byte("<bmap"))
		}, new(bmap.SyntaxError), "a.img.bmap"},
		{"map of another version", []string{"rootfs=a.img"}, func(dir string, _ *release.BuildOptions) {
			mapFile(t, dir, "a.img", "a.img.bmap", bmap.CreateOptions{Update: updateElement("p", "2", 1, "rootfs")})
		}, new(release.MapError), "Version"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := folder(t, map[string]int{"a.img": 4, "b.img": 4, "other.img": 6})
			writeFile(t, filepath.Join(dir, "packed.img.gz"), nil)
			writeFile(t, filepath.Join(dir, "a.img.zst"), nil)
			o := buildOptions(dir, tc.parts...)
			if tc.edit != nil {
				tc.edit(dir, &o)
			}
			b, err := release.Build(t.Context(), o)
			if b != nil || err == nil || tc.want != nil && !sameError(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("Build() = %v, %T %v; want %q", b, err, err, tc.text)
			}
		})
	}
}

// A map that leaves unmapped blocks alone implies nothing about their content.
func TestBuildKeepsUnmapped(t *testing.T) {
	dir := folder(t, map[string]int{"a.img": 4})
	mapFile(t, dir, "a.img", "a.img.bmap", bmap.CreateOptions{Update: &bmap.Update{Unmapped: bmap.UnmappedKeep}})
	poke(t, filepath.Join(dir, "a.img"), 5000)
	if _, err := release.Build(t.Context(), buildOptions(dir, "rootfs=a.img")); err != nil {
		t.Error(err)
	}
}

// poke changes a byte.
func poke(t testing.TB, name string, at int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte{0x55}, at)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestBuildIsCancelled(t *testing.T) {
	dir := folder(t, map[string]int{"a.img": 4, "b.img": 4})
	cause := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if b, err := release.Build(ctx, buildOptions(dir, "rootfs=a.img", "boot=b.img")); b != nil || !errors.Is(err, cause) {
		t.Errorf("Build() = %v, %v", b, err)
	}
}
