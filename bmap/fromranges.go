package bmap

import (
	"encoding/hex"
	"fmt"
)

// FromRanges makes the map of an image from ranges that the caller has hashed. It uses Offset, Length and Checksum (hex, may be
// "") of each. Offsets are ascending multiples of DefaultBlockSize; so are lengths, except at the end of the image.
func FromRanges(imageSize int64, checksumType string, ranges []Range) (*Map, error) {
	m, err := CreateOptions{ChecksumType: checksumType}.newMap()
	if err != nil {
		return nil, err
	}
	if imageSize < 1 || imageSize > MaxImageSize || len(ranges) > MaxRanges {
		return nil, fmt.Errorf("map of %d bytes in %d ranges, expected 1 to %d bytes and at most %d ranges", imageSize, len(ranges), int64(MaxImageSize),
			MaxRanges)
	}
	m.imageSize = imageSize
	end := int64(0)
	for i, r := range ranges {
		if r.Offset < end || r.Offset%m.blockSize != 0 || r.Length < 1 || r.Length > imageSize-r.Offset ||
			r.Length%m.blockSize != 0 && r.Offset+r.Length != imageSize {
			return nil, fmt.Errorf("range %d is %d bytes at byte %d, after byte %d of %d", i, r.Length, r.Offset, end, imageSize)
		}
		sum, err := hex.DecodeString(r.Checksum)
		if err != nil || len(sum) != m.algorithm.size && len(sum) != 0 {
			return nil, fmt.Errorf("range %d has the checksum %.140q, expected %d hex digits (%s)", i, r.Checksum, 2*m.algorithm.size, m.algorithm.name)
		}
		end = r.Offset + r.Length
		b := blockRange{r.Offset / m.blockSize, (end - 1) / m.blockSize}
		m.blocks, m.summed = append(m.blocks, b), append(m.summed, len(sum) > 0)
		m.sums = append(m.sums, append(sum, make([]byte, m.algorithm.size-len(sum))...)...)
		m.mappedBlocks += b.last - b.first + 1
	}
	return m, nil
}
