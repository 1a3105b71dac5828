package boot

import (
	"bytes"
	"fmt"
	"io"
)

// Area is a fixed-size place on a medium that holds boot state: a raw window of a disk, or the blocks of one
// file. Writing never changes its size.
type Area interface {
	io.ReaderAt
	io.WriterAt
	Size() int64                                 // bytes
	Sync() error                                 // what was written is on stable storage, the drive's cache flushed
	ReadBackAt(p []byte, off int64) (int, error) // from the medium, past the page cache
	String() string                              // names it in errors
}

// Sector is what a medium writes whole or not at all.
const Sector = 512

// ReadAll reads a whole area from the medium, so that no stale page decides.
func ReadAll(a Area) ([]byte, error) {
	data := make([]byte, a.Size())
	if n, err := a.ReadBackAt(data, 0); err != nil && (err != io.EOF || n < len(data)) {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	return data, nil
}

// WriteVerified writes p at off of the area, flushes, and compares what the medium has then. An error is
// indeterminate: the medium may hold the old or the new bytes. It is never retried.
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
		return fmt.Errorf("%w: %s does not hold what was written at %d", ErrState, a, off)
	}
	return nil
}

// WriteChanged writes the sectors in which data differs from old, in one write, as [WriteVerified] does. A
// change within one sector is old-or-new whatever the power does.
func WriteChanged(a Area, old, data []byte) error {
	first, end := changed(old, data)
	if first == end {
		return nil
	}
	return WriteVerified(a, data[first:end], int64(first))
}

// changed is the span of whole sectors in which a and b differ; both have the same length.
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
