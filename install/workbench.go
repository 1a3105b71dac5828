package install

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math"
	"os"

	"updater/blockdev"
	"updater/bmap"
	"updater/delta"
	"updater/internal/atomicfile"
	"updater/pack"
	"updater/source"
	"updater/update"
)

// writeFile replaces a file by the bytes that write writes, durably.
func writeFile(path string, write func(w io.Writer) error) error {
	return atomicfile.WriteFunc(path, 0o644, func(out io.Writer) error {
		w := bufio.NewWriterSize(out, 256<<10)
		if err := write(w); err != nil {
			return err
		}
		return w.Flush()
	})
}

// Pack packs the ranges of a raw image into a zstd file. mapPath is the image's block map, with which the image is compared; "" is the one
// beside the image, which is created if it does not exist. Errors: update.ImageError, those of the files.
func Pack(ctx context.Context, image, mapPath, output string, level int) (*bmap.Map, error) {
	f, err := os.Open(image)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m, err := packMap(ctx, mapPath, f)
	if err != nil {
		return nil, err
	}
	return m, writeFile(output, func(w io.Writer) error {
		return pack.Write(ctx, w, pack.Image{Data: f, Size: m.ImageSize(), Ranges: PackRanges(m)}, level)
	})
}

// packMap reads the map of an image and compares the image with it, or creates the map.
func packMap(ctx context.Context, name string, image *os.File) (*bmap.Map, error) {
	if name == "" {
		name = image.Name() + ".bmap"
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			m, err := bmap.Create(ctx, image, bmap.CreateOptions{})
			if err != nil {
				return nil, err
			}
			return m, atomicfile.Write(name, m.Encode(), 0o644)
		}
	}
	m, err := ReadUnverifiedMap(name)
	if err != nil {
		return nil, err
	}
	if info, err := image.Stat(); err != nil {
		return nil, err
	} else if err := sameSize(info, image.Name(), m.Map); err != nil {
		return nil, err
	}
	return m.Map, bmap.Verify(ctx, m.Map, image, nil)
}

// sameSize compares the size of a regular file with the map.
func sameSize(info fs.FileInfo, name string, m *bmap.Map) error {
	if info.Mode().IsRegular() && info.Size() != m.ImageSize() {
		return &update.ImageError{Err: fmt.Errorf("%s has %d bytes, the bmap says %d", name, info.Size(), m.ImageSize())}
	}
	return nil
}

// CompareRaw compares a raw image or a device with a map. It reads a device past the page cache, which may hold bytes that the medium lost.
// Errors: those of [bmap.Verify]; [update.ImageError] for a file of the wrong size.
func CompareRaw(ctx context.Context, m *bmap.Map, path string, progress func(done, total int64)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := sameSize(info, path, m); err != nil {
		return err
	}
	var image io.ReaderAt = f
	if info.Mode()&fs.ModeType == fs.ModeDevice {
		d, err := blockdev.OpenPath(path, 0, 0, blockdev.ReadOnly)
		if err != nil {
			return err
		}
		defer d.Close()
		image = medium{d}
	}
	return bmap.Verify(ctx, m, image, progress)
}

// medium reads a device past the page cache.
type medium struct{ *blockdev.Device }

func (m medium) ReadAt(p []byte, off int64) (int, error) { return m.ReadBackAt(p, off) }

// MappedImage is a raw image that matches its block map. Close it.
type MappedImage struct {
	*bmap.Map
	Sum [sha256.Size]byte // of the map as it is signed
	raw *os.File
}

// Close releases the image.
func (i *MappedImage) Close() { _ = i.raw.Close() }

