package fat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/filesystem"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
)

const (
	minSize   = 33 << 20 // of a FAT32 file system, bytes
	chunkSize = 64 << 10 // bytes
)

// image is a file system in memory, which the library makes.
type image struct {
	length int64
	sector int64            // bytes
	chunks map[int64][]byte // that were written, by their number; nil is one of zeros
}

// build makes an image with files, which lie one behind the other in their order.
func build(length, sector int64, label string, files []File) (*image, error) {
	if length < minSize {
		return nil, fmt.Errorf("making a FAT32 file system: the partition has %d bytes, expected at least %d", length, minSize)
	}
	// The library forgets the two reserved entries of the FAT, for which some sizes have no room, such as 64 MiB. A slightly
	// smaller file system has.
	for ; ; length -= 4096 {
		m := &image{length: length, sector: sector, chunks: map[int64][]byte{}}
		lib, err := fat32.Create(m, length, 0, sector, label, false)
		if err != nil {
			return nil, fmt.Errorf("making a FAT32 file system: %w", err)
		}
		if !m.geometry().roomy() {
			continue
		}
		for _, f := range files {
			if err := put(lib, f); err != nil {
				return nil, err
			}
		}
		return m, nil
	}
}

func put(lib filesystem.FileSystem, f File) error {
	file, err := lib.OpenFile(f.Name, os.O_CREATE|os.O_RDWR|os.O_TRUNC)
	if err != nil {
		return fmt.Errorf("creating %s: %w", f.Name, err)
	}
	_, err = file.Write(f.Data)
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", f.Name, err)
	}
	return nil
}

// geometry is where the parts of a FAT32 file system lie, in bytes (Microsoft FAT specification, section 3).
type geometry struct{ total, fat, fatSize, root, cluster int64 }

func (m *image) geometry() geometry {
	sector := m.sector
	b := make([]byte, sector)
	_, _ = m.ReadAt(b, 0) // of memory
	number := binary.LittleEndian.Uint32
	g := geometry{
		total: int64(number(b[32:])) * sector, fat: int64(binary.LittleEndian.Uint16(b[14:])) * sector, fatSize: int64(number(b[36:])) * sector,
		cluster: int64(b[13]) * sector,
	}
	g.root = g.fat + int64(b[16])*g.fatSize
	return g
}

// roomy reports whether the FAT has an entry for every cluster after the two reserved ones.
func (g geometry) roomy() bool { return (g.total-g.root)/g.cluster+2 <= g.fatSize/4 }

// Ranges of the boot sector: the fields that decide where everything lies, and the volume's serial number.
const (
	bpbAt, bpbEnd = 11, 64
	idAt, idEnd   = 67, 71
	backupBoot    = 6 // sector
)

// write writes the sectors that differ from the medium: file data, then the FATs, then, after a flush, the root directory, where the files
// appear. A file system with another layout is invalidated first; a boot sector that fits stays.
func (m *image) write(w Window) error {
	sector := m.sector
	g, old := m.geometry(), make([]byte, sector)
	boot := make([]byte, sector)
	_, _ = m.ReadAt(boot, 0) // of memory
	if _, err := w.ReadBackAt(old, 0); err == nil && bytes.Equal(old[bpbAt:bpbEnd], boot[bpbAt:bpbEnd]) {
		for _, s := range []int64{0, backupBoot} {
			_, _ = m.WriteAt(old[idAt:idEnd], s*sector+idAt) // to memory
		}
	} else if err := m.invalidate(w); err != nil {
		return err
	}
	directory := m.directory(w, g)
	at := g.root
	for _, cluster := range append(directory, m.length) {
		if err := m.writePart(w, at, cluster); err != nil {
			return err
		}
		at = cluster + g.cluster
	}
	if err := m.writePart(w, g.fat, g.root); err != nil {
		return err
	}
	if err := w.Medium.Sync(); err != nil {
		return err
	}
	for _, cluster := range slices.Backward(directory) {
		if err := m.writePart(w, cluster, cluster+g.cluster); err != nil {
			return err
		}
	}
	return m.writePart(w, 0, g.fat)
}

