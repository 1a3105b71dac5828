package bmap

import (
	"encoding/hex"
	"strconv"
)

// Encode returns the map as a bmap 2.0 file, whatever version it was read from. The same Map gives the same bytes, the
// file checksum is right, and both Parse and bmaptool accept the result. The caller owns the slice.
func (m *Map) Encode() []byte {
	b := make([]byte, 0, 1024+len(m.blocks)*m.algorithm.encodedRangeSize(m.BlocksCount()))
	b = append(b, "<?xml version=\"1.0\" ?>\n"+
		"<!-- Block map of a disk image: the ranges of blocks that carry data. -->\n"+
		"<bmap version=\"2.0\">\n"...)
	b = appendElement(b, "    ", "ImageSize", strconv.FormatInt(m.imageSize, 10))
	b = appendElement(b, "    ", "BlockSize", strconv.FormatInt(m.blockSize, 10))
	b = appendElement(b, "    ", "BlocksCount", strconv.FormatInt(m.BlocksCount(), 10))
	b = appendElement(b, "    ", "MappedBlocksCount", strconv.FormatInt(m.mappedBlocks, 10))
	b = appendElement(b, "    ", "ChecksumType", m.algorithm.name)
	b = append(b, "    <BmapFileChecksum> "...)
	sum := span{len(b), len(b) + 2*m.algorithm.size}
	for range sum.to - sum.from {
		b = append(b, '0')
	}
	b = append(b, " </BmapFileChecksum>\n"...)
	b = m.appendUpdate(b)
	b = m.appendRanges(b)
	b = append(b, "</bmap>\n"...)
	hex.Encode(b[sum.from:sum.to], fileChecksum(b, sum, m.algorithm))
	return b
}

func (m *Map) appendUpdate(b []byte) []byte {
	if m.update == nil {
		return b
	}
	b = append(b, "    <Update>\n"...)
	for _, f := range updateFields() {
		if text := f.get(m.update); text != "" {
			b = appendElement(b, "        ", f.name, text)
		}
	}
	return append(b, "    </Update>\n"...)
}

func (m *Map) appendRanges(b []byte) []byte {
	b = append(b, "    <BlockMap>\n"...)
	for i, r := range m.blocks {
		b = append(b, "        <Range"...)
		if m.summed[i] {
			b = append(b, ` chksum="`...)
			b = hex.AppendEncode(b, m.sum(i))
			b = append(b, '"')
		}
		b = append(b, "> "...)
		b = strconv.AppendInt(b, r.first, 10)
		if r.last != r.first {
			b = append(b, '-')
			b = strconv.AppendInt(b, r.last, 10)
		}
		b = append(b, " </Range>\n"...)
	}
	return append(b, "    </BlockMap>\n"...)
}

// encodedRangeSize bounds the bytes one range takes in an image of so many blocks.
func (a algorithm) encodedRangeSize(blocks int64) int {
	const frame = len(`        <Range chksum=""> - </Range>` + "\n")
	return frame + 2*a.size + 2*len(strconv.FormatInt(blocks, 10))
}

func appendElement(b []byte, indent, name, text string) []byte {
	b = append(b, indent+"<"+name+"> "...)
	b = append(b, text...)
	return append(b, " </"+name+">\n"...)
}
