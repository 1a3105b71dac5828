package boot

import (
	"bytes"
	"fmt"
	"io"
)

// Area is a fixed-size region of a medium that holds boot state: a window of a disk, or the blocks of a file. A write
// never changes its size.
type Area interface {
	io.ReaderAt
	io.WriterAt
	Size() int64                                 // bytes
	Sync() error                                 // on nil, earlier writes are on stable storage, past the drive's cache
	ReadBackAt(p []byte, off int64) (int, error) // reads from the medium, past the page cache
	String() string                              // names the area in errors
}

// Sector is the unit in bytes that a medium writes whole or not at all.
const Sector = 512

// ReadAll reads an area from the medium, past the page cache.
func ReadAll(a Area) ([]byte, error) {
	data := make([]byte, a.Size())
	if n, err := a.ReadBackAt(data, 0); n < len(data) {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	return data, nil
}

// ReadSectors reads an area as [ReadAll] does. If that fails it reads each sector by itself: those that cannot be read are
// zero in data, and their offsets are in bad.
func ReadSectors(a Area) (data []byte, bad []int64) {
	if data, err := ReadAll(a); err == nil {
		return data, nil
	}
	data = make([]byte, a.Size())
	for off := int64(0); off < a.Size(); off += Sector {
		part := data[off:min(off+Sector, a.Size())]
		if n, _ := a.ReadBackAt(part, off); n < len(part) {
			clear(part)
			bad = append(bad, off)
		}
	}
	return data, bad
}

// WriteVerified writes p at offset off of the area, flushes, and compares p with what it reads back from the medium. If p is
// whole logical blocks, a device repairs unreadable sectors among them (blockdev.Device.WriteAt). After an error the medium may
// hold the old or the new bytes. A failed write or flush is never retried.
func WriteVerified(a Area, p []byte, off int64) error {
	if _, err := a.WriteAt(p, off); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	if err := a.Sync(); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	got := make([]byte, len(p))
	if _, err := a.ReadBackAt(got, off); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	if !bytes.Equal(got, p) {
		return fmt.Errorf("%w: %s: bytes %d to %d read back differently than written", ErrState, a, off, off+int64(len(p)))
	}
	return nil
}

// WriteChanged writes the span of sectors in which data differs from old, as [WriteVerified] does. A change within one
// sector is atomic.
func WriteChanged(a Area, old, data []byte) error {
	first, end := changed(old, data)
	if first == end {
		return nil
	}
	return WriteVerified(a, data[first:end], int64(first))
}

// changed returns the span of whole sectors in which a and b differ. Both have the same length.
func changed(a, b []byte) (first, end int) {
	for off := 0; off < len(a); off += Sector {
		stop := min(off+Sector, len(a))
		if bytes.Equal(a[off:stop], b[off:stop]) {
			continue
		}
		if end == 0 {
			first = off
		}
		end = stop
	}
	return first, end
}
