package pack

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sort"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// The index of blocks is the last frame of a packed image, a skippable one of no length in the seek table: the version, then the first 5
// bytes of the sha256 of each block of BlockSize bytes in each range. The last block of a range may be shorter.
const (
	// BlockSize is the length of a block in bytes. A block is found in another image where it begins at a multiple of it.
	BlockSize = 4096
	// MaxBlocks is the largest number of blocks of an image with an index, 4 GiB: finding them takes 17 bytes of memory for each.
	MaxBlocks = 1 << 20

	indexMagic   = 0x184D2A5C
	indexVersion = 1
	indexHead    = 12 // magic, length, version
	sumSize      = 5
	ordinalBits  = 64 - 8*sumSize
)

func blocksOf(length int64) int { return int((length + BlockSize - 1) / BlockSize) }

// appendSums appends the checksums of the blocks of data.
func appendSums(sums, data []byte) []byte {
	for block := range slices.Chunk(data, BlockSize) {
		sum := sha256.Sum256(block)
		sums = append(sums, sum[:sumSize]...)
	}
	return sums
}

// index encodes the frame of an index; nil for an image of no blocks, or of too many.
func index(sums []byte) []byte {
	if len(sums) == 0 || len(sums) > MaxBlocks*sumSize {
		return nil
	}
	out := binary.LittleEndian.AppendUint32(nil, indexMagic)
	out = binary.LittleEndian.AppendUint32(out, uint32(4+len(sums)))
	return append(binary.LittleEndian.AppendUint32(out, indexVersion), sums...)
}

// Index finds the blocks of an image in another one. Nothing in it is trusted: compare ranges made of blocks with signed checksums.
type Index struct {
	ranges []Range
	first  []int  // block of each range
	sums   []byte // nil after Find
	place  []uint32
}

// IndexSize returns the length of the index of a packed image in its file, 0 without one that may belong to these ranges.
func IndexSize(frames []Frame, ranges []Range) int64 {
	blocks := int64(0)
	for _, r := range ranges {
		blocks += int64(blocksOf(min(r.Length, MaxBlocks*BlockSize)))
	}
	if n := len(frames); n > 0 && frames[n-1].Length == 0 && blocks <= MaxBlocks && frames[n-1].Packed == indexHead+blocks*sumSize {
		return frames[n-1].Packed
	}
	return 0
}

// ReadIndex reads the index of a packed image for which [IndexSize] is not 0. Errors: those of r, and others for an invalid one.
func ReadIndex(r io.ReaderAt, frames []Frame, ranges []Range) (*Index, error) {
	last := frames[len(frames)-1]
	data := make([]byte, last.Packed)
	if n, err := r.ReadAt(data, last.At); n < len(data) {
		return nil, fmt.Errorf("reading the index of blocks: %w", noEOF(err))
	}
	magic, length, version := binary.LittleEndian.Uint32(data), binary.LittleEndian.Uint32(data[4:]), binary.LittleEndian.Uint32(data[8:])
	if magic != indexMagic || int(length) != len(data)-8 || version != indexVersion {
		return nil, fmt.Errorf("index of blocks: header is %#08x, %d bytes, version %d; expected %#08x, %d bytes, version %d",
			magic, length, version, indexMagic, len(data)-8, indexVersion)
	}
	x := &Index{ranges: ranges, first: make([]int, len(ranges)+1), sums: data[indexHead:]}
	for i, r := range ranges {
		x.first[i+1] = x.first[i] + blocksOf(r.Length)
	}
	if x.first[len(ranges)]*sumSize != len(x.sums) {
		return nil, fmt.Errorf("index of blocks: it has %d bytes, the ranges of the image need %d", len(x.sums), x.first[len(ranges)]*sumSize)
	}
	return x, nil
}

// key is a checksum, left-aligned.
func key(sum []byte) uint64 {
	return uint64(binary.BigEndian.Uint32(sum))<<32 | uint64(sum[4])<<24
}

