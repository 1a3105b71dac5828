package update

import (
	"bytes"
	"context"
	"encoding/hex"
	"sync/atomic"

	"updater/bmap"
)

// held finds the ranges that the target already holds by reading them from the medium. They are not written again, which is also how
// an interrupted install resumes: no record of it is kept. Equal ranges are flushed and read back like all others. A slot with
// other content costs Budget of reading once; after an interrupted install everything before the cut is found, since writing ascends.
//
// A range that cannot be read counts as different: many media report a read error until the sector is written, and a medium that accepts no
// write either fails then.
type held struct {
	Sizes
	m      *bmap.Map
	target Target
	buf    []byte       // of the reading stage
	cmp    []byte       // of the writing stage
	equal  atomic.Int64 // mapped bytes found equal
	vain   atomic.Int64 // bytes read that differed, less those found equal
	off    bool         // nothing is compared
	read   func()       // called for every piece that is read
}

func (p *part) newHeld(off bool) *held {
	return &held{Sizes: p.Sizes, m: p.Map, target: p.target, off: off, read: p.progress.move}
}

// pays reports whether n more bytes are within the budget.
func (h *held) pays(n int64) bool { return !h.off && h.vain.Load()+n <= h.Budget }

func (h *held) found(n int64) { h.equal.Add(n); h.vain.Add(-n) }

// lacks reports whether a range must be written. It selects the ranges that are read from the image. Long ranges are left to holds.
func (h *held) lacks(ctx context.Context, _ int, rng bmap.Range) (bool, error) {
	if rng.Length > h.Held || !h.pays(rng.Length) {
		return true, nil
	}
	if h.buf == nil {
		h.buf = make([]byte, h.Read)
	}
	sum := h.m.NewHash()
	for off, end := rng.Offset, rng.Offset+rng.Length; off < end; {
		if err := cancelled(ctx); err != nil {
			return false, err
		}
		p := h.buf[:min(int64(len(h.buf)), end-off)]
		if _, err := h.target.ReadBackAt(p, off); err != nil {
			h.vain.Add(rng.Length)
			return true, nil
		}
		h.read()
		sum.Write(p)
		off += int64(len(p))
	}
	if hex.EncodeToString(sum.Sum(nil)) != rng.Checksum {
		h.vain.Add(rng.Length)
		return true, nil
	}
	h.found(rng.Length)
	return false, nil
}

// holds reports whether the target already holds a chunk of a long range.
func (h *held) holds(c chunk) bool {
	n := int64(len(c.buf))
	if c.rng.Length <= h.Held || !h.pays(n) {
		return false
	}
	if h.cmp == nil {
		h.cmp = make([]byte, h.Chunk)
	}
	if _, err := h.target.ReadBackAt(h.cmp[:n], c.off); err != nil || !bytes.Equal(h.cmp[:n], c.buf) {
		h.vain.Add(n)
		return false
	}
	h.found(n)
	return true
}

// isZero reports whether a hole is already zero. It stops at the first byte that is not.
func (h *held) isZero(ctx context.Context, gap bmap.Span) (bool, error) {
	if h.cmp == nil {
		h.cmp = make([]byte, h.Chunk)
	}
	for off, end := gap.Offset, gap.Offset+gap.Length; off < end; {
		if err := cancelled(ctx); err != nil {
			return false, err
		}
		p := h.cmp[:min(int64(len(h.cmp)), end-off)]
		if !h.pays(int64(len(p))) {
			return false, nil
		}
		if _, err := h.target.ReadBackAt(p, off); err != nil || FirstNonZero(p) >= 0 {
			h.vain.Add(off - gap.Offset + int64(len(p)))
			return false, nil
		}
		h.read()
		off += int64(len(p))
	}
	return true, nil
}

// FirstNonZero returns the index of the first byte of p that is not zero, -1 if all are zero.
func FirstNonZero(p []byte) int {
	for i := 0; i < len(p); i += len(zeros) {
		if n := min(len(zeros), len(p)-i); !bytes.Equal(p[i:i+n], zeros[:n]) {
			for p[i] == 0 {
				i++
			}
			return i
		}
	}
	return -1
}

var zeros [4096]byte
