// Command maxrange prints a table of costs and gains for several limits on the length of a bmap's ranges: the size of the
// bmap, the time to create it, the loss of compressing each range separately, and how much an update from another image
// fetches when it skips the ranges that the old image holds.
//
//	go run ./bench/maxrange NEW.img OLD.img
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"

	"updater/bmap"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: maxrange NEW.img OLD.img")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(newPath, oldPath string) error {
	image, err := os.Open(newPath)
	if err != nil {
		return err
	}
	defer image.Close()
	old, err := os.Open(oldPath)
	if err != nil {
		return err
	}
	defer old.Close()
	if _, _, err := create(image, -1); err != nil { // fills the page cache
		return err
	}
	whole, err := compressed(image)
	if err != nil {
		return err
	}
	fmt.Println("| --max-range | ranges | bmap KiB | create s | zstd, a frame a range | to fetch from the old image, MiB raw | MiB zstd |")
	fmt.Println("|---|--:|--:|--:|--:|--:|--:|")
	for _, limit := range []int64{64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20, -1} {
		if err := row(image, old, limit, whole); err != nil {
			return err
		}
	}
	return nil
}

func row(image, old *os.File, limit, whole int64) error {
	m, seconds, err := create(image, limit)
	if err != nil {
		return err
	}
	o, _, err := create(old, limit)
	if err != nil {
		return err
	}
	have := map[string]bool{}
	for _, r := range o.Ranges() {
		have[r.Checksum] = true
	}
	var total, raw, fetch int64
	err = eachFrame(image, m, func(r bmap.Range, frame int64) {
		total += frame
		if !have[r.Checksum] {
			raw, fetch = raw+r.Length, fetch+frame
		}
	})
	if err != nil {
		return err
	}
	name := "0 (not split)"
	if limit > 0 {
		name = fmt.Sprintf("%d KiB", limit>>10)
	}
	fmt.Printf("| %s | %d | %d | %.2f | %+.1f %% | %.1f | %.1f |\n", name, m.Len(), len(m.Encode())>>10, seconds,
		100*(float64(total)/float64(whole)-1), float64(raw)/(1<<20), float64(fetch)/(1<<20))
	return nil
}

// create makes a map three times and returns the shortest time.
func create(f *os.File, limit int64) (*bmap.Map, float64, error) {
	best := time.Hour
	var m *bmap.Map
	for range 3 {
		start := time.Now()
		var err error
		if m, err = bmap.Create(context.Background(), f, bmap.CreateOptions{MaxRange: limit}); err != nil {
			return nil, 0, err
		}
		best = min(best, time.Since(start))
	}
	return m, best.Seconds(), nil
}

// compressed is the size of all mapped bytes in one zstd stream, in bytes.
func compressed(f *os.File) (int64, error) {
	m, err := bmap.Create(context.Background(), f, bmap.CreateOptions{MaxRange: -1})
	if err != nil {
		return 0, err
	}
	var n counter
	enc, err := zstd.NewWriter(&n, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return 0, err
	}
	for _, r := range m.Ranges() {
		if _, err := io.Copy(enc, io.NewSectionReader(f, r.Offset, r.Length)); err != nil {
			return 0, err
		}
	}
	err = enc.Close()
	return int64(n), err
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// eachFrame compresses every range separately.
func eachFrame(f *os.File, m *bmap.Map, use func(r bmap.Range, frame int64)) error {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	defer enc.Close()
	for _, r := range m.Ranges() {
		data := slices.Grow([]byte(nil), int(r.Length))[:r.Length]
		if _, err := f.ReadAt(data, r.Offset); err != nil && err != io.EOF {
			return err
		}
		use(r, int64(len(enc.EncodeAll(data, nil))))
	}
	return nil
}
