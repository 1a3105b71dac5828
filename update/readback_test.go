package update_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"updater/bmap"
	"updater/update"
	"updater/verify"
)

func (k *kit) reopen(context.Context) (update.ImageCloser, error) {
	return stream{Reader: bytes.NewReader(k.image)}, nil
}

// TestReadBackAt compares an image that begins somewhere on a medium, with buffers of any size and any number of readers, and repairs the mismatches.
func TestReadBackAt(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536})
	m, err := bmap.Parse(k.doc)
	if err != nil {
		t.Fatal(err)
	}
	hole := slices.Collect(m.Gaps())[0]
	rng := m.Range(1)
	for _, base := range []int64{0, 123 << 10} {
		for _, buffer := range []int64{0, 512, 100_000} {
			for _, readers := range []int{0, 3} {
				t.Run(fmt.Sprintf("at %d, %d bytes, %d readers", base, buffer, readers), func(t *testing.T) {
					d := newDevice(2 << 20)
					copy(d.data[base:], k.image)
					copy(d.medium[base:], k.image)
					b := update.ReadBack{Map: m, Unmapped: update.UnmappedZero, Offset: base, Sizes: update.Sizes{Read: buffer}, Readers: readers}
					medium := &target{d}
					if bad, err := b.Compare(t.Context(), medium); err != nil || len(bad) != 0 {
						t.Fatalf("Compare of an equal medium = %v, %v", bad, err)
					}
					d.medium[base+rng.Offset+rng.Length-1] ^= 1
					d.medium[base+hole.Offset+hole.Length-1] = 7
					d.data = bytes.Clone(d.medium)
					bad, err := b.Compare(t.Context(), medium)
					if err != nil || len(bad) != 2 {
						t.Fatalf("Compare = %v, %v; want a range and a hole", bad, err)
					}
					if !slices.IsSortedFunc(bad, func(a, b update.Mismatch) int { return int(a.Offset - b.Offset) }) {
						t.Errorf("Compare = %v, not in ascending order", bad)
					}
					i := slices.IndexFunc(bad, func(m update.Mismatch) bool { return m.Index == 1 })
					if mis, ok := errors.AsType[*verify.MismatchError](bad[i].Err); !ok || mis.Offset != rng.Offset {
						t.Errorf("the range's error is %v", bad[i].Err)
					}
					if bad[1-i].Index != -1 || bad[1-i].Span != hole || bad[1-i].Err.Error() != fmt.Sprintf("unmapped byte at %d is 0x07, expected zero",
						base+hole.Offset+hole.Length-1) {
						t.Errorf("the hole's mismatch is %+v", bad[1-i])
					}
					b.Unmapped = update.UnmappedKeep
					if kept, err := b.Compare(t.Context(), medium); err != nil || len(kept) != 1 || kept[0].Index != 1 {
						t.Errorf("Compare without holes = %v, %v; want range 1", kept, err)
					}
					if err := b.Repair(t.Context(), medium, bad, k.reopen); err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(d.medium[base:][:len(k.image)], k.image) || !isA5(d.medium[:base]) || !isA5(d.medium[base+int64(len(k.image)):]) {
						t.Error("the medium does not hold the image, or something around it has changed")
					}
				})
			}
		}
	}
}

// TestHolesAreReadWhole: a byte that is not zero is found wherever it is in a hole that takes many reads, and zeroed by a repair.
func TestHolesAreReadWhole(t *testing.T) {
	const size = 5<<20 + 4096
	sum := sha256.Sum256(make([]byte, 4096))
	m, err := bmap.FromRanges(size, "sha256", []bmap.Range{{Length: 4096, Checksum: hex.EncodeToString(sum[:])}})
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{4096, 1<<20 + 4095, 1<<20 + 4096, 3<<20 + 7, size - 1} {
		d := disk(make([]byte, size))
		d[at], d[size-1] = 1, 1
		b := update.ReadBack{Map: m, Unmapped: update.UnmappedZero}
		bad, err := b.Compare(t.Context(), d)
		if err != nil || len(bad) != 1 || bad[0].Index != -1 || !strings.HasPrefix(bad[0].Err.Error(), fmt.Sprintf("unmapped byte at %d ", at)) {
			t.Fatalf("byte %d: Compare = %v, %v", at, bad, err)
		}
		reopen := func(context.Context) (update.ImageCloser, error) { return stream{Reader: bytes.NewReader(nil)}, nil }
		if err := b.Repair(t.Context(), d, bad, reopen); err != nil || d[at] != 0 {
			t.Errorf("byte %d is %d after Repair = %v", at, d[at], err)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	reads := 0
	medium := watched{make([]byte, size), func(int64) {
		if reads++; reads == 2 { // the first one of the hole
			cancel(errInjected)
		}
	}}
	if bad, err := (update.ReadBack{Map: m, Unmapped: update.UnmappedZero}).Compare(ctx, medium); !errors.Is(err, errInjected) || reads != 2 {
		t.Errorf("Compare = %v, %v after %d reads; want the cause after the second one", bad, err, reads)
	}
	d := newDevice(size)
	bad := []update.Mismatch{{Span: slices.Collect(m.Gaps())[0], Index: -1}}
	reopen := func(context.Context) (update.ImageCloser, error) { return new(endless), nil }
	if err := (update.ReadBack{Map: m}).Repair(ctx, &target{d}, bad, reopen); !errors.Is(err, errInjected) || len(d.journal) > 0 {
		t.Errorf("Repair = %v after %q; want the cause before anything is zeroed", err, d.journal)
	}
}

// TestMismatchesAscend: mismatches come in the order of the image, whichever reader is first.
func TestMismatchesAscend(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 4096})
	m, err := bmap.Parse(k.doc)
	if err != nil {
		t.Fatal(err)
	}
	third := make(chan struct{})
	medium := watched{make([]byte, len(k.image)), func(off int64) {
		switch off {
		case m.Range(0).Offset:
			<-third
		case m.Range(2).Offset: // the other reader is done with the second range
			close(third)
		}
	}}
	bad, err := update.ReadBack{Map: m, Readers: 2}.Compare(t.Context(), medium)
	if err != nil || len(bad) < 3 || !slices.IsSortedFunc(bad, func(a, b update.Mismatch) int { return int(a.Offset - b.Offset) }) {
		t.Errorf("Compare = %v, %v; want ascending offsets", bad, err)
	}
}

