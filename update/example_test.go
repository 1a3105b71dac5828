package update_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"updater/bmap"
	"updater/update"
	"updater/verify"
)

// disk is a medium in memory.
type disk []byte

func (d disk) WriteAt(p []byte, off int64) (int, error)    { return copy(d[off:], p), nil }
func (d disk) ReadBackAt(p []byte, off int64) (int, error) { return copy(p, d[off:]), nil }
func (d disk) Zero(off, n int64) error                     { clear(d[off : off+n]); return nil }
func (d disk) Flush() error                                { return nil }

// An image in a partition at 8192 is read back, and the range that a bad block has changed is written once more.
func ExampleReadBack() {
	image := bytes.Repeat([]byte("updater "), 1024)
	m, err := bmap.FromRanges(int64(len(image)), "sha256", []bmap.Range{{
		Length: int64(len(image)), Checksum: "952cbf3385b8a5ffe33923a4c362ab5af043ed6370ef7a70bbbe3d4892422415",
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	medium := make(disk, 64<<10)
	copy(medium[8192:], image)
	medium[8192+5000] ^= 1

	b := update.ReadBack{Map: m, Unmapped: update.UnmappedZero, Offset: 8192}
	bad, err := b.Compare(context.Background(), medium)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, m := range bad {
		_, differs := errors.AsType[*verify.MismatchError](m.Err)
		fmt.Printf("%d bytes at %d of the image differ: %t\n", m.Length, m.Offset, differs)
	}
	reopen := func(context.Context) (update.ImageCloser, error) { return stream{Reader: bytes.NewReader(image)}, nil }
	fmt.Println("repair:", b.Repair(context.Background(), medium, bad, reopen))
	fmt.Println("repaired:", bytes.Equal(medium[8192:8192+len(image)], image))
	// Output:
	// 8192 bytes at 0 of the image differ: true
	// repair: <nil>
	// repaired: true
}
