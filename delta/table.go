package delta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"updater/pack"
)

const (
	version     = 1
	skippable   = 0x184D2A5D // RFC 8878, section 3.1.2
	footerMagic = 0x41544C44 // "DLTA"
	headSize    = 8
	footerSize  = 16
	maxTable    = 16 << 20 // bytes
	maxBase     = 1 << 44  // bytes of an old image
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Identity names the two images of a delta.
type Identity struct {
	Base, Target [32]byte // sha256 of the block map of the old and the new image, as signed
	BaseSize     int64    // of the old image, bytes
}

// Window is a part of the old image.
type Window struct {
	Offset int64
	Length int
	Sum    uint32 // CRC-32C of its bytes
}

// Frame is the frame of a group of ranges.
type Frame struct {
	At, Packed   int64 // in the file, bytes; Packed is 0 for a range that is not in the delta
	First, Count int   // ranges of the new map
	Length       int64 // of their bytes
	windows      []int // of Table.Windows, ascending
}

// Table describes a delta.
type Table struct {
	Identity
	Windows []Window // ascending
	Frames  []Frame  // of all ranges, ascending
	Size    int64    // of the file, bytes
}

// ErrNotDelta reports a file that is not a delta.
var ErrNotDelta = errors.New("no table of a delta at the end of the file")

// Dictionary returns the windows of the dictionary of a frame.
func (t *Table) Dictionary(f Frame) []Window {
	windows := make([]Window, len(f.windows))
	for i, w := range f.windows {
		windows[i] = t.Windows[w]
	}
	return windows
}

// ReadTable reads the table of a delta of size bytes, for a new image with the given ranges. The table is bounded by them, and unverified.
// Errors: [ErrNotDelta], errors of r, and others for an invalid table.
func ReadTable(r io.ReaderAt, size int64, ranges []pack.Range) (*Table, error) {
	var footer [footerSize]byte
	if size < headSize+footerSize {
		return nil, ErrNotDelta
	}
	if n, err := r.ReadAt(footer[:], size-footerSize); n < footerSize {
		return nil, fmt.Errorf("reading the end of the delta: %w", noEOF(err))
	}
	if binary.LittleEndian.Uint32(footer[12:]) != footerMagic {
		return nil, ErrNotDelta
	}
	length, sum, v := int64(binary.LittleEndian.Uint32(footer[:])), binary.LittleEndian.Uint32(footer[4:]), binary.LittleEndian.Uint32(footer[8:])
	if v != version {
		return nil, fmt.Errorf("the delta has version %d, expected %d", v, version)
	}
	frames := groups(ranges)
	most := int64(128 + len(frames)*(MaxWindows*(5+5+4)+12))
	if most = min(most, maxTable, size-headSize-footerSize); length > most {
		return nil, fmt.Errorf("table of the delta: it has %d bytes, expected at most %d", length, most)
	}
	data := make([]byte, headSize+length)
	start := size - footerSize - int64(len(data))
	if n, err := r.ReadAt(data, start); n < len(data) {
		return nil, fmt.Errorf("reading the table of the delta: %w", noEOF(err))
	}
	body := data[headSize:]
	if magic, n := binary.LittleEndian.Uint32(data), int64(binary.LittleEndian.Uint32(data[4:])); magic != skippable || n != length+footerSize {
		return nil, fmt.Errorf("table of the delta: header is %#08x, %d bytes; expected %#08x, %d bytes", magic, n, skippable, length+footerSize)
	}
	if got := crc32.Checksum(body, castagnoli); got != sum {
		return nil, fmt.Errorf("table of the delta: CRC-32C is %08x, expected %08x", got, sum)
	}
	t := &Table{Size: size}
	if err := t.parse(&reader{data: body}, frames, start); err != nil {
		return nil, fmt.Errorf("table of the delta: %w", err)
	}
	return t, nil
}

// parse parses the body of a table that begins at the offset end of the file.
func (t *Table) parse(r *reader, all []group, end int64) error {
	copy(t.Base[:], r.bytes(len(t.Base)))
	copy(t.Target[:], r.bytes(len(t.Target)))
	t.BaseSize = r.number("size of the old image", maxBase)
	if err := t.parseWindows(r); err != nil {
		return err
	}
	if n := r.number("frames", int64(len(all))); r.err == nil && n != int64(len(all)) {
		return fmt.Errorf("found %d frames, the ranges of the image need %d", n, len(all))
	}
	var at int64
	t.Frames = make([]Frame, 0, len(all))
	for i, g := range all {
		f := Frame{At: at, First: g.first, Count: g.count}
		f.Packed = r.number("packed length", g.length+g.length/8+64)
		f.Length = r.number("length of a frame", MaxRange)
		if r.err == nil && (f.Length != g.length || (f.Packed == 0) != (g.length == 0)) {
			return fmt.Errorf("frame %d: %d bytes, packed %d; the ranges of the image need %d", i, f.Length, f.Packed, g.length)
		}
		f.windows = r.ascending(int(r.number("windows of a frame", MaxWindows)), len(t.Windows))
		if r.err != nil {
			return fmt.Errorf("frame %d: %w", i, r.err)
		}
		at += f.Packed
		t.Frames = append(t.Frames, f)
	}
	switch {
	case len(r.data) > 0:
		return fmt.Errorf("%d bytes follow the last frame", len(r.data))
	case at != end:
		return fmt.Errorf("the frames end at %d, expected %d, the start of the table", at, end)
	}
	return nil
}

func (t *Table) parseWindows(r *reader) error {
	places := (t.BaseSize + WindowSize - 1) / WindowSize
	n := r.number("windows", min(places, int64(len(r.data)/5)))
	at := r.ascending(int(n), int(places))
	t.Windows = make([]Window, len(at))
	for i, w := range at {
		offset := int64(w) * WindowSize
		t.Windows[i] = Window{Offset: offset, Length: int(min(WindowSize, t.BaseSize-offset)), Sum: binary.LittleEndian.Uint32(r.bytes(4))}
	}
	return r.err
}

// encode appends the table to the frames of a file.
func (t *Table) encode() []byte {
	data := binary.LittleEndian.AppendUint32(nil, skippable)
	data = binary.LittleEndian.AppendUint32(data, 0) // the length
	data = append(append(data, t.Base[:]...), t.Target[:]...)
	data = binary.AppendUvarint(data, uint64(t.BaseSize))
	data = binary.AppendUvarint(data, uint64(len(t.Windows)))
	next := int64(0)
	for _, w := range t.Windows {
		data = binary.AppendUvarint(data, uint64(w.Offset/WindowSize-next))
		next = w.Offset/WindowSize + 1
	}
	for _, w := range t.Windows {
		data = binary.LittleEndian.AppendUint32(data, w.Sum)
	}
	data = binary.AppendUvarint(data, uint64(len(t.Frames)))
	for _, f := range t.Frames {
		data = binary.AppendUvarint(data, uint64(f.Packed))
		data = binary.AppendUvarint(data, uint64(f.Length))
		data = binary.AppendUvarint(data, uint64(len(f.windows)))
		next := 0
		for _, w := range f.windows {
			data = binary.AppendUvarint(data, uint64(w-next))
			next = w + 1
		}
	}
	body := data[headSize:]
	binary.LittleEndian.PutUint32(data[4:], uint32(len(body)+footerSize))
	sum := crc32.Checksum(body, castagnoli)
	data = binary.LittleEndian.AppendUint32(data, uint32(len(body)))
	data = binary.LittleEndian.AppendUint32(data, sum)
	data = binary.LittleEndian.AppendUint32(data, version)
	return binary.LittleEndian.AppendUint32(data, footerMagic)
}

// reader reads numbers. After an error it returns zeros.
type reader struct {
	data []byte
	err  error
}

func (r *reader) fail(format string, a ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, a...)
	}
	r.data = nil
}

func (r *reader) bytes(n int) []byte {
	if len(r.data) < n {
		r.fail("it ends early: %w", io.ErrUnexpectedEOF)
		return make([]byte, n)
	}
	b := r.data[:n]
	r.data = r.data[n:]
	return b
}

// number reads a number of at most limit.
func (r *reader) number(what string, limit int64) int64 {
	v, n := binary.Uvarint(r.data)
	switch {
	case n <= 0:
		r.fail("%s: it ends early: %w", what, io.ErrUnexpectedEOF)
		return 0
	case limit < 0 || v > uint64(limit):
		r.fail("%s: found %d, expected at most %d", what, v, limit)
		return 0
	}
	r.data = r.data[n:]
	return int64(v)
}

// ascending reads count different positions below limit.
func (r *reader) ascending(count, limit int) []int {
	all := make([]int, 0, count)
	next := 0
	for range count {
		next += int(r.number("position of a window", int64(limit-1-next)))
		if r.err != nil {
			return nil
		}
		all = append(all, next)
		next++
	}
	return slices.Clip(all)
}
