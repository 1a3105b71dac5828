package bmap_test

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"updater/bmap"
)

// sumMark stands in a template for the digits of the file checksum.
const sumMark = "@SUM@"

// seal puts the right file checksum of the given hash at the mark, if there is one.
func seal(text string) []byte {
	return sealWith(text, func(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) })
}

func sealSHA1(text string) []byte {
	return sealWith(text, func(b []byte) string { s := sha1.Sum(b); return hex.EncodeToString(s[:]) })
}

func sealWith(text string, hash func([]byte) string) []byte {
	zeros := strings.Repeat("0", len(hash(nil)))
	sum := hash([]byte(strings.Replace(text, sumMark, zeros, 1)))
	return []byte(strings.Replace(text, sumMark, sum, 1))
}

// valid is a 2.0 file for an image of 16000 bytes, written with one element per line so that errors have a line.
var valid = `<?xml version="1.0" ?>
<!-- a comment -->
<bmap version="2.0">
    <ImageSize> 16000 </ImageSize>
    <BlockSize> 4096 </BlockSize>
    <BlocksCount> 4 </BlocksCount>
    <MappedBlocksCount> 3 </MappedBlocksCount>
    <ChecksumType> sha256 </ChecksumType>
    <BmapFileChecksum> ` + sumMark + ` </BmapFileChecksum>
    <Update>
        <Product> acme-gw </Product>
        <RollbackIndex> 17 </RollbackIndex>
    </Update>
    <BlockMap>
        <Range chksum="` + digestA + `"> 0-1 </Range>
        <Range chksum="` + digestB + `"> 3 </Range>
    </BlockMap>
</bmap>
`

var (
	digestA = strings.Repeat("a1", 32)
	digestB = strings.Repeat("b2", 32)
)

func mustParse(t testing.TB, data []byte) *bmap.Map {
	t.Helper()
	m, err := bmap.Parse(data)
	if err != nil {
		t.Fatalf("Parse: %v\n%s", err, data)
	}
	return m
}

// create maps the image at path.
func create(t testing.TB, path string, o bmap.CreateOptions) *bmap.Map {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := bmap.Create(t.Context(), f, o)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	return m
}

// sparseImage makes a sparse file with random bytes at each span.
func sparseImage(t testing.TB, dir string, size int64, data ...bmap.Span) string {
	t.Helper()
	path := filepath.Join(dir, "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	random := rand.NewChaCha8([32]byte{1})
	for _, s := range data {
		b := make([]byte, s.Length)
		random.Read(b)
		if _, err := f.WriteAt(b, s.Offset); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// rangeTexts returns the ranges as the file spells them.
func rangeTexts(m *bmap.Map) string {
	var all []string
	for _, r := range m.Ranges() {
		if r.First == r.Last {
			all = append(all, fmt.Sprint(r.First))
			continue
		}
		all = append(all, fmt.Sprintf("%d-%d", r.First, r.Last))
	}
	return strings.Join(all, " ")
}

func needTool(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// imageFor returns size random bytes as a reader.
func imageFor(size int) *bytes.Reader {
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{2}).Read(b)
	return bytes.NewReader(b)
}
