// Package mtd provides a [boot.Area] on raw flash behind the kernel's MTD layer, for boot state that U-Boot keeps there.
// Flash is erased in blocks, to ones, and a write only clears bits. A change that sets bits erases the block and rewrites
// it; a power cut in between leaves a block of ones. Boot state in flash therefore needs a second copy in other blocks.
// Bad blocks of NAND are skipped, as U-Boot does (env/nand.c).
package mtd

import (
	"bytes"
	"fmt"
	"io"
)

// Flash is a flash device. A write or erase is on the medium once it returns nil.
type Flash interface {
	io.ReaderAt
	io.WriterAt // clears bits only
	Size() int64
	EraseSize() int64 // bytes of a block, at least 1
	Erase(off int64) error
	Bad(off int64) (bool, error) // reports whether the block at off is bad
	String() string
}

// Area is a fixed-size region of a flash device that begins on an erase block. It is not safe for concurrent use.
type Area struct {
	flash  Flash
	blocks []int64 // offsets of the good blocks of the region
	size   int64
	name   string
}

// New returns an area of size bytes in the good blocks from offset off on; a negative off counts from the end. The area may
// use up to blocks erase blocks, so that bad ones can be skipped; 0 means as many as size needs.
func New(flash Flash, off, size, blocks int64) (*Area, error) {
	each := flash.EraseSize()
	if off < 0 {
		off += flash.Size()
	}
	if off < 0 || off%each != 0 || size <= 0 || size > flash.Size() {
		return nil, fmt.Errorf("%s: area of %d bytes at %d does not begin on an erase block of %d", flash, size, off, each)
	}
	need := (size + each - 1) / each
	if blocks == 0 {
		blocks = need
	}
	a := &Area{flash: flash, size: size, name: fmt.Sprintf("%s at %#x", flash, off)}
	for at := off; at < off+blocks*each && at+each <= flash.Size() && int64(len(a.blocks)) < need; at += each {
		bad, err := flash.Bad(at)
		if err != nil {
			return nil, err
		}
		if !bad {
			a.blocks = append(a.blocks, at)
		}
	}
	if int64(len(a.blocks)) < need {
		return nil, fmt.Errorf("%s: %d of %d blocks are good; expected at least %d", a.name, len(a.blocks), blocks, need)
	}
	return a, nil
}

func (a *Area) String() string { return a.name }

// Size implements [boot.Area].
func (a *Area) Size() int64 { return a.size }

// Sync implements [boot.Area]. There is no cache to flush.
func (a *Area) Sync() error { return nil }

// ReadBackAt implements [boot.Area].
func (a *Area) ReadBackAt(p []byte, off int64) (int, error) { return a.ReadAt(p, off) }

// ReadAt implements [boot.Area].
func (a *Area) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for each := a.flash.EraseSize(); n < len(p) && off < a.size; {
		part := min(int64(len(p)-n), each-off%each, a.size-off)
		if _, err := a.flash.ReadAt(p[n:n+int(part)], a.blocks[off/each]+off%each); err != nil {
			return n, fmt.Errorf("reading %s at %d: %w", a, off, err)
		}
		n, off = n+int(part), off+part
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements [boot.Area]. It erases a block only if bits have to be set, and preserves the rest of the block.
func (a *Area) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > a.size {
		return 0, fmt.Errorf("writing %s: %d bytes at %d extend beyond its end at %d", a, len(p), off, a.size)
	}
	n := 0
	for each := a.flash.EraseSize(); n < len(p); {
		part := int(min(int64(len(p)-n), each-off%each))
		if err := a.writeBlock(a.blocks[off/each], off%each, p[n:n+part]); err != nil {
			return n, fmt.Errorf("writing %s at %d: %w", a, off, err)
		}
		n, off = n+part, off+int64(part)
	}
	return n, nil
}

// writeBlock writes p at offset off of an erase block. If p covers a page that cannot be read (ECC), the block is erased and
// rewritten.
func (a *Area) writeBlock(block, off int64, p []byte) error {
	old := make([]byte, a.flash.EraseSize())
	now := old[off:][:len(p)]
	if _, err := a.flash.ReadAt(old, block); err != nil {
		if err := a.readAround(old, block, off, off+int64(len(p))); err != nil {
			return err
		}
	} else if bytes.Equal(now, p) {
		return nil
	} else if clears(now, p) {
		_, err := a.flash.WriteAt(p, block+off)
		return err
	}
	copy(now, p)
	if err := a.flash.Erase(block); err != nil {
		return err
	}
	_, err := a.flash.WriteAt(old, block)
	return err
}

// readAround reads an erase block except for the bytes from first to end.
func (a *Area) readAround(data []byte, block, first, end int64) error {
	if _, err := a.flash.ReadAt(data[:first], block); err != nil {
		return err
	}
	_, err := a.flash.ReadAt(data[end:], block+end)
	return err
}

// clears reports whether writing p over old only clears bits.
func clears(old, p []byte) bool {
	for i := range p {
		if p[i]&^old[i] != 0 {
			return false
		}
	}
	return true
}
