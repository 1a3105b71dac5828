package crashdisk

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"updater/blockdev"
)

// errseq is the error state of the mapping (lib/errseq.c): the number of errors, and whether the last one was reported.
type errseq struct {
	n    int
	seen bool
}

// cursor is the number of errors that one descriptor has reported.
type cursor int

// sample is the cursor of a new descriptor, which still reports an error that no descriptor has reported.
func (e *errseq) sample() cursor {
	if e.n > 0 && !e.seen {
		return cursor(e.n - 1)
	}
	return cursor(e.n)
}

func (e *errseq) record() { e.n, e.seen = e.n+1, false }

// check returns the error that the descriptor has not reported yet.
func (e *errseq) check(c *cursor) error {
	if int(*c) == e.n {
		return nil
	}
	*c, e.seen = cursor(e.n), true
	return unix.EIO
}

// Node is a device node of the disk. Each node, the whole disk's and each partition's, has a separate page cache
// (block/bdev.c). Offsets count from the start of the disk for all nodes.
type Node struct {
	*Disk
	pages map[int64][]byte // by page number
	dirty []*Write         // buffered writes that were not written out, in their order
	wbErr errseq
}

// Node adds a node, such as a partition's. The disk itself is the first.
func (d *Disk) Node() *Node {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.newNode()
}

func (d *Disk) newNode() *Node {
	n := &Node{Disk: d, pages: map[int64][]byte{}}
	d.nodes = append(d.nodes, n)
	return n
}

// Open opens the disk through the page cache.
func (d *Disk) Open() *FD { return d.nodes[0].Open() }

// OpenDirect opens the disk with O_DIRECT.
func (d *Disk) OpenDirect() *FD { return d.nodes[0].OpenDirect() }

// Files opens the three descriptors of a [blockdev.Device] on a window of the disk.
func (d *Disk) Files(off, size int64) blockdev.Files { return d.nodes[0].Files(off, size) }

// Device opens a real device on a window of the disk: a slot, or a place for boot state.
func (d *Disk) Device(name string, off, size int64) *blockdev.Device {
	return d.nodes[0].Device(name, off, size)
}

// Open opens the node through its page cache.
func (n *Node) Open() *FD { return n.open(false) }

// OpenDirect opens the node with O_DIRECT.
func (n *Node) OpenDirect() *FD { return n.open(true) }

// Files opens the three descriptors of a [blockdev.Device] on a window.
func (n *Node) Files(off, size int64) blockdev.Files {
	files := blockdev.Files{Main: n.Open(), Sentinel: n.Open(), Align: n.o.Sector, Base: off, Size: size}
	if !n.o.NoDirect {
		files.Direct = n.OpenDirect()
	}
	return files
}

// Device opens a real device on a window.
func (n *Node) Device(name string, off, size int64) *blockdev.Device {
	return blockdev.New(name, n.Files(off, size))
}

// FD is one descriptor, buffered or with O_DIRECT. It is a [blockdev.File].
type FD struct {
	d      *Node
	direct bool
	seen   cursor
}

var _ blockdev.File = (*FD)(nil)

func (n *Node) open(direct bool) *FD {
	n.mu.Lock()
	defer n.mu.Unlock()
	return &FD{d: n, direct: direct, seen: n.wbErr.sample()}
}

// Close implements [blockdev.File]. It flushes nothing; dirty pages stay in the page cache.
func (f *FD) Close() error { return nil }

// Pwrite implements [blockdev.File]. A buffered write makes pages dirty, which may be written out at any time.
func (f *FD) Pwrite(p []byte, off int64) (int, error) {
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.inside(off, int64(len(p))); err != nil {
		return 0, err
	}
	if f.direct {
		return f.directWrite(p, off)
	}
	op := d.op(classPwrite, "pwrite", off, int64(len(p)))
	short := false
	switch d.fault(classPwrite) {
	case NoFault:
	case ShortWrite:
		p, short = p[:len(p)/2], true
	default:
		d.end(op, unix.EIO)
		return 0, unix.EIO
	}
	if err := d.bufferedWrite(p, off); err != nil {
		d.end(op, err)
		return 0, err
	}
	if short {
		d.end(op, errors.New("short"))
	}
	return len(p), nil
}