// watched is a medium whose reads are seen.
type watched struct {
	disk
	onRead func(off int64)
}

func (w watched) ReadBackAt(p []byte, off int64) (int, error) {
	w.onRead(off)
	return w.disk.ReadBackAt(p, off)
}

func isA5(p []byte) bool { return bytes.Count(p, []byte{0xa5}) == len(p) }

// TestRepairIsBounded: more mismatches than an accident makes are reported, not repaired, and the errors name the place on
// the medium.
func TestRepairIsBounded(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 4096})
	m, err := bmap.Parse(k.doc)
	if err != nil {
		t.Fatal(err)
	}
	const base = 4096
	d := newDevice(2 << 20) // holds nothing of the image
	medium := &target{d}
	b := update.ReadBack{Map: m, Unmapped: update.UnmappedZero, Offset: base}
	bad, err := b.Compare(t.Context(), medium)
	if err != nil || len(bad) == 0 {
		t.Fatalf("Compare = %d mismatches, %v", len(bad), err)
	}
	many := slices.Repeat(bad, update.MaxRepair)[:update.MaxRepair+1]
	for name, err := range map[string]error{
		"too many":      b.Repair(t.Context(), medium, many, k.reopen),
		"no second one": b.Repair(t.Context(), medium, bad[:1], nil),
	} {
		if e, ok := errors.AsType[*update.ReadBackError](err); !ok || e.Offset != base+bad[0].Offset || e.Ranges[0].Offset != e.Offset {
			t.Errorf("%s: Repair = %v; want a ReadBackError at %d", name, err, base+bad[0].Offset)
		}
	}
	if n := len(written(d)); n != 0 {
		t.Errorf("%d writes of a repair that was refused", n)
	}
	if err := b.Repair(t.Context(), medium, many[1:], k.reopen); err != nil || len(written(d)) == 0 {
		t.Errorf("as many as are repaired: Repair = %v with %d writes", err, len(written(d)))
	}
	broken := failingMedium{medium, base + m.Range(3).Offset, nil}
	_, err = b.Compare(t.Context(), broken)
	if e, ok := errors.AsType[*update.ReadBackError](err); !ok || e.Offset != broken.from || !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("Compare of a medium that cannot be read = %v; want a ReadBackError at %d", err, broken.from)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	broken.before = func() { cancel(errInjected) }
	if _, err := b.Compare(ctx, broken); !errors.Is(err, errInjected) {
		t.Errorf("Compare that is cancelled in a read = %v; want the cause", err)
	}
}

type failingMedium struct {
	*target
	from   int64
	before func() // may be nil
}

func (f failingMedium) ReadBackAt(p []byte, off int64) (int, error) {
	if off >= f.from {
		if f.before != nil {
			f.before()
		}
		return 0, io.ErrNoProgress
	}
	return f.target.ReadBackAt(p, off)
}

func TestFirstNonZero(t *testing.T) {
	for _, n := range []int{0, 1, 4095, 4096, 4097, 20_000} {
		p := make([]byte, n)
		if got := update.FirstNonZero(p); got != -1 {
			t.Errorf("FirstNonZero of %d zeros = %d", n, got)
		}
		for _, i := range []int{0, 1, 4095, 4096, 8191, n - 1} {
			if i < 0 || i >= n {
				continue
			}
			p[i], p[n-1] = 1, 1
			if got := update.FirstNonZero(p); got != i {
				t.Errorf("FirstNonZero of %d bytes = %d; want %d", n, got, i)
			}
			clear(p)
		}
	}
}
