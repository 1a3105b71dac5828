// Package bmap reads, writes, creates and verifies block maps: XML files that list the blocks of an image with data, and a
// checksum for each range of them.
//
// [Parse] returns a Map only if the file is a complete and consistent map: one root element of a known version, no duplicate or missing element,
// no DOCTYPE, plain decimal integers, ranges ascending, disjoint and inside the image, every count equal to what it counts, and the file's own
// checksum (in all versions but 1.2) correct over the raw bytes. A Map never changes after that. [Create] returns a Map only if the image did
// not change while it was read and every unmapped byte read as zero. [Verify] returns nil only if every range was read completely and matched.
//
// The package does not judge trust: a map may be unsigned, use a weak hash (sha1, md5) or lack range checksums. The installer
// decides on those before it acts on a Map. No checksum of the map covers the bytes of unmapped blocks.
//
// Offsets and lengths are bytes in int64; block numbers have block in their name. The format is the one of bmaptool:
// versions 1.2, 1.3, 1.4 and 2.x are read, 2.0 is written.
package bmap

import (
	"encoding/hex"
	"fmt"
	"hash"
	"iter"
)

// Limits on what Parse accepts and Create makes. They bound memory on hostile input.
const (
	// MaxFileSize is the largest map, in bytes of XML.
	MaxFileSize = 64 << 20
	// MaxRanges is the largest number of ranges in a map.
	MaxRanges = 1 << 20
	// HeldRange is the longest range, in bytes, that is compared before any of it is written, and looked for elsewhere.
	HeldRange = 4 << 20
	// MaxBlockSize is the largest block, in bytes. Block sizes are powers of two.
	MaxBlockSize = 16 << 20
	// MaxImageSize is the largest image, in bytes. It keeps all arithmetic on whole blocks inside int64.
	MaxImageSize = 1 << 62
)

// A Map is one valid block map. It is immutable and safe for concurrent use. Parse and Create make it; the zero value
// is not useful.
type Map struct {
	version      string
	imageSize    int64
	blockSize    int64
	mappedBlocks int64
	algorithm    algorithm
	blocks       []blockRange
	sums         []byte // one digest of algorithm.size bytes per range, zero where summed is false
	summed       []bool // whether the range has a checksum
	update       *Update
}

// blockRange is an inclusive range of block numbers.
type blockRange struct{ first, last int64 }

// A Range is a run of mapped blocks with one checksum.
type Range struct {
	First, Last int64 // block numbers, inclusive
	// Offset and Length are in bytes. The last block of an image may be partial: Length counts only bytes of the image,
	// and the checksum covers only those.
	Offset, Length int64
	Checksum       string // lower-case hex, "" if the map has none for this range
}

// A Span is a run of bytes of the image.
type Span struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

// Version returns the version of the format the map was written in, such as "2.0".
func (m *Map) Version() string { return m.version }

// ImageSize returns the size of the image in bytes, always positive.
func (m *Map) ImageSize() int64 { return m.imageSize }

// BlockSize returns the size of a block in bytes, a power of two.
func (m *Map) BlockSize() int64 { return m.blockSize }

// BlocksCount returns the number of blocks of the image, counting a partial last one.
func (m *Map) BlocksCount() int64 { return ceilDiv(m.imageSize, m.blockSize) }

// MappedBlocks returns the number of blocks in all ranges.
func (m *Map) MappedBlocks() int64 { return m.mappedBlocks }

// MappedBytes returns the number of image bytes in all ranges: the sum of their Length.
func (m *Map) MappedBytes() int64 {
	n := m.mappedBlocks * m.blockSize
	if k := len(m.blocks); k > 0 && m.blocks[k-1].last == m.BlocksCount()-1 {
		n -= m.BlocksCount()*m.blockSize - m.imageSize
	}
	return n
}

// ChecksumType returns the name of the hash: sha256, sha512, sha384, sha1 or md5. It is sha1 for versions 1.2 and 1.3.
func (m *Map) ChecksumType() string { return m.algorithm.name }

// NewHash returns a new hash of the map's ChecksumType.
func (m *Map) NewHash() hash.Hash { return m.algorithm.new() }

// Update returns a copy of the map's update element, nil if it has none.
func (m *Map) Update() *Update {
	if m.update == nil {
		return nil
	}
	u := *m.update
	return &u
}

// Len returns the number of ranges.
func (m *Map) Len() int { return len(m.blocks) }

// Range returns range i, with 0 <= i < Len(). Ranges ascend and do not overlap; they may touch.
func (m *Map) Range(i int) Range {
	b := m.blocks[i]
	offset := b.first * m.blockSize
	r := Range{
		First:  b.first,
		Last:   b.last,
		Offset: offset,
		Length: min((b.last-b.first+1)*m.blockSize, m.imageSize-offset),
	}
	if m.summed[i] {
		r.Checksum = hex.EncodeToString(m.sum(i))
	}
	return r
}

// Ranges yields every range with its index, ascending.
func (m *Map) Ranges() iter.Seq2[int, Range] {
	return func(yield func(int, Range) bool) {
		for i := range m.blocks {
			if !yield(i, m.Range(i)) {
				return
			}
		}
	}
}

// Longest returns the length of the longest range in bytes.
func (m *Map) Longest() (n int64) {
	for _, r := range m.Ranges() {
		n = max(n, r.Length)
	}
	return n
}

// Gaps yields the unmapped spans inside ImageSize, ascending, none empty and no two touching.
func (m *Map) Gaps() iter.Seq[Span] {
	return func(yield func(Span) bool) {
		next := int64(0)
		for _, b := range m.blocks {
			if from := b.first * m.blockSize; from > next && !yield(Span{next, from - next}) {
				return
			}
			next = (b.last + 1) * m.blockSize
		}
		if next < m.imageSize {
			yield(Span{next, m.imageSize - next})
		}
	}
}

// sum returns the digest of range i.
func (m *Map) sum(i int) []byte {
	n := m.algorithm.size
	return m.sums[i*n : (i+1)*n]
}

// String formats the range as in the errors of this package: "blocks 4096-8191".
func (r Range) String() string {
	if r.First == r.Last {
		return fmt.Sprintf("block %d", r.First)
	}
	return fmt.Sprintf("blocks %d-%d", r.First, r.Last)
}

// ceilDiv returns a/b rounded up, for a > 0 and b > 0, without overflow.
func ceilDiv(a, b int64) int64 { return (a-1)/b + 1 }
