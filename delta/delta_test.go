package delta_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"

	"updater/delta"
	"updater/pack"
)

// text is compressible bytes.
func text(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 7))
	words := make([][]byte, 500)
	for i := range words {
		words[i] = make([]byte, 3+rng.IntN(12))
		for j := range words[i] {
			words[i][j] = 'a' + byte(rng.IntN(26))
		}
	}
	var out []byte
	for len(out) < n {
		out = append(append(out, words[rng.IntN(len(words))]...), ' ')
	}
	return out[:n]
}

// pair is an old image, and a new one with moved (by odd distances), changed and new content, and gaps between the ranges.
type pair struct {
	old, new []byte
	images   delta.Images
}

func newPair() *pair {
	a, b, c := text(1, 700_000), text(2, 900_000), text(3, 300_001)
	p := &pair{old: bytes.Join([][]byte{a, b, c}, nil)}
	moved := bytes.Join([][]byte{b[:400_000], []byte("inserted"), b[400_000:], c, text(4, 60_000), a}, nil)
	moved[1_000_000]++
	at := func(from, to int64) pack.Range { return pack.Range{Offset: from, Length: to - from} }
	end := int64(len(moved))
	p.new = moved
	p.images = delta.Images{
		Identity: delta.Identity{Base: sha256.Sum256(p.old), Target: sha256.Sum256(p.new), BaseSize: int64(len(p.old))},
		Old:      bytes.NewReader(p.old), New: bytes.NewReader(p.new),
		OldRanges: []pack.Range{at(0, int64(len(p.old)))},
		NewRanges: []pack.Range{at(0, 512<<10), at(512<<10, 1<<20), at(1<<20, 1<<20+4096), at(1<<20+8192, 1<<20+80<<10), at(1150<<10, end)},
	}
	return p
}

func (p *pair) write(t testing.TB) ([]byte, *delta.Table) {
	t.Helper()
	var out bytes.Buffer
	table, err := delta.Write(t.Context(), &out, p.images)
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), table
}

// make makes all groups of frames and compares them with the new image. It returns those that could not be made.
func (p *pair) make(t testing.TB, table *delta.Table, file io.ReaderAt, old []byte) (bad []delta.Frame) {
	t.Helper()
	errWrong := errors.New("wrong")
	check := func(f delta.Frame, data []byte) error {
		if !bytes.Equal(data, p.content(f)) {
			return errWrong
		}
		return nil
	}
	r, err := table.NewReader(t.Context(), delta.Source{File: file, Old: bytes.NewReader(old), Frames: table.Frames, Check: check})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	seen := 0
	for g := r.Next(); g != nil; g = r.Next() {
		if g.First != table.Frames[seen].First {
			t.Fatalf("group %d begins with range %d; want %d", seen, g.First, table.Frames[seen].First)
		}
		if g.Err != nil {
			bad = append(bad, g.Frame)
		} else if !bytes.Equal(g.Data, p.content(g.Frame)) {
			t.Fatalf("group %d differs", seen)
		}
		seen++
	}
	return append(bad, table.Frames[seen:]...)
}

func (p *pair) content(f delta.Frame) []byte {
	var want []byte
	for _, r := range p.images.NewRanges[f.First : f.First+f.Count] {
		want = append(want, p.new[r.Offset:r.Offset+r.Length]...)
	}
	return want
}

func TestRoundTrip(t *testing.T) {
	p := newPair()
	file, made := p.write(t)
	table, err := delta.ReadTable(bytes.NewReader(file), int64(len(file)), p.images.NewRanges)
	if err != nil {
		t.Fatal(err)
	}
	if table.Identity != p.images.Identity || fmt.Sprint(table) != fmt.Sprint(made) {
		t.Errorf("the table that was read differs from the one that was written")
	}
	if bad := p.make(t, table, bytes.NewReader(file), p.old); bad != nil {
		t.Errorf("%d groups were not made", len(bad))
	}
	sound, err := table.Sound(t.Context(), bytes.NewReader(p.old), nil, nil)
	for _, f := range table.Frames {
		if err != nil || !f.Holds(sound) {
			t.Errorf("a frame does not hold on the old image: %v", err)
		}
	}
	// The new content is 60 kB of text, about a third of that when compressed alone.
	if len(file) > 40_000 {
		t.Errorf("the delta has %d bytes", len(file))
	}
}

