package bmap

import (
	"encoding/hex"
	"fmt"
)

// Part makes the map of a part of the image, such as a partition of a disk: of length bytes from offset. Both are
// multiples of the block size, unless the part reaches to the image's end. A range inside the part keeps its checksum. A range
// that is partly outside is clipped, and sum returns the checksum of the remaining bytes (a span of the whole image), in hex;
// it must compare the whole range with the map first. The update element stays, without the checksum of the whole image.
func (m *Map) Part(offset, length int64, sum func(index int, inside Span) (string, error)) (*Map, error) {
	end := offset + length
	if offset < 0 || length < 1 || length > m.imageSize-offset || offset%m.blockSize != 0 || end%m.blockSize != 0 && end != m.imageSize {
		return nil, fmt.Errorf("part of %d bytes at %d of an image of %d: expected whole blocks of %d bytes", length, offset, m.imageSize, m.blockSize)
	}
	part := &Map{version: m.version, imageSize: length, blockSize: m.blockSize, algorithm: m.algorithm, update: m.Update()}
	if part.update != nil {
		part.update.ImageChecksum = ""
	}
	first, last := offset/m.blockSize, ceilDiv(end, m.blockSize)-1
	for i, b := range m.blocks {
		if b.last < first || b.first > last {
			continue
		}
		inside := blockRange{max(b.first, first), min(b.last, last)}
		summed := m.summed[i]
		digest := make([]byte, m.algorithm.size)
		if summed {
			copy(digest, m.sum(i))
		}
		if inside != b && summed {
			from := inside.first * m.blockSize
			text, err := sum(i, Span{from, min((inside.last+1)*m.blockSize, m.imageSize) - from})
			if err != nil {
				return nil, err
			}
			if digest, err = hex.DecodeString(text); err != nil || len(digest) != m.algorithm.size {
				return nil, fmt.Errorf("internal error: %q is no %s", text, m.algorithm.name)
			}
		}
		part.blocks = append(part.blocks, blockRange{inside.first - first, inside.last - first})
		part.sums, part.summed = append(part.sums, digest...), append(part.summed, summed)
		part.mappedBlocks += inside.last - inside.first + 1
	}
	return part, nil
}