// bufferedWrite puts p into the page cache and records the dirty pages, in units of at most MaxIO.
func (d *Node) bufferedWrite(p []byte, off int64) error {
	end := off + int64(len(p))
	for at := off; at < end; {
		stop := min(end, (at/d.o.MaxIO+1)*d.o.MaxIO)
		first, last := at/pageSize, (stop-1)/pageSize
		whole := make([]byte, 0, (last-first+1)*pageSize)
		for n := first; n <= last; n++ {
			page, err := d.page(n, at <= n*pageSize && stop >= (n+1)*pageSize)
			if err != nil {
				return err
			}
			from, to := max(at, n*pageSize), min(stop, (n+1)*pageSize)
			copy(page[from-n*pageSize:], p[from-off:to-off])
			whole = append(whole, page...)
		}
		whole = whole[:min(int64(len(whole)), d.Size()-first*pageSize)]
		d.dirty = append(d.dirty, d.issue(whole, first*pageSize))
		at = stop
	}
	return nil
}

// page returns a page of the cache, read from the drive unless all of it is about to be overwritten.
func (d *Node) page(n int64, overwritten bool) ([]byte, error) {
	if p := d.pages[n]; p != nil {
		return p, nil
	}
	p := make([]byte, pageSize)
	if !overwritten {
		if err := d.read(p[:min(pageSize, d.Size()-n*pageSize)], n*pageSize); err != nil {
			return nil, unix.EIO // for any error of the drive (mm/filemap.c)
		}
	}
	d.pages[n] = p
	return p, nil
}

// directWrite writes past the page cache. Other commands may come between its issue and its completion.
func (f *FD) directWrite(p []byte, off int64) (int, error) {
	d := f.d
	if off%d.o.Sector != 0 || int64(len(p))%d.o.Sector != 0 {
		return 0, fmt.Errorf("direct write of %d bytes at %d: %w", len(p), off, unix.EINVAL)
	}
	if err := d.writeOut(off, int64(len(p))); err != nil {
		return 0, err
	}
	d.forget(off, int64(len(p)))
	for done := int64(0); done < int64(len(p)); {
		size := min(d.o.MaxIO, int64(len(p))-done)
		w := d.issue(p[done:done+size], off+done)
		d.mu.Unlock()
		d.mu.Lock()
		n, err := d.complete(w, "direct write")
		done += n
		if err != nil {
			if done > 0 && n == 0 {
				return int(done), nil // as the kernel does: a short count first
			}
			return int(done), err
		}
		if n < size {
			return int(done), nil
		}
	}
	return len(p), nil
}

// Pread implements [blockdev.File].
func (f *FD) Pread(p []byte, off int64) (int, error) {
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if off < 0 {
		return 0, unix.EINVAL
	}
	p = p[:max(0, min(int64(len(p)), d.Size()-off))]
	if len(p) == 0 {
		return 0, nil
	}
	if f.direct {
		if off%d.o.Sector != 0 || int64(len(p))%d.o.Sector != 0 {
			return 0, unix.EINVAL
		}
		if err := d.writeOut(off, int64(len(p))); err != nil {
			return 0, err
		}
		return len(p), d.read(p, off)
	}
	for at := off; at < off+int64(len(p)); {
		page, err := d.page(at/pageSize, false)
		if err != nil {
			return int(at - off), err
		}
		at += int64(copy(p[at-off:], page[at%pageSize:]))
	}
	return len(p), nil
}

// SyncRange implements [blockdev.File], as fs/sync.c and mm/filemap.c do. The write-out that Write starts is
// executed at once, which is one of the orders that the kernel may choose.
func (f *FD) SyncRange(off, length int64, flags blockdev.SyncFlags) (err error) {
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.o.NoSyncRange {
		return unix.ENOSYS
	}
	if flags&^(blockdev.WaitBefore|blockdev.Write|blockdev.WaitAfter) != 0 || off < 0 || length < 0 || off+length < off {
		return unix.EINVAL
	}
	if flags == 0 {
		return nil
	}
	if length == 0 {
		length = d.Size() - off
	}
	op := d.note("sync_file_range "+flagNames(flags), off, length)
	defer func() { d.end(op, err) }()
	if flags&blockdev.WaitBefore != 0 {
		if err := d.wbErr.check(&f.seen); err != nil {
			return err
		}
	}
	if flags&blockdev.Write != 0 {
		_ = d.writeOut(off, length) // reported by the next wait
	}
	if flags&blockdev.WaitAfter != 0 {
		return d.wbErr.check(&f.seen)
	}
	return nil
}

