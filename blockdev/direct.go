package blockdev

import (
	"cmp"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// direct writes whole logical blocks with O_DIRECT from aligned buffers, a few at a time. Parts of a block, such as the tail of
// an image, go through the page cache while no other write is in flight, so that the bytes beside them survive. The kernel
// keeps the page cache coherent (mm/filemap.c, kiocb_invalidate_pages).
type direct struct {
	d    *Device
	out  *atomic.Int64
	size int64        // of a buffer
	free chan *[]byte // one buffer for each write in flight, and one being filled
	buf  *[]byte      // being filled; nil if none is
	off  int64        // offset of its first byte
	n    int64        // bytes in it
	wg   sync.WaitGroup
}

func newDirect(d *Device, o WriterOptions, out *atomic.Int64) *direct {
	e := &direct{d: d, out: out, size: o.Buffer, free: make(chan *[]byte, o.InFlight+1)}
	for range o.InFlight + 1 {
		e.free <- nil // allocated on first use
	}
	return e
}

// canWriteDirect probes O_DIRECT with a read. The error is the reason why it cannot be used. A read error of the medium is no reason: a
// write may repair the sector.
func (d *Device) canWriteDirect() error {
	switch {
	case d.direct == nil:
		return errors.New("the file system does not support O_DIRECT")
	case d.align > directAlign || d.base%d.align != 0:
		return fmt.Errorf("window begins at byte %d, expected a multiple of the logical block of %d bytes", d.base, d.align)
	}
	buf := alignedBuffer(directAlign)
	if n := min(d.align, d.size/d.align*d.align); n > 0 {
		if _, err := d.direct.Pread((*buf)[:n], d.base); errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
		return nil
	}
	return fmt.Errorf("window has %d bytes, expected at least a logical block of %d", d.size, d.align)
}

func (e *direct) write(p []byte, off int64) error {
	for len(p) > 0 {
		if e.buf != nil && off != e.off+e.n {
			if err := e.submit(); err != nil {
				return err
			}
		}
		if e.buf == nil {
			if head := off % e.d.align; head != 0 {
				n := min(int64(len(p)), e.d.align-head)
				if err := e.edge(p[:n], off); err != nil {
					return err
				}
				p, off = p[n:], off+n
				continue
			}
			e.take(off)
		}
		n := int64(copy((*e.buf)[e.n:], p))
		e.n += n
		p, off = p[n:], off+n
		if e.n == e.size {
			if err := e.submit(); err != nil {
				return err
			}
		}
	}
	return e.d.failure()
}

// take waits for a buffer.
func (e *direct) take(off int64) {
	if e.buf = <-e.free; e.buf == nil {
		e.buf = alignedBuffer(int(e.size))
	}
	e.off, e.n = off, 0
}

// submit starts the write of the whole blocks of the buffer, and writes the rest as an edge.
func (e *direct) submit() error {
	buf, off, whole := e.buf, e.off, e.n/e.d.align*e.d.align
	rest := (*buf)[whole:e.n] // nothing else is written before the edge
	e.buf = nil
	e.wg.Go(func() {
		defer func() { e.free <- buf }()
		if whole == 0 {
			return
		}
		n, err := pwrite(e.d.direct, (*buf)[:whole], e.d.base+off)
		if err != nil {
			_ = e.d.poison(fmt.Errorf("writing %s at %d: %w", e.d.name, off+int64(n), err))
			return
		}
		e.out.Add(whole)
	})
	if len(rest) > 0 {
		return e.edge(rest, off+whole)
	}
	return e.d.failure()
}

// edge writes a part of a block through the page cache, with no other write in flight. The barrier writes it out.
func (e *direct) edge(p []byte, off int64) error {
	e.wg.Wait() // a failed one has poisoned the device
	n, err := e.d.WriteAt(p, off)
	e.out.Add(int64(n))
	return err
}

// settle waits for the writes in flight before a range that is not whole pages is zeroed: its edges may share blocks with them.
func (e *direct) settle(off, length int64) error {
	if (e.d.base+off)%directAlign == 0 && length%directAlign == 0 {
		return nil
	}
	return e.drain()
}

func (e *direct) drain() error {
	var err error
	if e.buf != nil {
		err = e.submit()
	}
	e.wg.Wait()
	return cmp.Or(e.d.failure(), err)
}

func (e *direct) refill() int64 { return e.size }
func (e *direct) name() string  { return Direct }
