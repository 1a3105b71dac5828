package pack_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"

	"updater/pack"
)

// image has data in its ranges, and zeros elsewhere.
func image(size int64, ranges []pack.Range) []byte {
	data := make([]byte, size)
	rng := rand.New(rand.NewPCG(1, 2))
	for _, r := range ranges {
		for i := r.Offset; i < r.Offset+r.Length; i++ {
			data[i] = byte(rng.Uint32() & 0x3f)
		}
	}
	return data
}

var shapes = []struct {
	name   string
	size   int64
	ranges []pack.Range
	frames int
}{
	{"one range", 300_000, []pack.Range{{0, 300_000}}, 11},
	{"no range", 300_000, nil, 1},
	{"gaps around", 9<<20 + 1000, []pack.Range{{4096, 8192}, {1 << 20, 1 << 20}, {2 << 20, 4096}, {9 << 20, 1000}}, 39},
	{"a long range", 5 << 20, []pack.Range{{0, 2 << 20}, {2 << 20, 2<<20 + 1}}, 131},
	{"a gap at the end", 1 << 20, []pack.Range{{0, 4096}}, 3},
}

func write(t testing.TB, data []byte, ranges []pack.Range, level int) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := pack.Write(t.Context(), &out, pack.Image{Data: bytes.NewReader(data), Size: int64(len(data)), Ranges: ranges}, level); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestWrite(t *testing.T) {
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	for _, s := range shapes {
		for _, level := range []int{1, 3, 9, 19} {
			t.Run(fmt.Sprintf("%s, level %d", s.name, level), func(t *testing.T) {
				data := image(s.size, s.ranges)
				packed := write(t, data, s.ranges, level)
				frames, err := pack.ReadTable(bytes.NewReader(packed), int64(len(packed)), 1000)
				if err != nil || len(frames) != s.frames {
					t.Fatalf("ReadTable: %d frames, %v; want %d", len(frames), err, s.frames)
				}
				for i, f := range frames {
					got, err := dec.DecodeAll(packed[f.At:f.At+f.Packed], nil)
					if err != nil || !bytes.Equal(got, data[f.Offset:f.Offset+f.Length]) {
						t.Fatalf("frame %d alone: %d bytes, %v", i, len(got), err)
					}
				}
				if end := frames[len(frames)-1]; end.Offset+end.Length != s.size {
					t.Errorf("the frames end at %d; want %d", end.Offset+end.Length, s.size)
				}
				if _, err := exec.LookPath("zstd"); err != nil {
					t.Skip("zstd is not installed")
				}
				cmd := exec.Command("zstd", "-d", "-c")
				cmd.Stdin = bytes.NewReader(packed)
				if got, err := cmd.Output(); err != nil || !bytes.Equal(got, data) {
					t.Errorf("zstd -d: %d bytes, %v; want the image", len(got), err)
				}
			})
		}
	}
}

// The bytes do not depend on the number of cores.
func TestReproducible(t *testing.T) {
	s := shapes[2]
	data := image(s.size, s.ranges)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	one := write(t, data, s.ranges, 3)
	for range 3 {
		runtime.GOMAXPROCS(7)
		if !bytes.Equal(write(t, data, s.ranges, 3), one) {
			t.Fatal("other bytes on 7 cores than on 1")
		}
	}
}

// A large gap costs next to nothing, and its window is small.
func TestGapIsSmall(t *testing.T) {
	const size = 3<<30 + 5
	var out bytes.Buffer
	if err := pack.Write(t.Context(), &out, pack.Image{Data: bytes.NewReader(nil), Size: size, Ranges: nil}, 3); err != nil {
		t.Fatal(err)
	}
	if out.Len() > 128<<10 {
		t.Errorf("3 GiB of zeros take %d bytes", out.Len())
	}
	var head zstd.Header
	if err := head.Decode(out.Bytes()); err != nil || head.WindowSize > 128<<10 || head.FrameContentSize != 1<<30 {
		t.Errorf("the first frame: window %d, content %d, %v", head.WindowSize, head.FrameContentSize, err)
	}
}

type failingWriter struct{ left int }

var errFull = errors.New("no space")

func (f *failingWriter) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestWriteFails(t *testing.T) {
	s := shapes[2]
	data := image(s.size, s.ranges)
	whole := len(write(t, data, s.ranges, 1))
	for _, left := range []int{0, 1000, whole / 2, whole - 1} {
		if err := pack.Write(t.Context(), &failingWriter{left}, pack.Image{Data: bytes.NewReader(data), Size: s.size, Ranges: s.ranges}, 1); !errors.Is(err, errFull) {
			t.Errorf("a disk full after %d bytes: %v", left, err)
		}
	}
	if err := pack.Write(t.Context(), io.Discard, pack.Image{Data: bytes.NewReader(data[:1<<20]), Size: s.size, Ranges: s.ranges}, 1); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a short image: %v", err)
	}
	stop := errors.New("stopped")
	for n := range 8 {
		ctx, cancel := context.WithCancelCause(t.Context())
		w := &countdown{n: n, do: func() { cancel(stop) }}
		if n == 0 {
			cancel(stop)
		}
		if err := pack.Write(ctx, w, pack.Image{Data: bytes.NewReader(data), Size: s.size, Ranges: s.ranges}, 1); err == nil && w.n > 0 || err != nil && !errors.Is(err, stop) {
			t.Errorf("cancelled at write %d: %v", n, err)
		}
		cancel(nil)
	}
	for _, level := range []int{0, -1, 20} {
		if err := pack.Write(t.Context(), io.Discard, pack.Image{Data: bytes.NewReader(data), Size: s.size, Ranges: s.ranges}, level); err == nil {
			t.Errorf("level %d was taken", level)
		}
	}
}

