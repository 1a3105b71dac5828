package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"updater/delta"
	"updater/install"
)

// deltas prints the delta sizes of programs that compare whole images, for a pair, and how fast this program makes the new image.
func (b *bench) deltas(oldImg, newImg string, plain int64) error {
	if err := b.run(b.updater, "bmap", "create", "-o", oldImg+".bmap", oldImg); err != nil {
		return err
	}
	fmt.Println("\n| delta | MB | of the .zst | create, CPU s | MiB | apply, CPU s | MiB |\n|---|--:|--:|--:|--:|--:|--:|")
	for i, c := range []struct{ name, tool, create, apply string }{
		{"updater delta create", b.updater, `"$1" delta create --from "$2" -o "$4" "$3"`, ""},
		{"zstd -3 --long=30 --patch-from", "zstd", `"$1" -q -3 --long=30 -f --patch-from="$2" -o "$4" "$3"`, `"$1" -q -d --long=30 -f --patch-from="$2" -o made "$4"`},
		{"xdelta3 -9 -B 1G", "xdelta3", `"$1" -9 -B 1073741824 -f -e -s "$2" "$3" "$4"`, `"$1" -B 1073741824 -f -d -s "$2" "$4" made`},
	} {
		if _, err := exec.LookPath(c.tool); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s is not installed; left out\n", c.tool)
			continue
		}
		out := filepath.Join(b.dir, fmt.Sprintf("%d.delta", i))
		create := job{argv: []string{"bash", "-euc", "exec " + c.create, "bench", c.tool, oldImg, newImg, out}}
		apply := job{argv: []string{"bash", "-euc", "cd " + b.dir + "; exec " + c.apply, "bench", c.tool, oldImg, newImg, out}}
		if err := b.measure(&create); err != nil {
			return err
		}
		info, err := os.Stat(out)
		if err != nil {
			return err
		}
		row := fmt.Sprintf("| %s | %.2f | %.4f | %.0f | %d ", c.name, mb(info.Size()), float64(info.Size())/float64(plain), create.runs[0].cpu, create.runs[0].rss>>10)
		if c.apply == "" {
			fmt.Println(row + "| - | - |")
			continue
		}
		if err := b.measure(&apply); err != nil {
			return err
		}
		fmt.Printf("%s| %.1f | %d |\n", row, apply.runs[0].cpu, apply.runs[0].rss>>10)
	}
	if err := os.Remove(filepath.Join(b.dir, "made")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return b.decode(filepath.Join(b.dir, "0.delta"), oldImg, newImg)
}

// decode prints how fast the groups of the pair's delta are made.
func (b *bench) decode(out, oldImg, newImg string) error {
	m, err := readMap(newImg + ".bmap")
	if err != nil {
		return err
	}
	f, err := os.Open(out)
	if err != nil {
		return err
	}
	defer f.Close()
	old, err := os.Open(oldImg)
	if err != nil {
		return err
	}
	defer old.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	t, err := delta.ReadTable(f, info.Size(), install.PackRanges(m))
	if err != nil {
		return err
	}
	start := time.Now()
	r, err := t.NewReader(b.ctx, delta.Source{File: f, Old: old, Frames: t.Frames})
	if err != nil {
		return err
	}
	defer r.Close()
	var made int64
	for g := r.Next(); g != nil; g = r.Next() {
		if g.Err != nil {
			return g.Err
		}
		made += g.Length
	}
	_, requests := delta.Cost(t.Frames)
	fmt.Printf("\nMade from the delta, in this process: %.0f MB/s; %d requests.\n", mb(made)/time.Since(start).Seconds(), requests)
	return nil
}
