package update_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"testing"

	"updater/bmap"
	"updater/update"
)

// blank is a target of any size that holds 0xff and counts the zeroed bytes.
type blank struct {
	onZero func(n int64) error
	moves  func() int64
	seen   []int64 // Moves at every call of Zero
}

func (b *blank) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (b *blank) ReadBackAt(p []byte, _ int64) (int, error) {
	return copy(p, bytes.Repeat([]byte{0xff}, len(p))), nil
}
func (b *blank) Zero(_, n int64) error {
	b.seen = append(b.seen, b.moves())
	return b.onZero(n)
}
func (b *blank) Flush() error               { return nil }
func (b *blank) Discard(off, n int64) error { return b.Zero(off, n) }
func (b *blank) WrittenOut() int64          { return 0 }
func (b *blank) Barriers() int              { return 0 }
func (b *blank) Engine() string             { return "blank" }
func (b *blank) Close() error               { return nil }

// TestProgressOfHoles: a large hole is zeroed in pieces, each of which is progress, and an install that is cancelled ends with the piece
// under way. So does a repair.
func TestProgressOfHoles(t *testing.T) {
	sum := sha256.Sum256(make([]byte, 4096))
	const size = 4096 + 256<<20 // the last piece is whole
	m, err := bmap.FromRanges(size, "sha256", []bmap.Range{{Length: 4096, Checksum: hex.EncodeToString(sum[:])}})
	if err != nil {
		t.Fatal(err)
	}
	hole := slices.Collect(m.Gaps())[0]
	copies := func(unmapped string) func(context.Context, *blank) error {
		return func(ctx context.Context, b *blank) error {
			p := new(update.Progress)
			b.moves = p.Moves
			_, err := update.Copy(ctx, update.CopyJob{Map: m, Unmapped: unmapped, Image: new(endless), Target: b, SkipReadBack: true, Progress: p})
			return err
		}
	}
	for name, do := range map[string]func(context.Context, *blank) error{
		"a copy that zeroes": copies(update.UnmappedZero), "a copy that discards": copies(update.UnmappedDiscard),
		"a repair": func(ctx context.Context, b *blank) error {
			moves := int64(0)
			b.moves = func() int64 { return moves }
			back := update.ReadBack{Map: m, Unmapped: update.UnmappedZero, Progress: func(int64) { moves++ }}
			err := back.Repair(ctx, b, []update.Mismatch{{Span: hole, Index: -1}}, func(context.Context) (update.ImageCloser, error) { return new(endless), nil })
			if isA[*update.ReadBackError](err) { // it reads as before
				return nil
			}
			return err
		},
	} {
		var zeroed int64
		b := &blank{onZero: func(n int64) error {
			if zeroed += n; n <= 0 || n > 64<<20 {
				t.Errorf("%s: %d bytes at once", name, n)
			}
			return nil
		}}
		if err := do(t.Context(), b); err != nil || zeroed != hole.Length {
			t.Errorf("%s = %v with %d bytes", name, err, zeroed)
		}
		for i := range b.seen[1:] {
			if b.seen[i+1] == b.seen[i] {
				t.Errorf("%s: Moves stays %d from piece %d to the next", name, b.seen[i], i)
			}
		}
		ctx, stop := context.WithCancelCause(t.Context())
		b = &blank{onZero: func(int64) error {
			if len(b.seen) == 2 { // of the pieces after the last chunk
				stop(errInjected)
			}
			return nil
		}}
		if err := do(ctx, b); !errors.Is(err, errInjected) || isA[*update.WriteError](err) || len(b.seen) != 2 {
			t.Errorf("%s that is cancelled = %v after %d pieces; want its cause after 2", name, err, len(b.seen))
		}
	}
}

// TestProgressOfComparing: every piece that the slot already holds is progress.
func TestProgressOfComparing(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{MaxRange: 65536})
	d, p := newDevice(1<<20), new(update.Progress)
	copy(d.data, k.image)
	copy(d.medium, k.image)
	var before int64
	d.onOp = func(n int) {
		if now := p.Moves(); d.compares(n) {
			if now <= before {
				t.Errorf("Moves is %d at comparison %d, and was %d before", now, n, before)
			}
			before = now
		}
	}
	job := k.job(d)
	job.Progress, job.Sizes = p, update.Sizes{Chunk: 8192, Read: 8192}
	if _, err := update.Install(t.Context(), job); err != nil || before < (k.imageSize)/8192 {
		t.Errorf("Install = %v, Moves was %d", err, before)
	}
}

// consuming is an image that counts the bytes of its file.
type consuming struct {
	stream
	read func() int64
}

func (c consuming) Consumed() (read, total int64) { return c.read(), -1 }

// TestProgressOfSource: the bytes of the image's file are progress, even when nothing of them can be written yet, and so are those of the
// second stream of a repair.
func TestProgressOfSource(t *testing.T) {
	k := newKit(t, bmap.CreateOptions{})
	d := newDevice(1 << 20)
	j := k.job(d)
	p := new(update.Progress)
	var read, before, after int64
	j.Progress = p
	j.Image = consuming{j.Image.(stream), func() int64 { return read }}
	d.onOp = func(n int) {
		if before == 0 && bytes.HasPrefix([]byte(d.journal[n-1]), []byte("write")) {
			before = p.Moves()
			read++
			after = p.Moves()
		}
	}
	if _, err := update.Install(t.Context(), j); err != nil || after != before+1 {
		t.Errorf("Install = %v; Moves %d and %d after a byte was read", err, before, after)
	}
	d, p, before = newDevice(1<<20), new(update.Progress), 0
	d.flip, j.Progress = 70_000, p
	j.Boot, j.Disk, j.Image = d, d, stream{Reader: bytes.NewReader(k.image)}
	var again, opened int64
	j.Reopen = func(context.Context) (update.ImageCloser, error) {
		opened = p.Moves()
		return consuming{stream{Reader: bytes.NewReader(k.image)}, func() int64 { return again }}, nil
	}
	d.onOp = func(n int) {
		switch op := d.journal[n-1]; {
		case op == "flush":
			d.flip = -1
		case before == 0 && bytes.HasPrefix([]byte(op), []byte("write")) && d.flip < 0:
			before = p.Moves()
			again++
			after = p.Moves()
		}
	}
	if _, err := update.Install(t.Context(), j); err != nil || before <= opened || after != before+1 {
		t.Errorf("Install = %v; Moves %d, then %d before and %d after a byte was read for a repair", err, opened, before, after)
	}
	// A second stream counts while it is read, for the first range.
	const much = 1 << 40
	d = newDevice(1 << 20)
	j = k.job(d)
	j.Progress, j.Held = p, 4096
	j.Image = consuming{j.Image.(stream), func() int64 { return 1 }}
	j.Reopen = func(context.Context) (update.ImageCloser, error) {
		again := consuming{stream{Reader: bytes.NewReader(k.image)}, func() int64 { return much }}
		return sampled{again, func() {
			if before = p.Moves(); before < much {
				t.Errorf("Moves is %d while the second stream is read", before)
			}
		}}, nil
	}
	d.onOp = func(n int) {
		if d.journal[n-1] == "write 0" && p.Moves() >= much {
			t.Error("Moves counts the second stream while the first one is written")
		}
	}
	if _, err := update.Install(t.Context(), j); err != nil || before < much {
		t.Errorf("Install = %v; Moves was %d", err, before)
	}
}

// sampled is an image whose reads are known.
type sampled struct {
	consuming
	onRead func()
}

func (s sampled) Read(b []byte) (int, error) {
	s.onRead()
	return s.consuming.Read(b)
}