// The bytes do not depend on the number of cores.
func TestReproducible(t *testing.T) {
	p := newPair()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	one, _ := p.write(t)
	runtime.GOMAXPROCS(5)
	if many, _ := p.write(t); !bytes.Equal(one, many) {
		t.Error("other bytes on 5 cores than on 1")
	}
}

// A range that is longer than a group may be is in no frame; ranges that follow are.
func TestLongRange(t *testing.T) {
	p := newPair()
	p.images.NewRanges = []pack.Range{{Offset: 0, Length: delta.MaxRange + 1}, {Offset: 1100 << 10, Length: 4096}}
	file, _ := p.write(t)
	table, err := delta.ReadTable(bytes.NewReader(file), int64(len(file)), p.images.NewRanges)
	if err != nil || len(table.Frames) != 2 || table.Frames[0].Packed != 0 || table.Frames[1].Packed == 0 {
		t.Fatalf("ReadTable = %+v, %v", table, err)
	}
}

// An old image that has changed spoils the frames that use the changed windows: Holds reports which.
func TestChangedBase(t *testing.T) {
	p := newPair()
	file, table := p.write(t)
	old := bytes.Clone(p.old)
	old[1_000_000] ^= 1
	sound, err := table.Sound(t.Context(), bytes.NewReader(old), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	spoiled := 0
	for _, f := range table.Frames {
		if !f.Holds(sound) {
			spoiled++
		}
	}
	bad := p.make(t, table, bytes.NewReader(file), old)
	if spoiled == 0 || spoiled == len(table.Frames) || len(bad) > spoiled {
		t.Errorf("%d of %d frames are spoiled, %d were not made", spoiled, len(table.Frames), len(bad))
	}
	for _, f := range bad {
		if f.Holds(sound) {
			t.Errorf("the frame of range %d was not made, and its windows are sound", f.First)
		}
	}
	// A slot that is smaller than the old image.
	if sound, err = table.Sound(t.Context(), bytes.NewReader(old[:len(old)-1]), nil, nil); err != nil || sound[len(sound)-1] {
		t.Errorf("the last window of a short slot: %v, %v", sound[len(sound)-1], err)
	}
}

// No flipped bit makes a wrong group: the table is refused, or the group is not made.
func TestEveryFlippedBit(t *testing.T) {
	p := newPair()
	p.images.NewRanges = p.images.NewRanges[2:4]
	file, good := p.write(t)
	frames := int(good.Frames[len(good.Frames)-1].At + good.Frames[len(good.Frames)-1].Packed)
	step := 1
	if testing.Short() {
		step = 7
	}
	for bit := 0; bit < 8*len(file); bit += step {
		damaged := bytes.Clone(file)
		damaged[bit/8] ^= 1 << (bit % 8)
		table, err := delta.ReadTable(bytes.NewReader(damaged), int64(len(damaged)), p.images.NewRanges)
		if bit/8 >= frames {
			if err == nil {
				t.Fatalf("bit %d of the table is flipped, and it is accepted", bit-8*frames)
			}
			continue
		}
		if err != nil {
			t.Fatalf("bit %d: %v", bit, err)
		}
		p.make(t, table, bytes.NewReader(damaged), p.old) // fails on a wrong group
	}
}

func TestEveryCut(t *testing.T) {
	p := newPair()
	file, table := p.write(t)
	for n := range file {
		if _, err := delta.ReadTable(bytes.NewReader(file[:n]), int64(n), p.images.NewRanges); err == nil {
			t.Fatalf("a delta cut at %d of %d is accepted", n, len(file))
		}
	}
	// A file that shrinks after its table was read.
	for _, n := range []int{0, 1, int(table.Frames[1].At)} {
		if bad := p.make(t, table, bytes.NewReader(file[:n]), p.old); len(bad) == 0 {
			t.Errorf("all groups were made of a file cut at %d", n)
		}
	}
}

// A file of other ranges, of another program, or of nothing.
func TestRefusals(t *testing.T) {
	p := newPair()
	file, _ := p.write(t)
	other := append([]pack.Range{{Offset: 0, Length: 4096}}, p.images.NewRanges[1:]...)
	if _, err := delta.ReadTable(bytes.NewReader(file), int64(len(file)), other); err == nil {
		t.Error("a table for other ranges is accepted")
	}
	for _, data := range [][]byte{nil, make([]byte, 100), []byte("not a delta, but longer than its footer")} {
		if _, err := delta.ReadTable(bytes.NewReader(data), int64(len(data)), nil); !errors.Is(err, delta.ErrNotDelta) {
			t.Errorf("ReadTable of %d bytes: %v; want ErrNotDelta", len(data), err)
		}
	}
	later := bytes.Clone(file)
	later[len(later)-8] = 2
	if _, err := delta.ReadTable(bytes.NewReader(later), int64(len(later)), p.images.NewRanges); err == nil {
		t.Error("version 2 is accepted")
	}
}

// A table that claims more than the ranges allow is refused by its footer: neither read nor allocated.
func TestHostileFooter(t *testing.T) {
	footer := binary.LittleEndian.AppendUint32(nil, 1<<31)
	footer = binary.LittleEndian.AppendUint32(footer, 0)
	footer = append(binary.LittleEndian.AppendUint32(footer, 1), "DLTA"...)
	file := &sparseFile{tail: footer, size: 1 << 33}
	if _, err := delta.ReadTable(file, file.size, []pack.Range{{Offset: 0, Length: 4096}}); err == nil || file.read > len(footer) {
		t.Errorf("%d bytes were read, %v; want the footer and a refusal", file.read, err)
	}
}

type sparseFile struct {
	tail []byte
	size int64
	read int
}

func (s *sparseFile) ReadAt(p []byte, off int64) (int, error) {
	s.read += len(p)
	clear(p)
	if from := s.size - int64(len(s.tail)); off >= from {
		copy(p, s.tail[off-from:])
	}
	return len(p), nil
}

// A frame that decodes to more than its ranges hold is cut off, not allocated.
func TestBomb(t *testing.T) {
	p := newPair()
	p.images.NewRanges = p.images.NewRanges[2:3]
	file, table := p.write(t)
	// 16 MiB of zeros as raw-length RLE blocks, without a content size.
	bomb := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3}
	for range 127 {
		bomb = append(bomb, 2, 0, 0x10, 0)
	}
	bomb = append(bomb, 3, 0, 0x10, 0)
	table.Frames[0].Packed = int64(len(bomb))
	file = append(bomb, file...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	bad := p.make(t, table, bytes.NewReader(file), p.old)
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; len(bad) != 1 || grown > 24<<20 {
		t.Errorf("%d groups were refused, %d bytes allocated", len(bad), grown)
	}
}

// counted counts the bytes that are read of a delta.
type counted struct {
	io.ReaderAt
	n atomic.Int64
}

func (c *counted) ReadAt(p []byte, off int64) (int, error) {
	c.n.Add(int64(len(p)))
	return c.ReaderAt.ReadAt(p, off)
}

// A delta never costs more than its budget, the worth of its right groups, and the bytes fetched ahead.
func TestBudget(t *testing.T) {
	const groups, size = 10, 300 << 10
	noise := make([]byte, groups*size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	p := &pair{old: text(1, 70_000), new: noise}
	p.images = delta.Images{Identity: delta.Identity{BaseSize: 70_000}, Old: bytes.NewReader(p.old), New: bytes.NewReader(noise)}
	for i := range int64(groups) {
		p.images.NewRanges = append(p.images.NewRanges, pack.Range{Offset: i * size, Length: size})
	}
	data, table := p.write(t)
	all, none := func(delta.Frame) bool { return true }, func(delta.Frame) bool { return false }
	for _, tc := range []struct {
		name          string
		budget, worth int64 // in packed groups, by half
		right         func(f delta.Frame) bool
		made          int
	}{
		{"all wrong", 5, 2, none, 0},
		{"all right", 5, 2, all, groups},
		{"right, and worth nothing", 5, 0, all, 2},
		{"right, and worth half", 5, 1, all, 4},
		{"wrong behind the fifth", 5, 2, func(f delta.Frame) bool { return f.First < 5 }, 5},
		{"less than a group", 1, 2, all, 0},
		{"no limit", 0, 0, all, groups},
	} {
		t.Run(tc.name, func(t *testing.T) {
			half := table.Frames[0].Packed/2 + 100
			file, made := &counted{ReaderAt: bytes.NewReader(data)}, 0
			r, err := table.NewReader(t.Context(), delta.Source{File: file, Old: bytes.NewReader(p.old), Frames: table.Frames,
				Budget: tc.budget * half, Worth: func(delta.Frame) int64 { return tc.worth * half },
				Check: func(f delta.Frame, _ []byte) error {
					if !tc.right(f) {
						return errors.New("wrong")
					}
					return nil
				}})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			for g := r.Next(); g != nil; g = r.Next() {
				if g.Err == nil {
					made++
				}
			}
			if most := (tc.budget + int64(made)*tc.worth) * half; made != tc.made || tc.budget > 0 && file.n.Load() > most {
				t.Errorf("%d groups were made, %d bytes fetched; want %d, and at most %d", made, file.n.Load(), tc.made, most)
			}
		})
	}
}

func TestCancelled(t *testing.T) {
	p := newPair()
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stopped")
	cancel(stop)
	if _, err := delta.Write(ctx, io.Discard, p.images); !errors.Is(err, stop) {
		t.Errorf("Write: %v", err)
	}
	_, table := p.write(t)
	if _, err := table.Sound(ctx, bytes.NewReader(p.old), nil, nil); !errors.Is(err, stop) {
		t.Errorf("Sound: %v", err)
	}
	ctx, cancel = context.WithCancelCause(t.Context())
	blocked := blockedReader(make(chan struct{}))
	r, err := table.NewReader(ctx, delta.Source{File: blocked, Old: bytes.NewReader(p.old), Frames: table.Frames})
	if err != nil {
		t.Fatal(err)
	}
	cancel(stop)
	close(blocked)
	r.Close() // returns
}

type blockedReader chan struct{}

func (b blockedReader) ReadAt([]byte, int64) (int, error) { <-b; return 0, io.ErrClosedPipe }

// The zstd program decodes a frame with the dictionary made of its windows.
func TestZstdProgram(t *testing.T) {
	if _, err := exec.LookPath("zstd"); err != nil {
		t.Skip("zstd is not installed")
	}
	p := newPair()
	file, table := p.write(t)
	dir := t.TempDir()
	for i, f := range table.Frames {
		var dict []byte
		for _, w := range table.Dictionary(f) {
			dict = append(dict, p.old[w.Offset:w.Offset+int64(w.Length)]...)
		}
		name := filepath.Join(dir, "dict")
		if err := os.WriteFile(name, dict, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("zstd", "-d", "-c", "-D", name)
		cmd.Stdin = bytes.NewReader(file[f.At : f.At+f.Packed])
		if got, err := cmd.Output(); err != nil || !bytes.Equal(got, p.content(f)) {
			t.Errorf("frame %d: %d bytes, %v; want %d", i, len(got), err, f.Length)
		}
	}
}

// FuzzReadTable checks the properties of every accepted table, and that its frames make no wrong group.
func FuzzReadTable(f *testing.F) {
	p := newPair()
	p.images.NewRanges = p.images.NewRanges[2:4]
	file, table := p.write(f)
	end := table.Frames[len(table.Frames)-1].At + table.Frames[len(table.Frames)-1].Packed
	f.Add(file[end+8 : len(file)-16])
	f.Add(file[end+8 : len(file)-20])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		data := append(bytes.Clone(file[:end]), 0x5d, 0x2a, 0x4d, 0x18)
		data = append(binary.LittleEndian.AppendUint32(data, uint32(len(body)+16)), body...)
		data = binary.LittleEndian.AppendUint32(data, uint32(len(body)))
		data = binary.LittleEndian.AppendUint32(data, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
		data = append(binary.LittleEndian.AppendUint32(data, 1), "DLTA"...)
		table, err := delta.ReadTable(bytes.NewReader(data), int64(len(data)), p.images.NewRanges)
		if err != nil {
			return
		}
		var made int64
		for _, f := range table.Frames {
			made += f.Length
			var dict int64
			for _, w := range table.Dictionary(f) {
				if w.Length <= 0 || w.Offset+int64(w.Length) > table.BaseSize {
					t.Fatalf("a window at %d of %d bytes; the old image has %d", w.Offset, w.Length, table.BaseSize)
				}
				dict += int64(w.Length)
			}
			if dict > delta.MaxDictionary || f.At+f.Packed > end {
				t.Fatalf("a dictionary of %d bytes, a frame that ends at %d of %d", dict, f.At+f.Packed, end)
			}
		}
		if want := p.images.NewRanges[0].Length + p.images.NewRanges[1].Length; made != want {
			t.Fatalf("the frames make %d bytes; want %d", made, want)
		}
		p.make(t, table, bytes.NewReader(data), p.old)
	})
}
