// Package source opens an image where it is and hands out its decoded bytes.
//
// The origin (a file, a block device, a stream, an HTTP server) and the codec (raw, gzip, zstd, xz, lz4, bzip2) are separate:
// an origin is an io.Reader, a codec is found by the first bytes, never by the name.
//
// What it guarantees: [Image.Read] returns io.EOF only after the container has ended properly, that is after
// its end mark and its checksum, with nothing behind them, so that a truncated image is an error at every
// byte. Concatenated gzip members, zstd and lz4 frames (also skippable ones), xz streams (with their padding)
// and bzip2 streams are one image; such a file that was cut exactly between two of them cannot be told from a
// whole one. Memory is bounded by [Limits], whatever the container asks for.
//
// A [Client] fetches one unchanging file over as many HTTP requests as a bad link takes; an answer that cannot
// belong to that file ends it.
//
// What it does not: a codec's checksum is no signature, and a raw image has none at all; the caller compares
// the bytes with signed ones. The decoded length is not limited either; the caller knows it from the signed
// map. A raw image whose own first bytes are a codec's magic is taken for that codec: compress it to install
// it.
package source

import (
	"fmt"
)

// Limits bound the memory that a container may ask for. The zero value is the default.
type Limits struct {
	ZstdWindow int64 // bytes, at least 1 KiB; 0 is 8 MiB, which zstd needs up to level 19
	XZDict     int64 // bytes; 0 is 16 MiB, which xz needs up to level 7
	Frames     int   // of a seek table; 0 is 256 Ki. Use [pack.Frames] of the signed map
}

// Defaults of Limits: with them an install stays below 32 MiB of memory, and below 48 MiB for xz.
const (
	defaultZstdWindow = 8 << 20
	defaultXZDict     = 16 << 20
	defaultFrames     = 256 << 10 // 11 MiB
)

// withDefaults fills in the defaults, and refuses what cannot be meant.
func (l Limits) withDefaults() (Limits, error) {
	if l.ZstdWindow < 0 || l.XZDict < 0 || l.XZDict > 1<<32-1 {
		return l, fmt.Errorf("limits of a zstd window of %d bytes and an xz dictionary of %d bytes: expected 0 to 4 GiB", l.ZstdWindow, l.XZDict)
	}
	if l.ZstdWindow == 0 {
		l.ZstdWindow = defaultZstdWindow
	}
	if l.XZDict == 0 {
		l.XZDict = defaultXZDict
	}
	if l.Frames <= 0 {
		l.Frames = defaultFrames
	}
	return l, nil
}

// CorruptError says that an image cannot be decoded to its proper end: it is damaged, truncated, goes on
// behind its end, or asks for more than [Limits] allow. A truncated one wraps io.ErrUnexpectedEOF. An error
// of the origin, such as of the medium, is never a CorruptError.
type CorruptError struct {
	Name, Codec string
	Offset      int64 // decoded bytes before the error
	Err         error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s: %s data after %d decoded bytes: %v", e.Name, e.Codec, e.Offset, e.Err)
}

func (e *CorruptError) Unwrap() error { return e.Err }

// TrailingError says that an image goes on after its expected end.
type TrailingError struct {
	Name   string
	Offset int64 // of the first byte too many, decoded
}

func (e *TrailingError) Error() string {
	return fmt.Sprintf("%s: goes on after its expected end at %d", e.Name, e.Offset)
}
