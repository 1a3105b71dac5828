package source_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"strings"

	"updater/source"
)

// A compressed stream is decoded by its first bytes, and its end is checked.
func ExampleNewImage() {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = io.WriteString(z, "an image")
	_ = z.Close()

	img, err := source.NewImage(&packed, "example", source.Limits{})
	if err != nil {
		log.Fatal(err)
	}
	defer img.Close()
	data, err := io.ReadAll(img)
	fmt.Printf("%s: %q, %v\n", img.Codec(), data, err)
	// Output: gzip: "an image", <nil>
}

// A truncated image is an error, never a shorter image.
func ExampleCorruptError() {
	img, err := source.NewImage(strings.NewReader("\x1f\x8b\x08\x00"), "cut.img.gz", source.Limits{})
	if err == nil {
		_, err = io.Copy(io.Discard, img)
	}
	corrupt, ok := errors.AsType[*source.CorruptError](err)
	fmt.Println(ok, corrupt.Codec, errors.Is(err, io.ErrUnexpectedEOF))
	// Output: true gzip true
}

// An image on a server, and the documents beside it. A broken link is resumed.
func ExampleClient() {
	ctx := context.Background()
	client, err := source.NewClient(source.HTTPOptions{Warn: log.Printf})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	const address = "https://updates.example.com/image.img.zst"
	bmap, _, err := client.FindBmap(ctx, address, 4<<20, nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, found, err := client.FindSignature(ctx, bmap, 64<<10); err != nil || !found {
		log.Fatal("no signature: ", err)
	}
	img, err := client.Open(ctx, address, source.Limits{})
	if err != nil {
		log.Fatal(err)
	}
	defer img.Close()
	if _, err := io.Copy(io.Discard, img); err != nil { // compare it with the signed checksums instead
		log.Fatal(err)
	}
}

func ExampleRedact() {
	fmt.Println(source.Redact("https://user:secret@updates.example.com/a%2Fb.img?signature=secret"))
	// Output: https://updates.example.com/a%2Fb.img?...
}
