package source_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
	"testing/iotest"

	"updater/source"
)

// Files of several blocks, with and without their sizes, decode the same: the first ones two blocks at a time.
func TestXZBlocks(t *testing.T) {
	noLeak(t)
	data := sample(700_000)
	for name, args := range map[string][]string{
		"blocks with sizes":    {"xz", "-c", "-T2", "--block-size=65536", "--lzma2=dict=64KiB"},
		"blocks without sizes": {"xz", "-c", "-T1", "--block-size=65536", "--lzma2=dict=64KiB"},
		"no check":             {"xz", "-c", "-T2", "--check=none", "--block-size=65536", "--lzma2=dict=64KiB"},
		"sha256":               {"xz", "-c", "-T2", "--check=sha256", "--block-size=65536", "--lzma2=dict=64KiB"},
		"a block list":         {"xz", "-c", "-T2", "--block-list=1000,300000,1,5000", "--lzma2=dict=64KiB"},
		"x86":                  {"xz", "-c", "-T2", "--block-size=65536", "--x86", "--lzma2=dict=64KiB"},
	} {
		t.Run(name, func(t *testing.T) {
			packed := compress(t, data, args...)
			other := compress(t, data, "xz", "-c", "-0")
			for _, file := range [][]byte{
				packed, append(bytes.Clone(packed), packed...), append(append(bytes.Clone(packed), 0, 0, 0, 0), other...),
				append(append(bytes.Clone(other), 0, 0, 0, 0), packed...),
			} {
				want := bytes.Repeat(data, 1)
				if len(file) > len(packed) {
					want = bytes.Repeat(data, 2)
				}
				got, err := io.ReadAll(open(t, iotest.HalfReader(bytes.NewReader(file))))
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%d bytes, %v; want %d", len(got), err, len(want))
				}
			}
			rng := rand.New(rand.NewPCG(1, 1))
			for range 60 {
				at := 12 + rng.IntN(len(packed)-12)
				got, err := decode(packed[:at])
				if _, ok := errors.AsType[*source.CorruptError](err); !ok || !bytes.HasPrefix(data, got) {
					t.Errorf("cut at %d of %d: %d bytes, %v", at, len(packed), len(got), err)
				}
				bad := bytes.Clone(packed)
				bad[at] ^= 1 << rng.IntN(8)
				if got, err := decode(bad); err == nil && !bytes.Equal(got, data) && name != "no check" {
					t.Errorf("a bit of byte %d flipped: other bytes without an error", at)
				}
			}
			for at := len(packed) - 60; at < len(packed); at++ { // the index and the footer
				bad := bytes.Clone(packed)
				bad[at] ^= 1
				if _, err := decode(bad); err == nil {
					t.Errorf("a bit of byte %d of %d flipped, in the index or the footer, was taken", at, len(packed))
				}
			}
			img := open(t, bytes.NewReader(packed))
			if _, err := io.CopyN(io.Discard, img, 100_000); err != nil {
				t.Fatal(err)
			}
			img.Close() // with blocks under way
		})
	}
}

// Two blocks that fill the read-ahead decode, and so do blocks too long, packed, for two at a time.
func TestXZLongBlocks(t *testing.T) {
	noLeak(t)
	random := make([]byte, 18<<20)
	rand.NewChaCha8([32]byte{7}).Read(random)
	text := bytes.Repeat(sample(1<<16), 45<<4)
	for name, c := range map[string]struct {
		data  []byte
		block string
	}{"much ahead": {text, "20MiB"}, "one at a time": {random, "9MiB"}} {
		packed := compress(t, c.data, "xz", "-c", "-0", "-T2", "--block-size="+c.block)
		if got, err := io.ReadAll(open(t, bytes.NewReader(packed))); err != nil || !bytes.Equal(got, c.data) {
			t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(c.data))
		}
	}
}

// A block that does not fit the parallel decoder decodes after one that does, and the other way round, on one core and on several.
func TestXZMixedBlocks(t *testing.T) {
	noLeak(t)
	data := make([]byte, 45<<20) // compresses to nothing, and then not at all
	rand.NewChaCha8([32]byte{9}).Read(data[42<<20:])
	for name, args := range map[string][]string{
		"long at the end":   {"--block-list=4MiB,0"},
		"long first":        {"--block-list=40MiB,1MiB,1MiB"},
		"between":           {"--block-list=1MiB,42MiB,1MiB,1MiB"},
		"one, without size": {"-T1"},
	} {
		packed := compress(t, data, append([]string{"xz", "-c", "-0", "-T2"}, args...)...)
		for _, cores := range []int{1, 2} {
			func() {
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(cores))
				if got, err := io.ReadAll(open(t, bytes.NewReader(packed))); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%s on %d cores: %d bytes, %v; want %d", name, cores, len(got), err, len(data))
				}
				if name != "between" {
					return
				}
				for _, at := range []int{len(packed) - 100_000, len(packed) - 1} {
					if _, err := decode(packed[:at]); !errors.Is(err, io.ErrUnexpectedEOF) {
						t.Errorf("%s on %d cores, cut at %d: %v", name, cores, at, err)
					}
				}
			}()
		}
	}
}

// The stream header is checked also when no block follows that would be decoded with it.
func TestXZHeader(t *testing.T) {
	empty := compress(t, nil, "xz", "-c")
	if got, err := decode(empty); err != nil || len(got) > 0 {
		t.Fatalf("an empty stream: %d bytes, %v", len(got), err)
	}
	for at := range empty {
		bad := bytes.Clone(empty)
		bad[at] ^= 1
		if got, err := decode(bad); err == nil && at >= 6 {
			t.Errorf("a bit of byte %d flipped: %d bytes, no error", at, len(got))
		}
	}
}
