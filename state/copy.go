package state

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

const (
	magic      = "UPDSTATE"
	format     = 1
	headerSize = 32
	align      = 4096
	maxCopy    = 32 << 10 // bytes of one copy
	sector     = 512
)

// FileSize is the size in bytes of a store in a file.
const FileSize = 2 * maxCopy

var (
	castagnoli    = crc32.MakeTable(crc32.Castagnoli)
	errLater      = errors.New("in a later format")
	errBlank      = errors.New("is empty")
	errUnreadable = errors.New("cannot be read")
)

func unreadable(err error) bool { return errors.Is(err, errUnreadable) }

// readOne reads one copy from the medium: the header, then the payload. It reads no more, so a bad sector after the payload does
// not matter.
func readOne(area Area, off int64, room int) readCopy {
	c := readCopy{offset: off}
	data := make([]byte, room)
	err := readFull(area, data[:sector], off)
	if length := int64(binary.LittleEndian.Uint32(data[24:])); err == nil && length <= int64(room-headerSize) {
		end := wholeSectors(headerSize + int(length))
		err = readFull(area, data[sector:max(end, sector)], off+sector)
	}
	if err != nil {
		c.err = fmt.Errorf("%w: %w", errUnreadable, err)
		return c
	}
	c.gen, c.state, c.err = decode(data)
	c.blank = errors.Is(c.err, errBlank)
	return c
}

// readFull reads all of p from the medium.
func readFull(area Area, p []byte, off int64) error {
	if n, err := area.ReadBackAt(p, off); n < len(p) {
		return cmp.Or(err, io.ErrUnexpectedEOF)
	}
	return nil
}

func wholeSectors(n int) int { return (n + sector - 1) / sector * sector }

// wholePages rounds a write up to whole pages: for a part of a page the kernel would read the rest first, and fail on an
// unreadable sector.
func wholePages(n int) int { return (n + align - 1) / align * align }

// decode parses one copy. Its errors continue the sentence "copy 1 ...".
func decode(data []byte) (gen uint64, s State, err error) {
	header := data[:headerSize]
	if len(bytes.Trim(header, "\x00")) == 0 || len(bytes.Trim(header, "\xff")) == 0 {
		return 0, State{}, errBlank
	}
	if string(header[:8]) != magic {
		return 0, State{}, errors.New("has no state store signature")
	}
	length := int64(binary.LittleEndian.Uint32(header[24:]))
	if length > int64(len(data)-headerSize) {
		return 0, State{}, fmt.Errorf("is damaged: its payload has %d bytes, expected at most %d", length, len(data)-headerSize)
	}
	end := headerSize + int(length)
	if got, want := checksum(data[:end]), binary.LittleEndian.Uint32(header[12:]); got != want {
		return 0, State{}, fmt.Errorf("is damaged: its checksum is %08x, expected %08x", got, want)
	}
	if f := binary.LittleEndian.Uint32(header[8:]); f != format {
		return 0, State{}, fmt.Errorf("%w: %d, expected %d", errLater, f, format)
	}
	gen = binary.LittleEndian.Uint64(header[16:])
	if gen == 0 {
		return 0, State{}, errors.New("is damaged: its generation is 0")
	}
	if s, err = unmarshal(data[headerSize:end]); err != nil {
		return 0, State{}, fmt.Errorf("cannot be parsed: %w", err)
	}
	return gen, s, nil
}

// encode returns the bytes of one copy, whole pages.
func encode(s State, gen uint64, room int) ([]byte, error) {
	payload, err := s.marshal(room - headerSize)
	if err != nil {
		return nil, err
	}
	end := headerSize + len(payload)
	data := make([]byte, wholePages(end))
	copy(data, magic)
	binary.LittleEndian.PutUint32(data[8:], format)
	binary.LittleEndian.PutUint64(data[16:], gen)
	binary.LittleEndian.PutUint32(data[24:], uint32(len(payload)))
	copy(data[headerSize:], payload)
	binary.LittleEndian.PutUint32(data[12:], checksum(data[:end]))
	return data, nil
}

// checksum covers all bytes but its own.
func checksum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:12], castagnoli), castagnoli, b[16:])
}
