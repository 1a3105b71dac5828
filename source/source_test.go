package source_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"updater/source"
)

// sample is data that compresses in part, with a long run of zeros.
func sample(n int) []byte {
	data := make([]byte, n)
	rng := rand.New(rand.NewPCG(3, 4))
	for i := 0; i < n/3; i++ {
		data[i] = byte(rng.Uint32())
	}
	for i := n / 3; i < n/2; i++ {
		data[i] = "updater"[i%7]
	}
	return data
}

// compress runs a real compressor.
func compress(t testing.TB, data []byte, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(args[0]); err != nil {
		t.Skipf("%s is not installed", args[0])
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = bytes.NewReader(data)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v: %s", args, err, errs.String())
	}
	return out
}

// tools are the programs and options that build systems use.
var tools = []struct {
	codec string
	args  []string
}{
	{"gzip", []string{"gzip", "-c", "-1"}}, {"gzip", []string{"gzip", "-c", "-9"}}, {"gzip", []string{"gzip", "-c", "--rsyncable"}},
	{"zstd", []string{"zstd", "-c", "-1"}}, {"zstd", []string{"zstd", "-c", "-19"}}, {"zstd", []string{"zstd", "-c", "-T0"}},
	{"zstd", []string{"zstd", "-c", "-T2", "--rsyncable"}}, {"zstd", []string{"zstd", "-c", "--long=23"}}, {"zstd", []string{"zstd", "-c", "--no-check"}},
	{"xz", []string{"xz", "-c", "-0"}}, {"xz", []string{"xz", "-c", "-6"}}, {"xz", []string{"xz", "-c", "-T2", "--block-size=65536"}},
	{"xz", []string{"xz", "-c", "--armthumb", "--lzma2"}}, {"xz", []string{"xz", "-c", "--delta=dist=4", "--lzma2"}},
	{"xz", []string{"xz", "-c", "--x86", "--lzma2"}}, {"xz", []string{"xz", "-c", "--check=sha256"}},
	{"lz4", []string{"lz4", "-c", "-1"}}, {"lz4", []string{"lz4", "-c", "-9", "-BD", "-B4"}}, {"lz4", []string{"lz4", "-c", "--content-size"}},
	{"bzip2", []string{"bzip2", "-c", "-1"}}, {"bzip2", []string{"bzip2", "-c", "-9"}},
}

func open(t testing.TB, r io.Reader) *source.Image {
	t.Helper()
	img, err := source.NewImage(r, "image", source.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return img
}

// decode reads a container to its end.
func decode(data []byte) ([]byte, error) {
	img, err := source.NewImage(bytes.NewReader(data), "image", source.Limits{})
	if err != nil {
		return nil, err
	}
	defer img.Close()
	return io.ReadAll(img)
}

func TestTools(t *testing.T) {
	want := sample(400_000)
	for _, c := range tools {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			packed := compress(t, want, c.args...)
			for name, r := range map[string]io.Reader{
				"plain": bytes.NewReader(packed), "one byte": iotest.OneByteReader(bytes.NewReader(packed)),
				"data with EOF": iotest.DataErrReader(bytes.NewReader(packed)),
			} {
				img := open(t, r)
				if img.Codec() != c.codec {
					t.Fatalf("%s: Codec() = %s; want %s", name, img.Codec(), c.codec)
				}
				got, err := io.ReadAll(img)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %d bytes, %v; want the %d that were compressed", name, len(got), err, len(want))
				}
				if err := img.End(); err != nil {
					t.Errorf("%s: End() = %v", name, err)
				}
			}
			twice, err := decode(append(bytes.Clone(packed), packed...))
			if err != nil || len(twice) != 2*len(want) {
				t.Errorf("two members: %d bytes, %v; want %d", len(twice), err, 2*len(want))
			}
			for _, junk := range []string{"x", "trailing garbage", strings.Repeat("\x00", 512) + "x"} {
				if _, err := decode(append(bytes.Clone(packed), junk...)); err == nil {
					t.Errorf("%d bytes behind the end were taken", len(junk))
				}
			}
			broken := errors.New("broken")
			img, err := source.NewImage(io.MultiReader(bytes.NewReader(packed[:len(packed)/2]), iotest.ErrReader(broken)), "image", source.Limits{})
			if err == nil {
				_, err = io.ReadAll(img)
				img.Close()
			}
			if !errors.Is(err, broken) {
				t.Errorf("a failing medium gives %v", err)
			}
		})
	}
}