// OpenMapped opens an image, decoded into a temporary file if it is compressed, and compares it with its block map, whose signature is not
// checked.
func OpenMapped(ctx context.Context, path, mapPath string) (*MappedImage, error) {
	m, err := ReadUnverifiedMap(mapPath)
	if err != nil {
		return nil, err
	}
	i := &MappedImage{Map: m.Map, Sum: sha256.Sum256(m.Text)}
	if err := m.CheckSummed(); err != nil {
		return nil, err
	}
	img, err := source.Open(path, nil, source.Limits{})
	if err != nil {
		return nil, err
	}
	defer img.Close()
	if img.Codec() == "raw" {
		if i.raw, err = os.Open(path); err == nil {
			err = bmap.Verify(ctx, m.Map, i.raw, nil)
		}
	} else if i.raw, err = os.CreateTemp("", "updater-delta"); err == nil {
		_ = os.Remove(i.raw.Name()) // it lives as long as it is open
		err = update.Pieces(ctx, m.Map, img, func(p []byte, off int64) error { _, err := i.raw.WriteAt(p, off); return err })
		err = errors.Join(err, i.raw.Truncate(m.ImageSize()))
	}
	if err != nil {
		if i.raw != nil {
			i.raw.Close()
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return i, nil
}

// CreateDelta writes the delta from one image to another. progress is called with the bytes of the new image that were encoded since; it may be nil.
func CreateDelta(ctx context.Context, from, to *MappedImage, output string, progress func(n int64)) (t *delta.Table, err error) {
	in := delta.Images{
		Identity: delta.Identity{Base: from.Sum, Target: to.Sum, BaseSize: from.ImageSize()},
		Old:      from.raw, New: to.raw, OldRanges: PackRanges(from.Map), NewRanges: PackRanges(to.Map), Progress: progress,
	}
	err = writeFile(output, func(w io.Writer) error {
		t, err = delta.Write(ctx, w, in)
		return err
	})
	return t, err
}

// ReadDelta reads the table of a delta that makes the image of a block map. The error is a [source.CorruptError] for any other file.
func ReadDelta(path, mapPath string) (*delta.Table, error) {
	m, err := ReadUnverifiedMap(mapPath)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	t, err := delta.ReadTable(f, info.Size(), PackRanges(m.Map))
	if sum := sha256.Sum256(m.Text); err == nil && t.Target != sum {
		err = fmt.Errorf("it makes the image with bmap %x, expected %x", t.Target, sum)
	}
	if err != nil {
		return nil, &source.CorruptError{Name: path, Codec: "delta", Err: err}
	}
	return t, nil
}

// WriteDictionary writes the dictionary of one frame, made of the raw old image.
func WriteDictionary(t *delta.Table, frame delta.Frame, image, output string) error {
	old, err := os.Open(image)
	if err != nil {
		return err
	}
	defer old.Close()
	return atomicfile.WriteFunc(output, 0o644, func(w io.Writer) error {
		for _, win := range t.Dictionary(frame) {
			if _, err := io.Copy(w, io.NewSectionReader(old, win.Offset, int64(win.Length))); err != nil {
				return err
			}
		}
		return nil
	})
}

// CreateMap makes the block map of an image file; see [bmap.Create]. whole adds the checksum of the whole image, in which holes count as zeros,
// and needs a ChecksumType of sha256, sha384 or sha512. If another file has the image's name at the end, the error wraps bmap.ErrChanged.
func CreateMap(ctx context.Context, image string, o bmap.CreateOptions, whole bool) (*bmap.Map, error) {
	f, err := os.Open(image)
	if err != nil {
		return nil, fmt.Errorf("opening the image: %w", err)
	}
	defer f.Close()
	if whole {
		if o.Update == nil {
			o.Update = new(bmap.Update)
		}
		if o.Update.ImageChecksum, err = hashImage(ctx, f, o.ChecksumType); err != nil {
			return nil, err
		}
	}
	m, err := bmap.Create(ctx, f, o)
	if err != nil {
		return nil, err
	}
	opened, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if now, err := os.Stat(image); err != nil || !os.SameFile(opened, now) {
		return nil, fmt.Errorf("making the bmap of %s: %w: another file has its name now", image, bmap.ErrChanged)
	}
	return m, nil
}

// hashImage is the checksum of a whole image.
func hashImage(ctx context.Context, f *os.File, name string) (string, error) {
	newHash, ok := map[string]func() hash.Hash{"sha256": sha256.New, "sha384": sha512.New384, "sha512": sha512.New}[name]
	if !ok {
		return "", fmt.Errorf("checksum of the whole image: type is %q, expected sha256, sha384 or sha512", name)
	}
	sum := newHash()
	if _, err := io.CopyBuffer(sum, Interruptible(ctx, io.NewSectionReader(f, 0, math.MaxInt64)), make([]byte, 1<<20)); err != nil {
		return "", fmt.Errorf("reading the image: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
