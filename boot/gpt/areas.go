package gpt

import (
	"fmt"

	"updater/blockdev/gpt"
	"updater/boot"
)

// area finds the area that holds n bytes at off of the disk, and where they are in it.
func (o *Options) area(off, n int64) (boot.Area, int64, error) {
	switch end := o.Size - o.Backup.Size(); {
	case off >= 0 && off <= o.Primary.Size()-n:
		return o.Primary, off, nil
	case off >= end && off <= o.Size-n:
		return o.Backup, off - end, nil
	}
	return nil, 0, fmt.Errorf("%w: %d bytes at %d of the disk are in neither %s nor %s", boot.ErrState, n, off, o.Primary, o.Backup)
}

// within refuses a table that does not lie in the areas, so that it could not be written.
func (o *Options) within(t *gpt.Table) error {
	if t == nil {
		return nil
	}
	for _, p := range t.Pieces() {
		if _, _, err := o.area(p.Offset, int64(len(p.Data))); err != nil {
			return err
		}
	}
	return nil
}

// ReadBackAt implements [gpt.Reader].
func (o *Options) ReadBackAt(p []byte, off int64) (int, error) {
	a, at, err := o.area(off, int64(len(p)))
	if err != nil {
		return 0, err
	}
	return a.ReadBackAt(p, at)
}

// write writes a piece of a table durably and reads it back: the sectors that differ from old, or all of it if old is nil.
func (o *Options) write(p gpt.Piece, old []byte) error {
	a, at, err := o.area(p.Offset, int64(len(p.Data)))
	if err != nil {
		return err
	}
	if old == nil {
		return boot.WriteVerified(a, p.Data, at)
	}
	return boot.WriteChanged(window{a, at, int64(len(p.Data))}, old, p.Data)
}

// window is a part of an area.
type window struct {
	boot.Area
	off, size int64
}

func (w window) Size() int64                                 { return w.size }
func (w window) ReadAt(p []byte, off int64) (int, error)     { return w.Area.ReadAt(p, w.off+off) }
func (w window) WriteAt(p []byte, off int64) (int, error)    { return w.Area.WriteAt(p, w.off+off) }
func (w window) ReadBackAt(p []byte, off int64) (int, error) { return w.Area.ReadBackAt(p, w.off+off) }
