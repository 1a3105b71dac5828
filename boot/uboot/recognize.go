package uboot

import (
	"bytes"
	"strings"
)

// MaxRecognized is the largest environment in bytes that [Recognize] looks for.
const MaxRecognized = 256 << 10

// Found is an environment whose place or size was not known.
type Found struct {
	Size      int    // bytes
	Redundant bool   // it has the flag byte of a redundant copy
	Text      string // its entries as stored, a line each
}

// Recognize looks for an environment at the beginning of data. Its size is the power of two, or the length of data, for which the checksum is right.
func Recognize(data []byte) (Found, bool) {
	for _, redundant := range []bool{true, false} {
		head := headerSize(redundant)
		if len(data) <= head+256 {
			return Found{}, false
		}
		// An entry is NAME=VALUE: this check avoids the checksums of nearly all blocks.
		if first, _, _ := bytes.Cut(data[head:head+256], []byte("=")); len(first) == 0 || len(first) > 64 || bytes.ContainsFunc(first, func(r rune) bool { return r <= ' ' || r > '~' }) {
			continue
		}
		for size := 1 << 10; size <= MaxRecognized; size *= 2 {
			size := min(size, len(data))
			if checksum(data[:size], redundant) != nil {
				continue
			}
			if e, err := parse(data[:size], redundant); err == nil {
				return Found{size, redundant, strings.Join(e.entries, "\n")}, true
			}
		}
	}
	return Found{}, false
}
