package pack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// The seek table of the zstd seekable format 0.1.0 (facebook/zstd, contrib/seekable_format): a skippable frame at the end of the
// file with the compressed and decompressed length of each frame.
const (
	tableMagic  = 0x184D2A5E
	footerMagic = 0x8F92EAB1
	footerSize  = 9
	headSize    = 8
	entrySize   = 8
)

// maxFrames is the largest number of frames in a file that Write writes: 4 Mi ranges, the limit of a bmap, and the gaps between them.
const maxFrames = 8 << 20

// Frames returns how many frames a packed image of size bytes with so many ranges of data may have: those of [Write], with the index.
func Frames(size int64, ranges int) int {
	return 2*ranges + 2 + int(min(size/MaxFrame, maxFrames))
}

// Frame is the place of a frame. All values are bytes.
type Frame struct {
	At, Packed     int64 // in the file
	Offset, Length int64 // in the image
}

// ErrNoTable reports that a file does not end in a seek table.
var ErrNoTable = errors.New("no seek table at the end of the file")

// ReadTable reads the seek table of a file of size bytes. The frames it returns are adjacent and cover the file from its start to
// the table. A table of more than limit frames is refused before it is read: use [Frames] of the signed map. Memory is at most 44 bytes per
// frame. The table is unsigned, so the decoded frames have to be verified. Errors: [ErrNoTable], errors of r, and others for an invalid table.
func ReadTable(r io.ReaderAt, size int64, limit int) ([]Frame, error) {
	var footer [footerSize]byte
	if size < headSize+footerSize {
		return nil, ErrNoTable
	}
	if _, err := r.ReadAt(footer[:], size-footerSize); err != nil && err != io.EOF {
		return nil, fmt.Errorf("reading the end of the seek table: %w", err)
	}
	if binary.LittleEndian.Uint32(footer[5:]) != footerMagic {
		return nil, ErrNoTable
	}
	count, flags := int64(binary.LittleEndian.Uint32(footer[:])), footer[4]
	if flags&0x7c != 0 {
		return nil, fmt.Errorf("seek table: descriptor is %#02x, expected reserved bits 0x7c to be zero", flags)
	}
	width := int64(entrySize)
	if flags&0x80 != 0 {
		width += 4 // checksum of each frame
	}
	total := headSize + count*width + footerSize
	if count > int64(limit) || total > size {
		return nil, fmt.Errorf("seek table: found %d frames, expected at most %d", count, min(int64(limit), size/width))
	}
	table := make([]byte, total-footerSize)
	if _, err := r.ReadAt(table, size-total); err != nil {
		return nil, fmt.Errorf("reading the seek table: %w", err)
	}
	return parse(table, count, width, size-total)
}

// parse parses the header and the entries of a table at offset end of the file.
func parse(table []byte, count, width, end int64) ([]Frame, error) {
	magic, length := binary.LittleEndian.Uint32(table), binary.LittleEndian.Uint32(table[4:])
	if magic != tableMagic || int64(length) != count*width+footerSize {
		return nil, fmt.Errorf("seek table: header is %#08x, %d bytes; expected %#08x, %d bytes",
			magic, length, tableMagic, count*width+footerSize)
	}
	frames := make([]Frame, count)
	var at, offset int64
	for i := range frames {
		entry := table[headSize+int64(i)*width:]
		f := Frame{At: at, Packed: int64(binary.LittleEndian.Uint32(entry)), Offset: offset, Length: int64(binary.LittleEndian.Uint32(entry[4:]))}
		if f.Packed == 0 {
			return nil, fmt.Errorf("seek table: frame %d is empty", i)
		}
		at, offset = at+f.Packed, offset+f.Length
		frames[i] = f
	}
	if at != end {
		return nil, fmt.Errorf("seek table: the frames end at %d, expected %d, the start of the table", at, end)
	}
	return frames, nil
}

// table encodes the seek table.
func table(frames []Frame) ([]byte, error) {
	if len(frames) > maxFrames {
		return nil, fmt.Errorf("the image has %d frames, expected at most %d; make the bmap with a larger --max-range", len(frames), maxFrames)
	}
	out := binary.LittleEndian.AppendUint32(nil, tableMagic)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(frames)*entrySize+footerSize))
	for _, f := range frames {
		if f.Packed > math.MaxUint32 || f.Length > math.MaxUint32 {
			return nil, fmt.Errorf("internal error: a frame of %d bytes", f.Length)
		}
		out = binary.LittleEndian.AppendUint32(out, uint32(f.Packed))
		out = binary.LittleEndian.AppendUint32(out, uint32(f.Length))
	}
	out = binary.LittleEndian.AppendUint32(out, uint32(len(frames)))
	out = append(out, 0)
	return binary.LittleEndian.AppendUint32(out, footerMagic), nil
}
