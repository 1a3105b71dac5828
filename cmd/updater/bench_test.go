package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// BenchmarkCopy copies an image into a file, as raw bytes and as zstd: for profiles of the whole data path;
// docs/performance.md has one. UPDATER_BENCH_IMAGE names the image; without it the parts of the go toolchain are one.
func BenchmarkCopy(b *testing.B) {
	dir := b.TempDir()
	image := os.Getenv("UPDATER_BENCH_IMAGE")
	if image == "" {
		image = filepath.Join(dir, "image")
		if out, err := exec.Command("bash", "-euc", `tar -C "$(go env GOROOT)" -cf - bin pkg src | head -c 256M > "$1" || [ -s "$1" ]`, "bench", image).CombinedOutput(); err != nil {
			b.Skipf("no image: %v\n%s", err, out)
		}
	}
	doc := filepath.Join(dir, "bmap")
	run := func(args ...string) {
		if code := Run(b.Context(), args, Env{Stdin: os.Stdin, Stdout: io.Discard, Stderr: os.Stderr}); code != ExitDone {
			b.Fatalf("updater %v: exit %d", args, code)
		}
	}
	run("bmap", "create", "-o", doc, image)
	info, err := os.Stat(image)
	if err != nil {
		b.Fatal(err)
	}
	for name, pack := range map[string]string{"raw": "", "zstd": `zstd -q -3 -o "$2" "$1"`} {
		b.Run(name, func(b *testing.B) {
			file := image
			if pack != "" {
				file = filepath.Join(dir, "image.zst")
				if out, err := exec.Command("bash", "-euc", pack, "bench", image, file).CombinedOutput(); err != nil {
					b.Skipf("%v\n%s", err, out)
				}
			}
			b.SetBytes(info.Size())
			for b.Loop() {
				run("bmap", "copy", "--bmap", doc, "--allow-unsigned", "--rewrite", file, filepath.Join(dir, "copy"))
			}
		})
	}
}
