package bmap_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"updater/bmap"
)

// bigMap is a map of n ranges.
func bigMap(n int) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "<?xml version=\"1.0\" ?>\n<bmap version=\"2.0\">\n<ImageSize> %d </ImageSize>\n", n*16*4096)
	fmt.Fprintf(&b, "<BlockSize> 4096 </BlockSize>\n<BlocksCount> %d </BlocksCount>\n", n*16)
	fmt.Fprintf(&b, "<MappedBlocksCount> %d </MappedBlocksCount>\n<ChecksumType> sha256 </ChecksumType>\n", n*8)
	fmt.Fprintf(&b, "<BmapFileChecksum> %s </BmapFileChecksum>\n    <BlockMap>\n", sumMark)
	for i := range n {
		fmt.Fprintf(&b, "        <Range chksum=\"%064x\"> %d-%d </Range>\n", i, i*16, i*16+7)
	}
	b.WriteString("    </BlockMap>\n</bmap>\n")
	return seal(b.String())
}

func BenchmarkParse100k(b *testing.B) {
	data := bigMap(100_000)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := bmap.Parse(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode100k(b *testing.B) {
	m := mustParse(b, bigMap(100_000))
	b.SetBytes(int64(len(m.Encode())))
	for b.Loop() {
		m.Encode()
	}
}

// BenchmarkCreate maps 256 MiB in the page cache, half of it a hole.
func BenchmarkCreate(b *testing.B) {
	path := sparseImage(b, b.TempDir(), 256*mib, span(0, 128*mib))
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	b.SetBytes(256 * mib)
	for b.Loop() {
		if _, err := bmap.Create(b.Context(), f, bmap.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	path := sparseImage(b, b.TempDir(), 128*mib, span(0, 128*mib))
	m := create(b, path, bmap.CreateOptions{})
	image := bytes.NewReader(readFile(b, path))
	b.SetBytes(128 * mib)
	for b.Loop() {
		if err := bmap.Verify(b.Context(), m, image, nil); err != nil {
			b.Fatal(err)
		}
	}
}
