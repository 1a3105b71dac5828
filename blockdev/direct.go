package blockdev

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// directBuffer is the length of one direct write; larger ones gain little.
const directBuffer = 1 << 20

// direct writes with O_DIRECT: whole logical blocks from aligned buffers, a few at a time. What is not a whole
// block, such as the tail of an image, goes through the page cache when nothing else is under way, so that the
// bytes beside it stay what they are; the kernel keeps both views together (mm/filemap.c,
// kiocb_invalidate_pages).
type direct struct {
	d    *Device
	out  *atomic.Int64
	free chan *[]byte // as many buffers as writes may be under way, and one that fills
	buf  *[]byte      // fills; nil is none
	off  int64        // of its first byte
	n    int64        // of its bytes
	wg   sync.WaitGroup

	mu  sync.Mutex
	err error // the first
}

func newDirect(d *Device, o WriterOptions, out *atomic.Int64) *direct {
	e := &direct{d: d, out: out, free: make(chan *[]byte, o.InFlight+1)}
	for range o.InFlight + 1 {
		e.free <- nil // made when it is first needed
	}
	return e
}

// canWriteDirect says why the device cannot be written with O_DIRECT, and tries it with a read.
func (d *Device) canWriteDirect() error {
	switch {
	case d.direct == nil:
		return errors.New("the file system has no O_DIRECT")
	case d.align > directAlign || d.base%d.align != 0:
		return fmt.Errorf("the window begins at %d, which is not a multiple of the block of %d bytes", d.base, d.align)
	}
	buf := alignedBuffer(directAlign)
	if n := min(d.align, d.size/d.align*d.align); n > 0 {
		_, err := d.direct.Pread((*buf)[:n], d.base)
		return err
	}
	return fmt.Errorf("the window of %d bytes is smaller than a block of %d", d.size, d.align)
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
		if e.n == directBuffer {
			if err := e.submit(); err != nil {
				return err
			}
		}
	}
	return e.failed()
}

// take waits for a buffer.
func (e *direct) take(off int64) {
	if e.buf = <-e.free; e.buf == nil {
		e.buf = alignedBuffer(directBuffer)
	}
	e.off, e.n = off, 0
}

// submit starts the write of the whole blocks of the buffer, and writes what is left of it as an edge.
func (e *direct) submit() error {
	buf, off, whole := e.buf, e.off, e.n/e.d.align*e.d.align
	rest := append([]byte(nil), (*buf)[whole:e.n]...)
	e.buf = nil
	e.wg.Go(func() {
		defer func() { e.free <- buf }()
		if whole == 0 {
			return
		}
		n, err := pwrite(e.d.direct, (*buf)[:whole], e.d.base+off)
		if err != nil {
			e.fail(e.d.poison(fmt.Errorf("writing %s at %d: %w", e.d.name, off+int64(n), err)))
			return
		}
		e.out.Add(whole)
	})
	if len(rest) > 0 {
		return e.edge(rest, off+whole)
	}
	return e.failed()
}

// edge writes a part of a block through the page cache, alone. Its write-out is the barrier's.
func (e *direct) edge(p []byte, off int64) error {
	if err := e.drain(); err != nil {
		return err
	}
	n, err := e.d.WriteAt(p, off)
	e.out.Add(int64(n))
	return err
}

// settle lets nothing be under way while a range that is not made of whole pages is zeroed: its edges go through
// the page cache.
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
	return errors.Join(err, e.failed())
}

func (e *direct) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err == nil {
		e.err = err
	}
}

func (e *direct) failed() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

func (e *direct) name() string { return Direct }
