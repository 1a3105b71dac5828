package bmap_test

import (
	"bytes"
	"crypto/sha1"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"updater/bmap"
)

// An imageShape is a sparse image.
type imageShape struct {
	size int64
	data []bmap.Span
}

// shapes are images at and around block borders.
func shapes() map[string]imageShape {
	return map[string]imageShape{
		"one run":                     {mib, []bmap.Span{span(8*kib, 20*kib)}},
		"several runs":                {4 * mib, []bmap.Span{span(0, 4*kib), span(mib, 100*kib), span(3*mib, 1)}},
		"first block unmapped":        {mib, []bmap.Span{span(4*kib, 4*kib)}},
		"all mapped":                  {3*mib + 4096, []bmap.Span{span(0, 3*mib+4096)}},
		"all mapped, a byte more":     {mib + 1, []bmap.Span{span(0, mib+1)}},
		"partial last block mapped":   {mib + 1, []bmap.Span{span(0, 4*kib), span(mib, 1)}},
		"partial last block full":     {mib - 1, []bmap.Span{span(mib-8*kib, 8*kib-1)}},
		"partial last block unmapped": {mib + 1, []bmap.Span{span(0, 4*kib)}},
		"hole of one byte":            {mib, []bmap.Span{span(0, 4*kib), span(4*kib+1, 4*kib)}},
		"hole of a block less a byte": {mib, []bmap.Span{span(0, 4*kib), span(8*kib-1, 4*kib)}},
		"hole of one block":           {mib, []bmap.Span{span(0, 4*kib), span(8*kib, 4*kib)}},
		"hole of a block and a byte":  {mib, []bmap.Span{span(0, 4*kib), span(8*kib+1, 4*kib)}},
		"unaligned data":              {mib, []bmap.Span{span(4095, 2), span(50*kib+1, 4097)}},
		"no data":                     {mib, nil},
		"blocks of 64 KiB":            {mib, []bmap.Span{span(128*kib, 192*kib), span(960*kib, 64*kib)}},
	}
}

// TestBmaptoolReadsOurs copies with bmaptool by our maps, with ranges split and with an update element.
func TestBmaptoolReadsOurs(t *testing.T) {
	needTool(t, "bmaptool")
	update := &bmap.Update{Product: "acme-gw", Version: "1", RollbackIndex: 3, Unmapped: bmap.UnmappedZero}
	options := map[string]bmap.CreateOptions{
		"not cut":  {MaxRange: -1},
		"cut fine": {MaxRange: 8 * kib, Update: update},
		"sha512":   {ChecksumType: "sha512", Update: update},
		"sha1":     {ChecksumType: "sha1", BlockSize: 512},
		"1024":     {BlockSize: 1024, MaxRange: 16 * kib},
		"65536":    {BlockSize: 65536},
	}
	for shapeName, shape := range shapes() {
		for optionName, o := range options {
			t.Run(shapeName+"/"+optionName, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				image := sparseImage(t, dir, shape.size, shape.data...)
				wantBmaptoolCopy(t, create(t, image, o), image, image)
			})
		}
	}
}

// wantBmaptoolCopy copies source, which is image in some container, with bmaptool over other data.
func wantBmaptoolCopy(t *testing.T, m *bmap.Map, source, image string) {
	t.Helper()
	mapPath, out := image+".ours.bmap", image+".out"
	if err := os.WriteFile(mapPath, m.Encode(), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "bmaptool", "copy", "--bmap", mapPath, source, out)
	if !bytes.Equal(readFile(t, out), readFile(t, image)) {
		t.Error("bmaptool copied other bytes")
	}
}

// TestBmaptoolReadsOursCompressed has bmaptool decode every container, by a map of split ranges with an update element.
func TestBmaptoolReadsOursCompressed(t *testing.T) {
	needTool(t, "bmaptool")
	shape := shapes()["several runs"]
	for ending, tool := range map[string]string{"gz": "gzip", "bz2": "bzip2", "xz": "xz", "zst": "zstd", "lz4": "lz4"} {
		t.Run(ending, func(t *testing.T) {
			needTool(t, tool)
			image := sparseImage(t, t.TempDir(), shape.size, shape.data...)
			packed, err := exec.Command(tool, "-c", image).Output()
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(image+"."+ending, packed, 0o644); err != nil {
				t.Fatal(err)
			}
			m := create(t, image, bmap.CreateOptions{MaxRange: 64 * kib, Update: &bmap.Update{Product: "acme-gw"}})
			wantBmaptoolCopy(t, m, image+"."+ending, image)
		})
	}
}

// bmaptoolScript makes a map with a block size that bmaptool otherwise takes from the file system of the image.
const bmaptoolScript = `
import sys
from bmaptools import BmapCreate, BmapHelpers
BmapHelpers.get_block_size = lambda f: int(sys.argv[3])
BmapCreate.BmapCreate(sys.argv[1], sys.argv[2], "sha256").generate(True)
`

// TestWeReadBmaptools compares the map that bmaptool makes with ours, for every block size.
func TestWeReadBmaptools(t *testing.T) {
	needTool(t, "bmaptool")
	python := "/usr/bin/python3" // where Debian's package is
	if exec.Command(python, "-c", "import bmaptools").Run() != nil {
		t.Skip("the Python module bmaptools is not installed")
	}
	for name, shape := range shapes() {
		for _, blockSize := range []int64{512, 1024, 4096, 65536} {
			if blockSize == 65536 && name != "no data" && name != "blocks of 64 KiB" {
				continue // bmaptool stops on an extent that is no whole block
			}
			t.Run(fmt.Sprintf("%s/%d", name, blockSize), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				image := sparseImage(t, dir, shape.size, shape.data...)
				mapPath := filepath.Join(dir, "theirs.bmap")
				run(t, python, "-c", bmaptoolScript, image, mapPath, fmt.Sprint(blockSize))
				theirs := mustParse(t, readFile(t, mapPath))
				wantSound(t, theirs, image)
				ours := create(t, image, bmap.CreateOptions{MaxRange: -1, BlockSize: blockSize})
				if !bytes.Equal(ours.Encode(), theirs.Encode()) {
					t.Errorf("ours:\n%s\ntheirs, encoded by us:\n%s", ours.Encode(), theirs.Encode())
				}
			})
		}
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

// TestVerifyOldVersions verifies the checksums of maps whose version makes bmaptool skip them.
func TestVerifyOldVersions(t *testing.T) {
	image := readFile(t, sparseImage(t, t.TempDir(), 4097, span(0, 4097)))
	sum := fmt.Sprintf("%x", sha1.Sum(image))
	text := `<bmap version="1.2"><ImageSize>4097</ImageSize><BlockSize>4096</BlockSize><BlocksCount>2</BlocksCount>` +
		`<BlockMap><Range sha1="` + sum + `">0-1</Range></BlockMap><MappedBlocksCount>2</MappedBlocksCount></bmap>`
	m := mustParse(t, []byte(text))
	if err := bmap.Verify(t.Context(), m, bytes.NewReader(image), nil); err != nil {
		t.Errorf("Verify = %v", err)
	}
	image[4096] ^= 1
	if _, ok := errors.AsType[*bmap.MismatchError](bmap.Verify(t.Context(), m, bytes.NewReader(image), nil)); !ok {
		t.Error("a wrong sha1 of version 1.2 is not noticed")
	}
}
