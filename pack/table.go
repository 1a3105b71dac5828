package pack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// The seek table of the zstd seekable format (version 0.1.0, facebook/zstd, contrib/seekable_format): a skippable
// frame at the end of the file with the two lengths of each frame.
const (
	tableMagic  = 0x184D2A5E
	footerMagic = 0x8F92EAB1
	footerSize  = 9
	headSize    = 8
	entrySize   = 8
)

// MaxFrames bounds the frames of a file that ReadTable takes: 4 Mi, as many as a bmap has ranges, and gaps.
const MaxFrames = 8 << 20

// Frame is where one frame is, in the file and in the image. All are bytes.
type Frame struct {
	At, Packed     int64 // in the file
	Offset, Length int64 // in the image
}

// ErrNoTable is returned by ReadTable for a file that does not end in a seek table.
var ErrNoTable = errors.New("no seek table at the end of the file")

// ReadTable reads the seek table of a file of size bytes. It accounts for every byte of the file: frames that
// follow each other from its start, then the table. A table is a hint that nobody has signed: what it says of the
// image has to be checked with the image's own checksums. It never reads more than the table.
func ReadTable(r io.ReaderAt, size int64) ([]Frame, error) {
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
		return nil, fmt.Errorf("seek table: flags are %#02x, of which 0x7c are reserved", flags)
	}
	width := int64(entrySize)
	if flags&0x80 != 0 {
		width += 4 // a checksum of each frame, which the frame has too
	}
	total := headSize + count*width + footerSize
	if count > MaxFrames || total > size {
		return nil, fmt.Errorf("seek table: %d frames, in a file of %d bytes; expected at most %d", count, size, min(MaxFrames, size/width))
	}
	table := make([]byte, total-footerSize)
	if _, err := r.ReadAt(table, size-total); err != nil {
		return nil, fmt.Errorf("reading the seek table: %w", err)
	}
	return parse(table, count, width, size-total)
}

// parse reads the head and the entries of a table that begins at byte end of the file.
func parse(table []byte, count, width, end int64) ([]Frame, error) {
	if magic, length := binary.LittleEndian.Uint32(table), binary.LittleEndian.Uint32(table[4:]); magic != tableMagic || int64(length) != count*width+footerSize {
		return nil, fmt.Errorf("seek table: its head is %#08x, %d bytes; expected %#08x, %d", magic, length, tableMagic, count*width+footerSize)
	}
	frames := make([]Frame, count)
	var at, offset int64
	for i := range frames {
		entry := table[headSize+int64(i)*width:]
		f := Frame{At: at, Packed: int64(binary.LittleEndian.Uint32(entry)), Offset: offset, Length: int64(binary.LittleEndian.Uint32(entry[4:]))}
		if f.Packed == 0 {
			return nil, fmt.Errorf("seek table: frame %d has no bytes", i)
		}
		at, offset = at+f.Packed, offset+f.Length
		frames[i] = f
	}
	if at != end {
		return nil, fmt.Errorf("seek table: its frames end at byte %d, expected %d, where it begins", at, end)
	}
	return frames, nil
}

// table writes the seek table of frames.
func table(frames []Frame) ([]byte, error) {
	if len(frames) > MaxFrames {
		return nil, fmt.Errorf("%d frames, expected at most %d; make the bmap with a larger --max-range", len(frames), MaxFrames)
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