type countdown struct {
	n  int
	do func()
}

func (c *countdown) Write(p []byte) (int, error) {
	if c.n--; c.n == 0 {
		c.do()
	}
	return len(p), nil
}

// The limit of a map admits every file that Write makes of it.
func TestFrames(t *testing.T) {
	for _, s := range shapes {
		if limit := pack.Frames(s.size, len(s.ranges)); s.frames > limit {
			t.Errorf("%s: %d frames, Frames = %d", s.name, s.frames, limit)
		}
	}
}

// A table of more frames than allowed is refused by its footer: neither read nor allocated.
func TestReadTableLimit(t *testing.T) {
	const count, size = 8 << 20, 1 << 30
	footer := binary.LittleEndian.AppendUint32(nil, count)
	footer = binary.LittleEndian.AppendUint32(append(footer, 0), 0x8F92EAB1)
	file := countingReader{tail: tailReader{footer, size}}
	_, err := pack.ReadTable(&file, size, pack.Frames(64<<20, 100))
	if err == nil || file.read > 9 {
		t.Errorf("ReadTable read %d bytes, %v; want the footer and a refusal", file.read, err)
	}
	if _, err = pack.ReadTable(&file, size, count-1); err == nil || file.read > 18 {
		t.Errorf("one frame more than the limit: %d bytes read, %v", file.read, err)
	}
}

type countingReader struct {
	tail tailReader
	read int
}

func (c *countingReader) ReadAt(p []byte, off int64) (int, error) {
	c.read += len(p)
	return c.tail.ReadAt(p, off)
}

func TestReadTableRefuses(t *testing.T) {
	s := shapes[2]
	good := write(t, image(s.size, s.ranges), s.ranges, 1)
	n := len(good)
	put := func(at int, v uint32) []byte {
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint32(b[at:], v)
		return b
	}
	head := n - 9 - 8*s.frames - 8
	for name, data := range map[string][]byte{
		"empty": nil, "short": good[n-5:], "no footer": good[:n-1], "too many frames": put(n-9, 1<<31), "one frame more": put(n-9, uint32(s.frames)+1),
		"no frames": put(n-9, 0), "reserved flag": put(n-5, 0xB1000000|uint32(good[n-5])|4), "other magic": put(head, 0x184D2A50), "other length": put(head+4, 5),
		"a frame of no bytes": put(head+8, 0), "a longer frame": put(head+8, 1<<30), "bytes before": append([]byte{0}, good...),
	} {
		if name == "reserved flag" {
			data = bytes.Clone(good)
			data[n-5] = 4
		}
		if frames, err := pack.ReadTable(bytes.NewReader(data), int64(len(data)), 1000); err == nil {
			t.Errorf("%s: %d frames were taken", name, len(frames))
		}
	}
	if _, err := pack.ReadTable(bytes.NewReader(good[:n-1]), int64(n-1), 1000); !errors.Is(err, pack.ErrNoTable) {
		t.Errorf("no footer: %v; want ErrNoTable", err)
	}
	broken := struct{ io.ReaderAt }{readerAt{iotest.ErrReader(errFull)}}
	if _, err := pack.ReadTable(broken, 1000, 1000); !errors.Is(err, errFull) {
		t.Errorf("a broken medium: %v", err)
	}
}

type readerAt struct{ r io.Reader }

func (r readerAt) ReadAt(p []byte, _ int64) (int, error) { return r.r.Read(p) }

func FuzzReadTable(f *testing.F) {
	s := shapes[2]
	good := write(f, image(s.size, s.ranges), s.ranges, 1)
	tail := good[len(good)-9-8*s.frames-8:]
	f.Add(tail, int64(len(good)))
	f.Add(tail, int64(len(tail)))
	f.Add([]byte("\x5e\x2a\x4d\x18\x09\x00\x00\x00\x00\x00\x00\x00\x00\xb1\xea\x92\x8f"), int64(17))
	f.Add([]byte("\x5e\x2a\x4d\x18\x15\x00\x00\x00\x05\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x80\xb1\xea\x92\x8f"), int64(34))
	f.Fuzz(func(t *testing.T, tail []byte, size int64) {
		if size < int64(len(tail)) {
			return
		}
		frames, err := pack.ReadTable(tailReader{tail, size}, size, 1000)
		if err != nil {
			return
		}
		var at, offset int64
		for i, fr := range frames {
			if fr.At != at || fr.Offset != offset || fr.Packed <= 0 || fr.Length < 0 {
				t.Fatalf("frame %d is %+v, behind file byte %d and image byte %d", i, fr, at, offset)
			}
			at, offset = at+fr.Packed, offset+fr.Length
		}
		if at > size-17 || int64(len(frames)) > size/8 {
			t.Fatalf("%d frames end at %d of %d bytes", len(frames), at, size)
		}
	})
}

// tailReader is a file of zeros that ends in tail.
type tailReader struct {
	tail []byte
	size int64
}

func (r tailReader) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if from := r.size - int64(len(r.tail)); off+int64(len(p)) > from {
		copy(p[max(0, from-off):], r.tail[max(0, off-from):])
	}
	return len(p), nil
}
