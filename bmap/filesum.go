package bmap

import "bytes"

// span is a run of bytes of the file, to is exclusive.
type span struct{ from, to int }

// fileChecksum hashes the whole raw file as if the digits of the checksum's own value, at own, were ASCII zeros. The
// place is exact: bmaptool instead blanks the first occurrence of the same digits anywhere in the file, which is
// equivalent unless the hash has a known fixed point.
func fileChecksum(data []byte, own span, a algorithm) []byte {
	h := a.new()
	h.Write(data[:own.from])
	h.Write(bytes.Repeat([]byte("0"), own.to-own.from))
	h.Write(data[own.to:])
	return h.Sum(nil)
}
