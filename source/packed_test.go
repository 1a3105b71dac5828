package source_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"updater/pack"
	"updater/source"
)

// packed makes an image with gaps, and its packed file: short frames of data, and some of zeros, one of which is
// too long to be decoded whole.
func packed(t testing.TB) (image, file []byte) {
	t.Helper()
	image = sample(9 << 20)
	clear(image[5<<20 : 8<<20])
	var out bytes.Buffer
	ranges := []pack.Range{{Offset: 0, Length: 70_000}, {Offset: 1 << 20, Length: 1 << 20}, {Offset: 2 << 20, Length: 3 << 20}, {Offset: 8 << 20, Length: 1<<20 - 5}}
	clear(image[70_000 : 1<<20])
	clear(image[len(image)-5:])
	if err := pack.Write(t.Context(), &out, pack.Image{Data: bytes.NewReader(image), Size: int64(len(image)), Ranges: ranges}, 1); err != nil {
		t.Fatal(err)
	}
	return image, out.Bytes()
}

// Reading and skipping in any order gives the bytes of the image, also where skipping decodes nothing.
func TestPackedReadsAndSkips(t *testing.T) {
	noLeak(t)
	image, file := packed(t)
	rng := rand.New(rand.NewPCG(5, 6))
	for range 30 {
		img := open(t, bytes.NewReader(file))
		for img.Offset() < int64(len(image)) {
			n := min(int64(1)<<rng.IntN(23)+rng.Int64N(100), int64(len(image))-img.Offset())
			if rng.IntN(2) == 0 {
				if err := img.Skip(n); err != nil {
					t.Fatal(err)
				}
				continue
			}
			at := img.Offset()
			got := make([]byte, n)
			if _, err := io.ReadFull(img, got); err != nil || !bytes.Equal(got, image[at:at+n]) {
				t.Fatalf("%d bytes at %d are wrong: %v", n, at, err)
			}
		}
		if err := img.End(); err != nil {
			t.Fatal(err)
		}
		if err := img.Skip(1); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("Skip past the end = %v", err)
		}
		img.Close()
	}
}

// A cut or damaged file is an error, wherever the fault is, also while frames are decoded ahead of it; so is a medium that fails.
func TestPackedDamage(t *testing.T) {
	noLeak(t)
	image, file := packed(t)
	frames, err := pack.ReadTable(bytes.NewReader(file), int64(len(file)), 1000)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range frames {
		if i > 3 && i < len(frames)-3 && f.Length == frames[i-1].Length && f.Length == frames[i+1].Length {
			continue // between frames that are alike
		}
		for _, at := range []int64{f.At + 1, f.At + 5, f.At + f.Packed/2, f.At + f.Packed - 1} {
			got, err := decode(file[:at])
			if _, ok := errors.AsType[*source.CorruptError](err); !ok || !bytes.HasPrefix(image, got) {
				t.Errorf("cut at %d in frame %d: %d bytes, %v; want a CorruptError", at, i, len(got), err)
			}
			// A frame of zeros has no checksum, and a file whose first magic is gone is raw.
			zeros := bytes.Count(image[f.Offset:f.Offset+f.Length], []byte{0}) == int(f.Length)
			bad := bytes.Clone(file)
			bad[at] ^= 0x10
			if got, err := decode(bad); err == nil && !bytes.Equal(got, image) && !zeros && at > 4 {
				t.Errorf("a flipped bit at %d in frame %d: other bytes without an error", at, i)
			}
			img, err := source.NewImage(io.MultiReader(bytes.NewReader(file[:at]), iotest.ErrReader(errBroken)), "image", source.Limits{})
			if err == nil {
				_, err = io.Copy(io.Discard, img)
				img.Close()
			}
			if !errors.Is(err, errBroken) {
				t.Errorf("a medium that fails at %d: %v", at, err)
			}
		}
	}
	// Closed in the middle, with frames under way.
	img := open(t, bytes.NewReader(file))
	if _, err := io.CopyN(io.Discard, img, 1000); err != nil {
		t.Fatal(err)
	}
	img.Close()
}

var errBroken = errors.New("broken")

// A frame whose head has a wrong length, and one that is too long compressed, are errors.
func TestFrameLies(t *testing.T) {
	_, file := packed(t)
	frames, err := pack.ReadTable(bytes.NewReader(file), int64(len(file)), 1000)
	if err != nil {
		t.Fatal(err)
	}
	gap := frames[1] // zeros, with the content size in bytes 6 to 13
	lie := bytes.Clone(file)
	lie[gap.At+6] ^= 1
	if _, err := decode(lie); err == nil {
		t.Error("a frame of another length was taken")
	}
	endless := append([]byte("\x28\xb5\x2f\xfd\xc0\x38\x05\x00\x00\x00\x00\x00\x00\x00"), bytes.Repeat([]byte{0, 0, 0}, 1<<20)...)
	if _, err := decode(endless); err == nil {
		t.Error("a frame of a million empty blocks was taken")
	}
}
