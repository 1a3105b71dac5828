package pack

import (
	"encoding/binary"
	"iter"
)

// part is what becomes a frame: a run of data, or of zeros.
type part struct {
	Range
	zero bool
}

// cut yields the frames of an image, ascending, without a gap.
func cut(size int64, ranges []Range) iter.Seq[part] {
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
		for _, r := range ranges {
			most := int64(MaxFrame)
			if r.Length <= 2*MaxFrame {
				most = r.Length
			}
			if !upTo(r.Offset, maxZeros, true) || !upTo(r.Offset+r.Length, most, false) {
				return
			}
		}
		upTo(size, maxZeros, true)
	}
}

// zeroFrame is a frame (RFC 8878, section 3.1.1) of n zeros, with a window of 128 KiB and as many to a block: 4
// bytes for each.
func zeroFrame(n int64) []byte {
	const window = 128 << 10
	const (
		lengthOf8 = 3 << 6 // the frame's head has its content size in 8 bytes
		logOf17   = 7 << 3 // 2^(10+7)
		repeated  = 1 << 1 // a block of one byte, repeated
		last      = 1      // block
	)
	frame := append([]byte("\x28\xb5\x2f\xfd"), lengthOf8, logOf17)
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
