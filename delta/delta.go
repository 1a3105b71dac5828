// Package delta makes and applies deltas between two images: one zstd frame for each group of ranges of the new image, compressed against a raw
// dictionary of windows of the old one. A device makes a group from its own old image and the few bytes of the frame, in any order.
//
// # Format, version 1
//
// A file is zstd frames (RFC 8878) one after the other, and a skippable frame, magic 0x184D2A5D, with the table: the sha256 of the block maps of
// both images, the size of the old one, the windows in use, each with the CRC-32C of its bytes, and for each group its packed length, its length
// and its windows. Numbers are varints, positions are relative to the one before. The table ends with its length, its CRC-32C, the version and a
// magic, 16 bytes in all. A dictionary is its windows in ascending order; the frame names none, so that zstd -D decodes it.
//
// # Guarantees
//
//   - Equal images, ranges and checksums give equal bytes, on any number of cores.
//   - [ReadTable] reads no more than the table, and no table longer than the ranges of the new image allow; memory is in proportion to it.
//   - Decoding a group takes at most [MaxDictionary], twice [MaxRange] and the state of the decoder, whatever the frame contains.
//
// # Limits
//
// Nothing in a delta is signed, and the old image may have changed: compare every range that a delta makes with its signed checksum.
package delta

import (
	"fmt"
	"io"

	"updater/pack"
)

// The sizes of version 1, chosen by measurement (docs/performance.md).
const (
	WindowSize    = 64 << 10  // bytes; a window begins at a multiple of it, and the last one of an image may be shorter
	MaxWindows    = 32        // of a dictionary
	MaxDictionary = 2 << 20   // bytes
	groupSize     = 512 << 10 // bytes of the new image in a group of several ranges
	MaxRange      = 1 << 20   // bytes; a longer range is in no delta
)

// Name is the name of the delta for an image file, from the image whose block map has the given checksum.
func Name(image string, base [32]byte) string { return fmt.Sprintf("%s.%x.delta", image, base[:8]) }

// group is a run of ranges that one frame holds, without the gaps between them.
type group struct {
	first, count int
	length       int64 // 0 for a range that is longer than MaxRange
}

// groups divides ascending ranges.
func groups(ranges []pack.Range) []group {
	var all []group
	for i, r := range ranges {
		if n := len(all); n > 0 && all[n-1].length > 0 && all[n-1].length+r.Length <= groupSize {
			all[n-1].count++
			all[n-1].length += r.Length
			continue
		}
		g := group{first: i, count: 1, length: r.Length}
		if r.Length > MaxRange {
			g.length = 0
		}
		all = append(all, g)
	}
	return all
}

// readWindows appends windows of the old image to buf.
func readWindows(buf []byte, old io.ReaderAt, windows []Window) ([]byte, error) {
	for _, w := range windows {
		at := len(buf)
		buf = buf[:at+w.Length]
		if n, err := old.ReadAt(buf[at:], w.Offset); n < w.Length {
			return buf, fmt.Errorf("reading the old image at %d: %w", w.Offset+int64(n), noEOF(err))
		}
	}
	return buf, nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
