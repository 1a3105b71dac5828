// Package source opens an image where it is and returns its decoded bytes.
//
// Origin and codec are independent. An origin is a file, a block device, a stream or an HTTP server; the codec is detected by the
// first bytes, never by the name. [Open] and [NewImage] open local images, a [Client] those of servers. [FindBmap] and
// [FindSignature] find the documents beside an image.
//
// # Guarantees
//
//   - [Image.Read] returns io.EOF only after the proper end of the container: its end mark, its checksum, and nothing after it. A
//     truncated image is an error at every byte. Concatenated gzip members, zstd and lz4 frames (including skippable ones), xz streams
//     (with padding) and bzip2 streams are one image; a file cut exactly between two of them cannot be distinguished from a whole one.
//   - Memory is bounded by [Limits], whatever the container asks for. Which files are accepted does not depend on cores or memory.
//   - Containers that are not supported, such as zip, tar or Android sparse images, are refused by name, also within a compression.
//   - A [Client] delivers a file over as many requests as a bad link and a peculiar server take. Credentials go to the first host
//     only. Messages contain no user information and no queries.
//   - Opening a local file never blocks; FIFOs, terminals and other devices are refused.
//
// # Limits
//
// The checksum of a codec is not a signature, and a raw image has none. Over HTTP the bytes may even be those of two versions of a
// file. The caller compares all bytes with signed checksums. The decoded length is not limited; the caller knows it from the
// signed map. A raw image that begins with the magic of a codec or a container is taken for it: compress it.
package source

import (
	"fmt"
)

// Limits bound the memory for a container. The zero value is the default.
type Limits struct {
	ZstdWindow int64 // bytes, at least 1 KiB; 0 is 8 MiB, enough for zstd up to level 19
	XZDict     int64 // bytes; 0 is 16 MiB, enough for xz up to level 7
	Frames     int   // entries of a seek table; 0 is 256 Ki. Use [pack.Frames] for a signed map
}

// Defaults of Limits. With them an install takes less than 32 MiB of memory, and less than 48 MiB for xz.
const (
	defaultZstdWindow = 8 << 20
	defaultXZDict     = 16 << 20
	defaultFrames     = 256 << 10 // 11 MiB
)

// withDefaults sets the defaults and refuses values out of range.
func (l Limits) withDefaults() (Limits, error) {
	if l.ZstdWindow < 0 || l.XZDict < 0 || l.XZDict > 1<<32-1 {
		return l, fmt.Errorf("zstd window of %d bytes, xz dictionary of %d bytes: expected 0 to 4 GiB", l.ZstdWindow, l.XZDict)
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

// A CorruptError reports an image that cannot be decoded to its proper end: it is damaged, truncated, followed by other data, or exceeds
// [Limits]. For a truncated image it wraps io.ErrUnexpectedEOF. Errors of the origin, such as read errors of a medium, are never
// CorruptErrors.
type CorruptError struct {
	Name, Codec string
	Offset      int64 // decoded bytes before the error
	Err         error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s: %s data after %d decoded bytes: %v", e.Name, e.Codec, e.Offset, e.Err)
}

func (e *CorruptError) Unwrap() error { return e.Err }

// A LimitError reports a container that needs more memory than [Limits] allow. It is the Err of a [CorruptError].
type LimitError struct {
	What  string // "zstd window" or "xz dictionary"
	Need  int64  // bytes; 0 if unknown
	Limit int64  // bytes
}

func (e *LimitError) Error() string {
	need := ""
	if e.Need > 0 {
		need = " of " + formatSize(e.Need)
	}
	return fmt.Sprintf("the %s%s exceeds the limit of %s; raise it, or compress with a smaller one", e.What, need, formatSize(e.Limit))
}

// A TrailingError reports an image that continues after its expected end.
type TrailingError struct {
	Name   string
	Offset int64 // of the first excess byte, decoded
}

func (e *TrailingError) Error() string {
	return fmt.Sprintf("%s: image continues after its expected end at %d", e.Name, e.Offset)
}
