package bmap_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"updater/bmap"
)

// shapes are images at and around block borders.
func shapes() map[string]struct {
	size int64
	data []bmap.Span
} {
	type shape = struct {
		size int64
		data []bmap.Span
	}
	return map[string]shape{
		"one run":                     {mib, []bmap.Span{span(8*kib, 20*kib)}},
		"several runs":                {4 * mib, []bmap.Span{span(0, 4*kib), span(mib, 100*kib), span(3*mib, 1)}},
		"first block unmapped":        {mib, []bmap.Span{span(4*kib, 4*kib)}},
		"all mapped":                  {3*mib + 4096, []bmap.Span{span(0, 3*mib+4096)}},
		"partial last block mapped":   {mib + 1, []bmap.Span{span(0, 4*kib), span(mib, 1)}},
		"partial last block full":     {mib - 1, []bmap.Span{span(mib-8*kib, 8*kib-1)}},
		"partial last block unmapped": {mib + 1, []bmap.Span{span(0, 4*kib)}},
		"hole of one block":           {mib, []bmap.Span{span(0, 4*kib), span(8*kib, 4*kib)}},
		"unaligned data":              {mib, []bmap.Span{span(4095, 2), span(50*kib+1, 4097)}},
		"no data":                     {mib, nil},
	}
}

// TestBmaptoolReadsOurs copies with bmaptool by our maps, with ranges split and with an update element.
func TestBmaptoolReadsOurs(t *testing.T) {
	needTool(t, "bmaptool")
	update := &bmap.Update{Product: "acme-gw", Version: "1", RollbackIndex: 3, Unmapped: bmap.UnmappedZero}
	options := map[string]bmap.CreateOptions{
		"default":  {},
		"not cut":  {MaxRange: -1},
		"cut fine": {MaxRange: 8 * kib, Update: update},
		"sha512":   {ChecksumType: "sha512", Update: update},
		"blocks":   {BlockSize: 1024},
	}
	for shapeName, shape := range shapes() {
		for optionName, o := range options {
			t.Run(shapeName+"/"+optionName, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				image := sparseImage(t, dir, shape.size, shape.data...)
				m := create(t, image, o)
				mapPath, out := filepath.Join(dir, "ours.bmap"), filepath.Join(dir, "out")
				if err := os.WriteFile(mapPath, m.Encode(), 0o644); err != nil {
					t.Fatal(err)
				}
				run(t, "bmaptool", "copy", "--bmap", mapPath, image, out)
				if !bytes.Equal(readFile(t, out), readFile(t, image)) {
					t.Error("bmaptool copied other bytes")
				}
			})
		}
	}
}

// TestWeReadBmaptools compares the map bmaptool makes with ours.
func TestWeReadBmaptools(t *testing.T) {
	needTool(t, "bmaptool")
	for name, shape := range shapes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			image := sparseImage(t, dir, shape.size, shape.data...)
			mapPath := filepath.Join(dir, "theirs.bmap")
			run(t, "bmaptool", "create", "-o", mapPath, image)
			theirs := mustParse(t, readFile(t, mapPath))
			wantSound(t, theirs, image)
			ours := create(t, image, bmap.CreateOptions{MaxRange: -1, BlockSize: theirs.BlockSize()})
			if !bytes.Equal(ours.Encode(), theirs.Encode()) {
				t.Errorf("ours:\n%s\ntheirs, encoded by us:\n%s", ours.Encode(), theirs.Encode())
			}
		})
	}
	t.Run("no checksums", func(t *testing.T) {
		dir := t.TempDir()
		image := sparseImage(t, dir, mib, span(0, 4*kib))
		mapPath := filepath.Join(dir, "theirs.bmap")
		run(t, "bmaptool", "create", "--no-checksum", "-o", mapPath, image)
		if m := mustParse(t, readFile(t, mapPath)); m.Range(0).Checksum != "" {
			t.Errorf("range 0 is %+v; want no checksum", m.Range(0))
		}
	})
}
