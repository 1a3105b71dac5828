package bmap

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"sync"
)

// ErrNoChecksum is wrapped by the error of Verify if the map has a range without a checksum.
var ErrNoChecksum = errors.New("the map has no checksum for it")

// A MismatchError is a range whose bytes differ from the map.
type MismatchError struct {
	Index int    // of the range in the map
	Range Range  // Range.Checksum is the expected digest
	Type  string // the hash, as ChecksumType names it
	Got   string // digest of the bytes, lower-case hex
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("range %d (%s): %s is %s, bmap says %s", e.Index, e.Range, e.Type, e.Got, e.Range.Checksum)
}

// A MismatchesError holds several bad ranges, ascending by index. errors.As finds the first *MismatchError in it.
type MismatchesError struct {
	Mismatches []*MismatchError
	Ranges     int // number of ranges of the map
}

// maxNamed bounds the bad ranges that Error lists.
const maxNamed = 3

func (e *MismatchesError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d ranges do not match", len(e.Mismatches), e.Ranges)
	sep := ": "
	for _, m := range e.Mismatches[:min(maxNamed, len(e.Mismatches))] {
		b.WriteString(sep + m.Error())
		sep = "; "
	}
	if more := len(e.Mismatches) - maxNamed; more > 0 {
		fmt.Fprintf(&b, "; and %d more", more)
	}
	return b.String()
}

// Unwrap returns every mismatch.
func (e *MismatchesError) Unwrap() []error {
	errs := make([]error, len(e.Mismatches))
	for i, m := range e.Mismatches {
		errs[i] = m
	}
	return errs
}

// Verify reads every range of the map from r, on three goroutines for each CPU, and compares checksums. It continues after
// a bad range: the error is a *MismatchError, or a *MismatchesError for several. An input
// shorter than ImageSize is an error that wraps io.ErrUnexpectedEOF, a range without a checksum one that wraps
// ErrNoChecksum; these, a read error and the end of ctx stop the run, and precede mismatches found before.
//
// Bytes of unmapped blocks and bytes past ImageSize are not read. progress may be nil; it is called from several
// goroutines, one at a time, with bytes.
func Verify(ctx context.Context, m *Map, r io.ReaderAt, progress func(done, total int64)) error {
	if err := m.CheckSummed(); err != nil {
		return err
	}
	if err := m.checkLength(r); err != nil {
		return err
	}
	var mu sync.Mutex
	var bad []*MismatchError
	meter := &meter{total: m.MappedBytes(), report: progress}
	err := forEach(ctx, m.Len(), m.NewHash, func(ctx context.Context, w *worker, i int) error {
		rg := m.Range(i)
		got, at, err := w.sum(ctx, r, Span{rg.Offset, rg.Length}, meter)
		if err != nil {
			return fmt.Errorf("range %d (%s): reading at byte %d: %w", i, rg, at, err)
		}
		if !bytes.Equal(got, m.sum(i)) {
			mu.Lock()
			defer mu.Unlock()
			bad = append(bad, &MismatchError{Index: i, Range: rg, Type: m.ChecksumType(), Got: hex.EncodeToString(got)})
		}
		return nil
	})
	sort.Slice(bad, func(i, j int) bool { return bad[i].Index < bad[j].Index })
	return joinMismatches(err, bad, m.Len())
}

// CheckSummed returns nil if every range has a checksum, else an error that wraps ErrNoChecksum and names the first without
// one.
func (m *Map) CheckSummed() error {
	if i := slices.Index(m.summed, false); i >= 0 {
		return fmt.Errorf("range %d (%s): %w", i, m.Range(i), ErrNoChecksum)
	}
	return nil
}

// checkLength reads the last byte of the image, which may be unmapped.
func (m *Map) checkLength(r io.ReaderAt) error {
	var b [1]byte
	n, err := r.ReadAt(b[:], m.imageSize-1)
	if n == 1 {
		return nil
	}
	if err == nil || err == io.EOF {
		return fmt.Errorf("image is shorter than the %d bytes of the bmap: %w", m.imageSize, io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("reading the last byte of the image at %d: %w", m.imageSize-1, err)
}

func joinMismatches(err error, bad []*MismatchError, ranges int) error {
	var mismatch error
	switch len(bad) {
	case 0:
		return err
	case 1:
		mismatch = bad[0]
	default:
		mismatch = &MismatchesError{Mismatches: bad, Ranges: ranges}
	}
	if err == nil {
		return mismatch
	}
	return fmt.Errorf("%w; %w", err, mismatch)
}
