package pack_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"updater/pack"
)

// indexed is a packed image, its table and its index.
type indexed struct {
	ranges []pack.Range
	data   []byte
	file   []byte
	frames []pack.Frame
}

func newIndexed(t testing.TB, size int64, ranges []pack.Range) indexed {
	t.Helper()
	x := indexed{ranges: ranges, data: image(size, ranges)}
	x.file = write(t, x.data, ranges, 1)
	var err error
	if x.frames, err = pack.ReadTable(bytes.NewReader(x.file), int64(len(x.file)), pack.Frames(size, len(ranges))); err != nil {
		t.Fatal(err)
	}
	return x
}

func (x indexed) last() pack.Frame { return x.frames[len(x.frames)-1] }

// find looks for all ranges in an old image, and returns the ranges made of it and of the image, and how many bytes of the image they need.
func (x indexed) find(t testing.TB, file, old []byte) (made []byte, fetched int64, err error) {
	t.Helper()
	if pack.IndexSize(x.frames, x.ranges) == 0 {
		return nil, 0, errors.New("no index")
	}
	index, err := pack.ReadIndex(bytes.NewReader(file), x.frames, x.ranges)
	if err != nil {
		return nil, 0, err
	}
	var want []int
	for i := range x.ranges {
		want = append(want, i)
	}
	var read atomic.Int64
	if err := index.Find(t.Context(), bytes.NewReader(old), int64(len(old)), want, func(n int64) { read.Add(n) }); err != nil {
		return nil, 0, err
	}
	if read.Load() != int64(len(old)) {
		t.Errorf("progress of %d bytes; want %d", read.Load(), len(old))
	}
	made = make([]byte, len(x.data))
	for i, r := range x.ranges {
		at := r.Offset
		for _, p := range index.Pieces(x.frames, i) {
			if p.Offset != at || p.Length <= 0 {
				t.Fatalf("range %+v: piece %+v, expected it at %d", r, p, at)
			}
			from := x.data[p.Offset:]
			if p.From < 0 {
				fetched += p.Length
			} else {
				from = old[p.From:]
			}
			copy(made[p.Offset:p.Offset+p.Length], from)
			at += p.Length
		}
		if at != r.Offset+r.Length {
			t.Fatalf("range %+v: the pieces end at %d", r, at)
		}
	}
	return made, fetched, nil
}

// Content that moved by whole blocks is found; a frame with a block that is nowhere is fetched, and no other one is.
func TestIndex(t *testing.T) {
	for _, s := range shapes {
		x := newIndexed(t, s.size, s.ranges)
		if len(s.ranges) == 0 {
			if pack.IndexSize(x.frames, s.ranges) != 0 {
				t.Errorf("%s: an index of no block", s.name)
			}
			continue
		}
		tail := int64(0) // bytes of shorter blocks, which are not found
		for _, r := range s.ranges {
			if r.Length%pack.BlockSize != 0 {
				tail += r.Length % pack.MaxFrame
			}
		}
		moved := slices.Concat(bytes.Repeat([]byte("x"), 3*pack.BlockSize), x.data)
		lost := bytes.Clone(moved)
		lost[3*pack.BlockSize+s.ranges[0].Offset] ^= 1
		first := min(s.ranges[0].Length, pack.MaxFrame)
		for _, c := range []struct {
			old            []byte
			fetched, slack int64
		}{{x.data, tail, 0}, {moved, tail, 0}, {lost, tail + first, 0}, {nil, -1, 0}, {make([]byte, 5000), -1, 0}, {moved[:len(moved)-1], tail, pack.MaxFrame}} {
			made, fetched, err := x.find(t, x.file, c.old)
			if err != nil || !bytes.Equal(made, x.data) {
				t.Errorf("%s, old image of %d bytes: other bytes, %v", s.name, len(c.old), err)
			}
			if c.fetched >= 0 && (fetched < c.fetched || fetched > c.fetched+c.slack) {
				t.Errorf("%s, old image of %d bytes: %d bytes are fetched; want %d", s.name, len(c.old), fetched, c.fetched)
			}
		}
	}
}

// An index that is cut or whose header is damaged is refused, one for other ranges is ignored, and wrong checksums find other blocks of the
// old image.
func TestHostileIndex(t *testing.T) {
	x := newIndexed(t, 256<<10, []pack.Range{{0, 100_000}, {128 << 10, 8192}})
	at, packed := x.last().At, x.last().Packed
	for bit := range packed * 8 {
		file := bytes.Clone(x.file)
		file[at+bit/8] ^= 1 << (bit % 8)
		_, _, err := x.find(t, file, x.data)
		if head := bit < 12*8; head != (err != nil) {
			t.Errorf("bit %d: error is %v", bit, err)
		}
	}
	for n := range packed {
		if _, _, err := x.find(t, x.file[:at+n], x.data); err == nil {
			t.Fatalf("cut after %d bytes: no error", n)
		}
	}
	for _, ranges := range [][]pack.Range{nil, x.ranges[:1], {{0, 4096}}, {{0, 1 << 62}, {1 << 62, 1 << 62}}} {
		if n := pack.IndexSize(x.frames, ranges); n != 0 {
			t.Errorf("ranges %v: index of %d bytes", ranges, n)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stopped")
	cancel(stop)
	index, err := pack.ReadIndex(bytes.NewReader(x.file), x.frames, x.ranges)
	if err == nil {
		err = index.Find(ctx, bytes.NewReader(x.data), int64(len(x.data)), []int{0}, nil)
	}
	if !errors.Is(err, stop) {
		t.Errorf("Find() = %v; want the cause", err)
	}
}

// FuzzIndex: the pieces of a range are the range, whatever an index and a seek table claim.
func FuzzIndex(f *testing.F) {
	x := newIndexed(f, 1<<20, []pack.Range{{0, 20_000}, {64 << 10, 8192}})
	f.Add(x.file[x.last().At:][:x.last().Packed], []byte("\x01\x10\xff"))
	f.Add(x.file[x.last().At:][:x.last().Packed], []byte("\x01\x01\x01\x01\x01\x01"))
	f.Fuzz(func(t *testing.T, body, lengths []byte) {
		y := x
		y.frames = nil
		var at int64
		for _, n := range lengths {
			y.frames = append(y.frames, pack.Frame{Packed: 1, Offset: at, Length: int64(n) << 8})
			at += int64(n) << 8
		}
		if at < 1<<20 {
			y.frames = append(y.frames, pack.Frame{Packed: 1, Offset: at, Length: 1<<20 - at})
		}
		y.frames = append(y.frames, pack.Frame{Packed: int64(len(body)), Offset: max(at, 1<<20)})
		if made, _, err := y.find(t, body, x.data); err != nil && made != nil {
			t.Error(err)
		}
		if len(body) >= 12 && binary.LittleEndian.Uint32(body[8:]) != 1 {
			if _, _, err := y.find(t, body, x.data); err == nil {
				t.Error("another version was accepted")
			}
		}
	})
}
