package bmap_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"updater/bmap"
)

// imageFile makes an image of 1 MiB with two blocks of data.
func imageFile() *os.File {
	f, err := os.CreateTemp("", "image-*.img")
	if err != nil {
		log.Fatal(err)
	}
	_, first := f.WriteAt([]byte("boot"), 0)
	_, second := f.WriteAt([]byte("data"), 8192)
	if err := errors.Join(first, second, f.Truncate(1<<20)); err != nil {
		log.Fatal(err)
	}
	return f
}

// The map of an image lists the ranges with data. Encode writes it as bmaptool reads it, Parse reads it back.
func Example() {
	f := imageFile()
	defer os.Remove(f.Name())
	defer f.Close()
	created, err := bmap.Create(context.Background(), f, bmap.CreateOptions{ScanZeros: true})
	if err != nil {
		log.Fatal(err)
	}
	m, err := bmap.Parse(created.Encode())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("version", m.Version(), "of", m.ImageSize(), "bytes,", m.MappedBlocks(), "of", m.BlocksCount(), "blocks mapped")
	for i, r := range m.Ranges() {
		fmt.Printf("range %d: %s, %s %.8s...\n", i, r, m.ChecksumType(), r.Checksum)
	}
	for s := range m.Gaps() {
		fmt.Println("gap:", s.Length, "bytes at", s.Offset)
	}
	// Output:
	// version 2.0 of 1048576 bytes, 2 of 256 blocks mapped
	// range 0: block 0, sha256 357ae67d...
	// range 1: block 2, sha256 0625cecd...
	// gap: 4096 bytes at 4096
	// gap: 1036288 bytes at 12288
}

// Verify names every range that differs.
func ExampleVerify() {
	f := imageFile()
	defer os.Remove(f.Name())
	defer f.Close()
	m, err := bmap.Create(context.Background(), f, bmap.CreateOptions{ScanZeros: true})
	if err != nil {
		log.Fatal(err)
	}
	image, err := os.ReadFile(f.Name())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("as it was:", bmap.Verify(context.Background(), m, bytes.NewReader(image), nil))
	image[8192] ^= 1
	err = bmap.Verify(context.Background(), m, bytes.NewReader(image), nil)
	if bad, ok := errors.AsType[*bmap.MismatchError](err); ok {
		fmt.Println("changed: range", bad.Index, "at byte", bad.Range.Offset)
	}
	// Output:
	// as it was: <nil>
	// changed: range 1 at byte 8192
}

// A map is hostile until its signature was verified: Parse refuses a map that is not complete and consistent.
func ExampleSyntaxError() {
	_, err := bmap.Parse([]byte("<?xml version=\"1.0\" ?>\n<bmap version=\"3.0\">\n</bmap>\n"))
	if fault, ok := errors.AsType[*bmap.SyntaxError](err); ok {
		fmt.Println(fault)
	}
	// Output: bmap line 2: <bmap>: version is "3.0", expected 1.2, 1.3, 1.4 or 2.x
}