// directory lists where the clusters of the root directory lie that are also in the directory on the medium. Their entries appear at
// once; a new cluster appears with its entry in the FAT.
func (m *image) directory(w Window, g geometry) (at []int64) {
	next := func(read func(p []byte, off int64) (int, error), cluster int64) int64 {
		b := make([]byte, m.sector)
		off := g.fat + 4*cluster
		if _, err := read(b, off&^(m.sector-1)); err != nil {
			return 0
		}
		return int64(binary.LittleEndian.Uint32(b[off%m.sector:]))
	}
	for cluster := int64(2); ; {
		at = append(at, g.root+(cluster-2)*g.cluster)
		n := next(m.ReadAt, cluster)
		if n > (g.total-g.root)/g.cluster || n != next(w.ReadBackAt, cluster) { // the end, or new
			slices.Sort(at)
			return at
		}
		cluster = n
	}
}

// invalidate clears the boot sector durably.
func (m *image) invalidate(w Window) error {
	if _, err := w.Medium.WriteAt(make([]byte, m.sector), w.Offset); err != nil {
		return err
	}
	return w.Medium.Sync()
}

// writePart writes the sectors from begin to end that differ from the medium.
func (m *image) writePart(w Window, begin, end int64) error {
	want, got := make([]byte, chunkSize), make([]byte, chunkSize)
	for _, n := range slices.Sorted(maps.Keys(m.chunks)) {
		from, to := max(begin, n*chunkSize), min(end, (n+1)*chunkSize, m.length)
		if from >= to {
			continue
		}
		want, got = want[:to-from], got[:to-from]
		_, _ = m.ReadAt(want, from) // of memory
		_, err := w.ReadBackAt(got, from)
		for at := 0; at < len(want); {
			run := m.differing(want[at:], got[at:], err != nil) // sectors that cannot be read are written
			if run > 0 {
				if _, err := w.Medium.WriteAt(want[at:at+run], w.Offset+from+int64(at)); err != nil {
					return err
				}
			}
			at += max(run, int(m.sector))
		}
	}
	return nil
}

// differing is the length of the sectors at the front that differ, all of them if the medium is unreadable.
func (m *image) differing(want, got []byte, unreadable bool) (n int) {
	sector := int(m.sector)
	for n < len(want) && (unreadable || !bytes.Equal(want[n:min(n+sector, len(want))], got[n:min(n+sector, len(want))])) {
		n += sector
	}
	return min(n, len(want))
}

// ReadAt reads zeros where nothing was written.
func (m *image) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 || off > m.length {
		return 0, fmt.Errorf("reading at %d, outside of the file system of %d bytes", off, m.length)
	}
	if int64(len(p)) > m.length-off {
		p, err = p[:m.length-off], io.EOF
	}
	clear(p)
	for n < len(p) {
		at := off + int64(n)
		inside := at % chunkSize
		piece := p[n:min(len(p), n+int(chunkSize-inside))]
		if chunk := m.chunks[at/chunkSize]; chunk != nil {
			copy(piece, chunk[inside:])
		}
		n += len(piece)
	}
	return n, err
}

// WriteAt keeps memory only for chunks with other bytes than zero.
func (m *image) WriteAt(p []byte, off int64) (n int, err error) {
	if off < 0 || off > m.length-int64(len(p)) {
		return 0, fmt.Errorf("writing %d bytes at %d, outside of the file system of %d bytes", len(p), off, m.length)
	}
	for n < len(p) {
		at := off + int64(n)
		inside := at % chunkSize
		piece := p[n:min(len(p), n+int(chunkSize-inside))]
		chunk := m.chunks[at/chunkSize]
		if chunk == nil && bytes.Count(piece, []byte{0}) < len(piece) {
			chunk = make([]byte, chunkSize)
		}
		m.chunks[at/chunkSize] = chunk
		if chunk != nil {
			copy(chunk[inside:], piece)
		}
		n += len(piece)
	}
	return n, nil
}

// Further methods that the library requires of a file.

func (*image) Stat() (fs.FileInfo, error)                { return nil, backend.ErrNotSuitable }
func (*image) Read([]byte) (int, error)                  { return 0, backend.ErrNotSuitable }
func (*image) Seek(int64, int) (int64, error)            { return 0, backend.ErrNotSuitable }
func (*image) Close() error                              { return nil }
func (*image) Path() string                              { return "" }
func (*image) Sys() (*os.File, error)                    { return nil, backend.ErrNotSuitable }
func (m *image) Writable() (backend.WritableFile, error) { return m, nil }