// lean returns options that reduce only the memory that decoding a container takes: a dictionary of 64 KiB, and blocks of 100 kB.
// Without them, tests that decode at every byte would mostly clear memory.
func lean(args []string) []string {
	switch args[0] {
	case "xz":
		preset := "6"
		if slices.Contains(args, "-0") {
			preset = "0"
		}
		args = slices.DeleteFunc(slices.Clone(args), func(a string) bool { return a == "-0" || a == "-6" || a == "--lzma2" })
		return append(args, "--lzma2=preset="+preset+",dict=64KiB")
	case "bzip2":
		return []string{"bzip2", "-c", "-1"}
	}
	return args
}

// A cut at any byte is never a clean end.
func TestTruncated(t *testing.T) {
	data := sample(600)
	for _, c := range tools {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			t.Parallel()
			packed := compress(t, data, lean(c.args)...)
			for n := 12; n < len(packed); n++ {
				got, err := decode(packed[:n])
				if err == nil {
					t.Fatalf("cut at %d of %d: %d bytes and a clean end", n, len(packed), len(got))
				}
				corrupt, ok := errors.AsType[*source.CorruptError](err)
				if !ok || corrupt.Codec != c.codec {
					t.Fatalf("cut at %d: %v; want a CorruptError of %s", n, err, c.codec)
				}
				if !bytes.HasPrefix(data, got) {
					t.Fatalf("cut at %d: wrong bytes before the error", n)
				}
			}
		})
	}
}

// An lz4 file cut exactly after a block has no end mark, which the library alone does not notice.
func TestTruncatedBehindBlock(t *testing.T) {
	packed := compress(t, sample(400_000), "lz4", "-c", "-B4", "--no-frame-crc")
	cuts := 0
	for at := 7; at+4 < len(packed); cuts++ {
		at += 4 + int(binary.LittleEndian.Uint32(packed[at:])&^(1<<31))
		if _, err := decode(packed[:at]); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d of %d: %v; want an unexpected EOF", at, len(packed), err)
		}
	}
	if cuts < 5 {
		t.Errorf("only %d blocks", cuts)
	}
}

// A flipped bit is an error or changes nothing; with a checksum it never gives other bytes to the end.
func TestBitFlips(t *testing.T) {
	data := sample(600)
	for _, c := range tools {
		if c.args[len(c.args)-1] == "--no-check" {
			continue
		}
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			t.Parallel()
			packed := compress(t, data, lean(c.args)...)
			for i := 12; i < len(packed); i++ {
				flipped := bytes.Clone(packed)
				flipped[i] ^= 1 << (i % 8)
				if got, err := decode(flipped); err == nil && !bytes.Equal(got, data) {
					t.Fatalf("bit of byte %d flipped: other bytes without an error", i)
				}
			}
		})
	}
}

