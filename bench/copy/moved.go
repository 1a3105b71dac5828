package main

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"updater/install"
	"updater/pack"
	"updater/source"
)

// moved prints the bytes of a packed image that this program fetches from a server by its index of blocks.
func (b *bench) moved(oldImg, newImg string, plain int64) error {
	packed := newImg + ".packed.zst"
	if err := b.run(b.updater, "bmap", "create", "-o", newImg+".bmap", newImg); err != nil {
		return err
	}
	if err := b.run(b.updater, "pack", "-o", packed, newImg); err != nil {
		return err
	}
	m, err := readMap(newImg + ".bmap")
	if err != nil {
		return err
	}
	old, err := os.Open(oldImg)
	if err != nil {
		return err
	}
	defer old.Close()
	info, err := old.Stat()
	if err != nil {
		return err
	}
	server := httptest.NewServer(http.FileServer(http.Dir(filepath.Dir(packed))))
	defer server.Close()
	client, err := source.NewClient(source.HTTPOptions{})
	if err != nil {
		return err
	}
	defer client.Close()
	image, err := client.Open(b.ctx, server.URL+"/"+filepath.Base(packed), source.Limits{})
	if err != nil {
		return err
	}
	defer image.Close()
	ranges := install.PackRanges(m)
	image.Costs(ranges)
	frames, index, err := image.Index(ranges, math.MaxInt64)
	if err != nil || index == nil {
		return fmt.Errorf("the index of %s: %v, %w", packed, index, err)
	}
	all := make([]int, len(ranges))
	for i := range ranges {
		all[i] = i
	}
	if err := index.Find(b.ctx, old, info.Size(), all, nil); err != nil {
		return err
	}
	var need []pack.Range
	var found int64
	for i := range ranges {
		for _, p := range index.Pieces(frames, i) {
			if p.From < 0 {
				need = append(need, pack.Range{Offset: p.Offset, Length: p.Length})
			} else {
				found += p.Length
			}
		}
	}
	parts, plan, err := image.Parts(need)
	if err != nil {
		return err
	}
	if parts != nil {
		defer parts.Close()
	}
	_, size := image.Consumed()
	fmt.Printf("| updater pack, blocks of 4 KiB in frames of %d KiB | %.2f + %.2f | %.1f | %.1f %% | %.1f | %.2f | %d |\n", pack.MaxFrame>>10, mb(pack.IndexSize(frames, ranges)),
		mb(int64(17+8*len(frames))), mb(size), 100*float64(found)/float64(m.MappedBytes()), mb(plan.Bytes), float64(plan.Bytes)/float64(plain), plan.Requests)
	return nil
}
