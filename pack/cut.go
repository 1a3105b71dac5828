package pack

import (
	"encoding/binary"
	"iter"
)

// part is the content of one frame: data or zeros.
type part struct {
	Range
	zero bool
}

// cut divides an image into parts, ascending and without gaps.
func cut(image Image) iter.Seq[part] {
	return func(yield func(part) bool) {
		var at int64
		upTo := func(end, most int64, zero bool) bool {
			for at < end {
				n := min(end-at, most)
				if !yield(part{Range{at, n}, zero}) {
					return false
				}
				at += n
			}
			return true
		}
		for _, r := range image.Ranges {
			if !upTo(r.Offset, maxZeros, true) || !upTo(r.Offset+r.Length, MaxFrame, false) {
				return
			}
		}
		upTo(image.Size, maxZeros, true)
	}
}

// zeroFrame returns a frame of n zeros (RFC 8878, section 3.1.1) with a window and blocks of 128 KiB: 4 bytes per block.
func zeroFrame(n int64) []byte {
	const window = 128 << 10
	const (
		contentSize8 = 3 << 6 // the frame header has a content size of 8 bytes
		windowLog17  = 7 << 3 // 2^(10+7) bytes
		repeated     = 1 << 1 // RLE block
		last         = 1      // last block
	)
	frame := append([]byte("\x28\xb5\x2f\xfd"), contentSize8, windowLog17)
	frame = binary.LittleEndian.AppendUint64(frame, uint64(n))
	for n > 0 {
		length := min(n, window)
		n -= length
		head := uint32(length)<<3 | repeated
		if n == 0 {
			head |= last
		}
		frame = append(frame, byte(head), byte(head>>8), byte(head>>16), 0)
	}
	return frame
}