// Find reads an old image of size bytes and looks for the blocks of the ranges that are wanted, on at most two goroutines. Unreadable bytes hold
// no block. It is called once. progress, which may be nil, is called with the bytes read since. The error is the cause of a cancelled context.
func (x *Index) Find(ctx context.Context, old io.ReaderAt, size int64, want []int, progress func(n int64)) error {
	keys := make([]uint64, 0, len(x.sums)/sumSize) // checksum and ordinal of a block
	for _, i := range want {
		for b := x.first[i]; b < x.first[i]+int(x.ranges[i].Length/BlockSize); b++ {
			keys = append(keys, key(x.sums[b*sumSize:])|uint64(b))
		}
	}
	slices.Sort(keys)
	x.place, x.sums = make([]uint32, len(x.sums)/sumSize), nil
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range min(runtime.GOMAXPROCS(0), 2) {
		group.Go(func() error {
			buf := make([]byte, 64*BlockSize)
			for {
				at := (next.Add(1) - 1) * int64(len(buf))
				if at >= size || ctx.Err() != nil {
					return context.Cause(ctx)
				}
				n, _ := old.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
				x.look(keys, buf[:n], at)
				if progress != nil {
					progress(int64(n))
				}
			}
		})
	}
	err := group.Wait()
	for n := 1; n < len(keys); n++ { // equal blocks
		if a, b := keys[n-1], keys[n]; a>>ordinalBits == b>>ordinalBits {
			x.place[ordinal(b)] = x.place[ordinal(a)]
		}
	}
	return err
}

func ordinal(key uint64) int { return int(key & (1<<ordinalBits - 1)) }

// look looks up the blocks of data, which is at an offset of the old image. Only the first of equal blocks gets a place.
func (x *Index) look(keys []uint64, data []byte, at int64) {
	for ; len(data) >= BlockSize; data, at = data[BlockSize:], at+BlockSize {
		sum := sha256.Sum256(data[:BlockSize])
		k := key(sum[:])
		n := sort.Search(len(keys), func(n int) bool { return keys[n] >= k })
		if n < len(keys) && keys[n]>>ordinalBits == k>>ordinalBits {
			atomic.StoreUint32(&x.place[ordinal(keys[n])], uint32(at/BlockSize+1))
		}
	}
}

// Piece is a part of a range, in bytes of the image. From is its place in the old image, -1 if it has to be fetched.
type Piece struct{ Offset, Length, From int64 }

// Pieces divides a range. If a block has to be fetched, all blocks of its frame are.
func (x *Index) Pieces(frames []Frame, i int) (pieces []Piece) {
	r := x.ranges[i]
	for n := sort.Search(len(frames), func(n int) bool { return frames[n].Offset+frames[n].Length > r.Offset }); n < len(frames); n++ {
		from, to := max(frames[n].Offset, r.Offset), min(frames[n].Offset+frames[n].Length, r.Offset+r.Length)
		if from >= r.Offset+r.Length {
			break
		}
		if from < to {
			pieces = x.piecesOf(pieces, i, from, to)
		}
	}
	return pieces
}

// piecesOf appends the pieces of a frame's part of a range.
func (x *Index) piecesOf(pieces []Piece, i int, from, to int64) []Piece {
	r, known := x.ranges[i], len(pieces)
	for at := from; at < to; {
		b := (at - r.Offset) / BlockSize
		in := at - r.Offset - b*BlockSize // a frame of another program may begin within a block
		p := Piece{at, min(BlockSize-in, to-at), int64(x.place[x.first[i]+int(b)])*BlockSize - BlockSize + in}
		if p.From < 0 {
			pieces = append(pieces[:known], Piece{from, to - from, -1})
			break
		}
		if n := len(pieces); n > known && pieces[n-1].From+pieces[n-1].Length == p.From {
			pieces[n-1].Length += p.Length
		} else {
			pieces = append(pieces, p)
		}
		at += p.Length
	}
	return pieces
}
