package source_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"updater/source"
)

// members are files of several frames, blocks or streams, each small enough to be cut at every byte.
func members(t *testing.T) []struct {
	name   string
	pieces [][]byte // a file may end after each of them
} {
	data := sample(700)
	named := filepath.Join(t.TempDir(), "name.img")
	if err := os.WriteFile(named, data, 0o600); err != nil {
		t.Fatal(err)
	}
	pack := func(args ...string) []byte { return compress(t, data, args...) }
	skippable := []byte("\x50\x2a\x4d\x18\x03\x00\x00\x00abc")
	return []struct {
		name   string
		pieces [][]byte
	}{
		{"gzip with names", [][]byte{pack("gzip", "-c", named), pack("gzip", "-c", named)}},
		{"gzip with padding", [][]byte{pack("gzip", "-c"), {0}, {0}, {0}}},
		{"zstd", [][]byte{pack("zstd", "-c"), skippable, pack("zstd", "-c", "--no-check")}},
		{"zstd behind a skippable frame", [][]byte{skippable, pack("zstd", "-c"), pack("zstd", "-c")}},
		{"xz with padding", [][]byte{pack("xz", "-c", "--lzma2=dict=64KiB", "--block-size=256"),
			make([]byte, 4), make([]byte, 4), pack("xz", "-c", "--lzma2=dict=64KiB", "--check=none")}},
		{"lz4", [][]byte{pack("lz4", "-c", "-B32"), skippable, pack("lz4", "-c", "-BX", "--no-frame-crc", "-B32")}},
		{"bzip2", [][]byte{pack("bzip2", "-c", "-1"), pack("bzip2", "-c", "-1")}},
	}
}

func TestCutMembers(t *testing.T) {
	for _, m := range members(t) {
		t.Run(m.name, func(t *testing.T) {
			var whole []byte
			borders := map[int]bool{0: true} // of nothing at all, which is raw
			for _, p := range m.pieces {
				whole = append(whole, p...)
				borders[len(whole)] = true
			}
			for n := range len(whole) + 1 {
				got, err := decode(whole[:n])
				if borders[n] {
					if err != nil {
						t.Errorf("cut at %d, between two members: %v", n, err)
					}
					continue
				}
				if _, ok := errors.AsType[*source.CorruptError](err); !ok {
					t.Errorf("cut at %d of %d: %d bytes, %v; want a CorruptError", n, len(whole), len(got), err)
				}
			}
		})
	}
}

func TestRefusedEnds(t *testing.T) {
	data := sample(700)
	zeros := make([]byte, 512)
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"gzip, more behind the zeros", slices.Concat(compress(t, data, "gzip", "-c"), zeros, []byte("x")), "after the end of a member"},
		{"gzip, a member behind the zeros", slices.Concat(compress(t, data, "gzip", "-c"), zeros, compress(t, data, "gzip", "-c")), "after the end of a member"},
		{"zstd, padded", append(compress(t, data, "zstd", "-c"), zeros...), "after the end of a frame"},
		{"lz4, padded", append(compress(t, data, "lz4", "-c"), zeros...), "after the end of a frame"},
		{"bzip2, padded", append(compress(t, data, "bzip2", "-c"), zeros...), "bzip2"},
		{"xz, padding of 3", append(compress(t, data, "xz", "-c"), 0, 0, 0), "corrupt"},
		{"lz4, legacy frame second", append(compress(t, data, "lz4", "-c"), compress(t, data, "lz4", "-l", "-c")...), "after the end of a frame"},
		{"gzip then xz", append(compress(t, data, "gzip", "-c"), compress(t, data, "xz", "-c")...), "after the end of a member"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := decode(c.data); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v; want one with %q", err, c.want)
			}
		})
	}
}

// An error of the origin is distinguished from damage.
func TestOriginErrors(t *testing.T) {
	data := sample(1 << 20)
	for _, c := range []string{"gzip", "zstd", "xz", "lz4", "bzip2", "cat"} {
		t.Run(c, func(t *testing.T) {
			packed := data
			if c != "cat" {
				packed = compress(t, data, c, "-c")
			}
			for _, n := range []int{0, 3, 10, 500, len(packed) / 2, len(packed)} {
				for want, r := range map[error]io.Reader{
					syscall.EIO:       io.MultiReader(bytes.NewReader(packed[:n]), iotest.ErrReader(syscall.EIO)),
					iotest.ErrTimeout: iotest.TimeoutReader(io.MultiReader(bytes.NewReader(packed[:n]), bytes.NewReader(packed[n:]))),
				} {
					img, err := source.NewImage(r, "image", source.Limits{})
					if err == nil {
						_, err = io.Copy(io.Discard, img)
						if again := img.End(); err != nil && again == nil {
							t.Errorf("%v after %d bytes: End() is nil", want, n)
						}
						img.Close()
					}
					if _, ok := errors.AsType[*source.CorruptError](err); ok || !errors.Is(err, want) {
						t.Errorf("%v after %d bytes: error is %v", want, n, err)
					}
				}
			}
		})
	}
}