func flagNames(f blockdev.SyncFlags) string {
	var s strings.Builder
	for i, bit := range []blockdev.SyncFlags{blockdev.WaitBefore, blockdev.Write, blockdev.WaitAfter} {
		if f&bit != 0 {
			s.WriteString("BWA"[i : i+1])
		}
	}
	return s.String()
}

// Datasync implements [blockdev.File]: all dirty pages, then a flush, which is not sent when they failed
// (block/fops.c, blkdev_fsync).
func (f *FD) Datasync() (err error) {
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	op := d.note("fdatasync", 0, 0)
	defer func() { d.end(op, err) }()
	_ = d.writeOut(0, d.Size())
	if err := d.wbErr.check(&f.seen); err != nil {
		return err
	}
	return d.flush()
}

// writeOut writes out every dirty page of the range, after the writes that precede them. The pages of a failed write are
// clean afterwards, and the mapping keeps the error.
func (d *Node) writeOut(off, length int64) error {
	first, end := off/pageSize*pageSize, (off+length+pageSize-1)/pageSize*pageSize
	take := make([]bool, len(d.dirty))
	for i, v := range slices.Backward(d.dirty) {
		w := v
		take[i] = w.Off < end && w.end() > first
		for j := i + 1; j < len(d.dirty) && !take[i]; j++ {
			take[i] = take[j] && w.Off < d.dirty[j].end() && w.end() > d.dirty[j].Off
		}
	}
	var failed error
	var kept []*Write
	for i, w := range d.dirty {
		if !take[i] {
			kept = append(kept, w)
			continue
		}
		if n, err := d.complete(w, "write-out"); err != nil || n < int64(len(w.Data)) {
			d.wbErr.record()
			failed = unix.EIO
		}
	}
	d.dirty = kept
	return failed
}

// DropCache implements [blockdev.File]: it drops the clean pages of the range and keeps the dirty ones.
func (f *FD) DropCache(off, length int64) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.d.forget(off, length)
}

func (d *Node) forget(off, length int64) {
	for n := off / pageSize; n*pageSize < off+length; n++ {
		if !slices.ContainsFunc(d.dirty, func(w *Write) bool { return w.Off < (n+1)*pageSize && w.end() > n*pageSize }) {
			delete(d.pages, n)
		}
	}
}

// ZeroOut implements [blockdev.File]. It drops the pages of the range, dirty ones included (block/ioctl.c).
func (f *FD) ZeroOut(off, length int64) error {
	if f.d.o.NoZero {
		return errors.ErrUnsupported
	}
	return f.fill(off, length, 0, "zero")
}

// Discard implements [blockdev.File].
func (f *FD) Discard(off, length int64) error { return f.fill(off, length, 0xdc, "discard") }

func (f *FD) fill(off, length int64, b byte, name string) error {
	d := f.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if off%d.o.Sector != 0 || length%d.o.Sector != 0 {
		return unix.EINVAL
	}
	partly := func(w *Write) bool {
		return w.Off < off+length && w.end() > off && (w.Off < off || w.end() > off+length)
	}
	if slices.ContainsFunc(d.dirty, partly) {
		// Only a part of such a write is truncated: write it out, then zero over it.
		if err := d.writeOut(off, length); err != nil {
			return err
		}
	}
	d.clock++
	d.dirty = slices.DeleteFunc(d.dirty, func(w *Write) bool {
		if w.Off >= off && w.end() <= off+length {
			w.gone = d.clock
			return true
		}
		return false
	})
	d.forget(off, length)
	return d.fill(off, length, b, name)
}