// Memory is bounded: windows and dictionaries beyond the limit are refused with advice, and a bomb streams.
func TestMemory(t *testing.T) {
	data := sample(1 << 20)
	long := compress(t, append(bytes.Repeat(data, 20), data...), "zstd", "-c", "--long=27")
	_, err := decode(long)
	if e, ok := errors.AsType[*source.LimitError](err); !ok || e.Need != 128<<20 || e.Limit != 8<<20 {
		t.Errorf("a zstd window of 128 MiB: %v", err)
	}
	big := compress(t, data, "xz", "-c", "-9")
	_, err = decode(big)
	if e, ok := errors.AsType[*source.LimitError](err); !ok || e.Need != 64<<20 || e.Limit != 16<<20 {
		t.Errorf("an xz dictionary of 64 MiB: %v", err)
	}
	img, err := source.NewImage(bytes.NewReader(big), "image", source.Limits{XZDict: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(img); err != nil || !bytes.Equal(got, data) {
		t.Errorf("an xz dictionary within the limit: %v", err)
	}
	const size = 128 << 20
	bomb := compress(t, make([]byte, size), "zstd", "-c", "-3")
	img = open(t, bytes.NewReader(bomb))
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if n, err := io.Copy(io.Discard, img); n != size || err != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 48<<20 {
		t.Errorf("%d bytes of bomb took %d MiB of memory", len(bomb), grown>>20)
	}
}

func TestRawFile(t *testing.T) {
	data := sample(3 << 20)
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	img, err := source.Open(path, nil, source.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if read, total := img.Consumed(); img.Codec() != "raw" || total != int64(len(data)) || read > total {
		t.Errorf("Codec %s, Consumed %d of %d", img.Codec(), read, total)
	}
	buf := make([]byte, 1000)
	for _, skip := range []int64{0, 5, 1 << 20, 4096} {
		if err := img.Skip(skip); err != nil {
			t.Fatal(err)
		}
		at := img.Offset()
		if _, err := io.ReadFull(img, buf); err != nil || !bytes.Equal(buf, data[at:at+1000]) {
			t.Fatalf("after Skip(%d) at %d: wrong bytes, %v", skip, at, err)
		}
	}
	if err := img.End(); err == nil {
		t.Error("End() in the middle is nil")
	} else if _, ok := errors.AsType[*source.TrailingError](err); !ok {
		t.Errorf("End() in the middle = %v; want a TrailingError", err)
	}
	if err := img.Skip(int64(len(data))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Skip past the end = %v", err)
	}
}

func TestSkipDecodes(t *testing.T) {
	data := sample(1 << 20)
	for _, codec := range []string{"gzip", "zstd", "xz", "lz4", "bzip2"} {
		path := filepath.Join(t.TempDir(), "image")
		if err := os.WriteFile(path, compress(t, data, codec, "-c"), 0o600); err != nil {
			t.Fatal(err)
		}
		img, err := source.Open(path, nil, source.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if err := img.Skip(700_000); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(img)
		if err != nil || !bytes.Equal(rest, data[700_000:]) {
			t.Errorf("%s: after Skip %d bytes, %v", codec, len(rest), err)
		}
		if read, total := img.Consumed(); read != total {
			t.Errorf("%s: Consumed %d of %d at the end", codec, read, total)
		}
		if err := img.Skip(1); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: Skip past the end = %v", codec, err)
		}
		img.Close()
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, path := range []string{t.TempDir(), "/dev/null", filepath.Join(t.TempDir(), "none")} {
		if img, err := source.Open(path, nil, source.Limits{}); err == nil {
			img.Close()
			t.Errorf("Open(%s) succeeded", path)
		}
	}
	img, err := source.Open("-", strings.NewReader("raw bytes"), source.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(img); string(got) != "raw bytes" || err != nil || img.Name() != "standard input" {
		t.Errorf("standard input: %q, %v, %s", got, err, img.Name())
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	touch := func(names ...string) {
		for _, n := range names {
			if err := os.WriteFile(filepath.Join(dir, n), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	touch("d.img.xz", "a.img.bmap", "b.bmap", "c.img.zst.bmap", "c.img.bmap", "a.img.bmap.sig", "b.bmap.asc", "b.bmap.sig")
	for image, want := range map[string]string{
		"a.img": "a.img.bmap", "a.img.zst": "a.img.bmap", "b.tar.gz": "b.bmap", "c.img.zst": "c.img.zst.bmap", "d.img.xz": "",
	} {
		got, err := source.FindBmap(filepath.Join(dir, image))
		if want == "" {
			if err == nil || !strings.Contains(err.Error(), "d.img.xz.bmap") || !strings.Contains(err.Error(), "d.bmap") {
				t.Errorf("FindBmap(%s) = %s, %v; want the names that were tried", image, got, err)
			}
			continue
		}
		if err != nil || filepath.Base(got) != want {
			t.Errorf("FindBmap(%s) = %s, %v; want %s", image, got, err, want)
		}
	}
	for bmap, want := range map[string]string{"a.img.bmap": "a.img.bmap.sig", "b.bmap": "b.bmap.asc", "c.img.bmap": ""} {
		if got, ok := source.FindSignature(filepath.Join(dir, bmap)); ok != (want != "") || ok && filepath.Base(got) != want {
			t.Errorf("FindSignature(%s) = %s, %v; want %q", bmap, got, ok, want)
		}
	}
}

func FuzzImage(f *testing.F) {
	data := sample(2000)
	for _, codec := range []string{"gzip", "zstd", "xz", "lz4", "bzip2"} {
		if _, err := exec.LookPath(codec); err == nil {
			f.Add(compress(f, data, codec, "-c"))
		}
	}
	_, file := packed(f)
	f.Add(file[:len(file)/8])
	f.Add([]byte("raw"))
	f.Add([]byte("\x50\x2a\x4d\x18\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, packed []byte) {
		img, err := source.NewImage(bytes.NewReader(packed), "image", source.Limits{})
		if err != nil {
			return
		}
		defer img.Close()
		n, err := io.Copy(io.Discard, io.LimitReader(img, 16<<20))
		if err == nil && n < 16<<20 && img.End() != nil {
			t.Fatal("End() is an error after a clean end")
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	data := sample(64 << 20)
	for _, codec := range []string{"gzip", "zstd", "xz", "lz4", "bzip2"} {
		packed := compress(b, data, codec, "-c")
		b.Run(codec, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				img := open(b, bytes.NewReader(packed))
				if _, err := io.Copy(io.Discard, img); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