// Small files that inflate a lot stream in bounded memory.
func TestBombs(t *testing.T) {
	const size = 48 << 20
	zeros := make([]byte, size)
	var bombs [][]byte
	codecs := []string{"gzip", "zstd", "xz", "lz4", "bzip2"}
	for _, c := range codecs {
		bombs = append(bombs, compress(t, zeros, c, "-c"))
	}
	for i, c := range codecs {
		runtime.GC()
		var before, now runtime.MemStats
		runtime.ReadMemStats(&before)
		img := open(t, bytes.NewReader(bombs[i]))
		var most uint64
		for img.Offset() < size {
			if err := img.Skip(8 << 20); err != nil {
				t.Fatalf("%s: %v", c, err)
			}
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapAlloc)
		}
		if err := img.End(); err != nil {
			t.Errorf("%s: End() = %v", c, err)
		}
		if grown := int64(most) - int64(before.HeapAlloc); grown > 28<<20 {
			t.Errorf("%s: %d bytes took %d MiB of heap", c, len(bombs[i]), grown>>20)
		}
		img.Close()
	}
}

// A frame of one segment has no window of its own: its content size is one.
func TestZstdSingleSegment(t *testing.T) {
	frame := []byte("\x28\xb5\x2f\xfd\xe0\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00")
	_, err := decode(frame)
	if e, ok := errors.AsType[*source.LimitError](err); !ok || e.Need != 1<<32 || e.Limit != 8<<20 {
		t.Errorf("a segment of 4 GiB: %v", err)
	}
}

func TestPzstd(t *testing.T) {
	data := sample(5 << 20)
	got, err := decode(compress(t, data, "pzstd", "-c", "-p", "2"))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v; want %d", len(got), err, len(data))
	}
}

func TestLimits(t *testing.T) {
	for _, l := range []source.Limits{{ZstdWindow: -1}, {XZDict: -1}, {XZDict: 1 << 32}} {
		if _, err := source.NewImage(strings.NewReader("raw bytes of an image"), "image", l); err == nil {
			t.Errorf("%+v was taken", l)
		}
	}
}

func TestFileLifetime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, sample(100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	img, err := source.Open(path, nil, source.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if err := img.Skip(1000); err != nil {
		t.Fatal(err)
	}
	if err := img.Skip(1 << 62); !errors.Is(err, io.ErrUnexpectedEOF) || img.Offset() != 1000 {
		t.Errorf("Skip past the end = %v, Offset %d; want it to stay at 1000", err, img.Offset())
	}
	if _, err := io.CopyN(io.Discard, img, 1000); err != nil {
		t.Fatal(err)
	}
	if read, total := img.Consumed(); read != 2000 || total != 100_000 {
		t.Errorf("Consumed() = %d, %d; want 2000, 100000", read, total)
	}
	if err := os.Truncate(path, 50_000); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, img); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a file that shrank: %v", err)
	}
	for range 2 {
		if err := img.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
	}
	if _, err := img.Read(make([]byte, 1)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Read of a closed image = %v", err)
	}
}

func TestOpenNamesTheKind(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Skipf("no FIFO here: %v", err)
	}
	for path, want := range map[string]string{fifo: "a FIFO", t.TempDir(): "a directory", "/dev/null": "a character device"} {
		if _, err := source.Open(path, nil, source.Limits{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%s) = %v; want %q", path, err, want)
		}
	}
	if _, err := source.Open("-", nil, source.Limits{}); err == nil {
		t.Error("standard input that is not there was opened")
	}
	if _, err := source.FindBmap("-"); err == nil || strings.Contains(err.Error(), "-.bmap") {
		t.Errorf("FindBmap(-) = %v", err)
	}
}

// FuzzChunks: the bytes read do not depend on how they arrive.
func FuzzChunks(f *testing.F) {
	data := sample(500)
	for _, c := range []string{"gzip", "zstd", "xz", "lz4", "bzip2"} {
		if _, err := exec.LookPath(c); err == nil {
			f.Add(compress(f, data, c, "-c"))
		}
	}
	f.Add([]byte("\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4F\x000")) // refused at once, or after the header
	f.Fuzz(func(t *testing.T, packed []byte) {
		read := func(r io.Reader) string {
			img, err := source.NewImage(r, "image", source.Limits{})
			if err != nil {
				return "refused"
			}
			defer img.Close()
			got, err := io.ReadAll(io.LimitReader(img, 1<<20))
			if err != nil {
				return "refused" // when opened or when read, and after how many bytes, is the library's choice
			}
			return fmt.Sprintf("%d bytes, %x", len(got), sha256.Sum256(got))
		}
		if a, b := read(bytes.NewReader(packed)), read(iotest.OneByteReader(bytes.NewReader(packed))); a != b {
			t.Fatalf("at once: %s; byte by byte: %s", a, b)
		}
	})
}
