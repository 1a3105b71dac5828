package blockdev

import (
	"fmt"
	"sync/atomic"
)

// paced writes through the page cache and keeps at most two windows dirty. When window N is full, it starts its write-out, waits
// for window N-1, which reports errors early and makes progress true, and drops its pages. Without sync_file_range it flushes
// every window.
type paced struct {
	d      *Device
	window int64
	out    *atomic.Int64
	cur    span // dirty, not submitted
	prev   span // submitted, not waited for
}

// span is the extent of a window; bytes counts the bytes written in it.
type span struct{ off, end, bytes int64 }

func newPaced(d *Device, o WriterOptions, out *atomic.Int64) *paced {
	return &paced{d: d, window: o.Window, out: out}
}

// write splits p at the end of the window, so that at most two windows are dirty.
func (e *paced) write(p []byte, off int64) error {
	for len(p) > 0 {
		n, err := e.d.WriteAt(p[:min(int64(len(p)), e.window-e.cur.bytes)], off)
		if err != nil {
			return err
		}
		if e.cur.bytes == 0 {
			e.cur.off, e.cur.end = off, off
		}
		e.cur.off, e.cur.end = min(e.cur.off, off), max(e.cur.end, off+int64(n))
		e.cur.bytes += int64(n)
		if e.cur.bytes >= e.window {
			if err := e.turn(); err != nil {
				return err
			}
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// settle does nothing: [Device.Zero] zeroes whole pages, and writes the edges coherently with the page cache.
func (e *paced) settle(int64, int64) error { return nil }

// turn submits the current window and waits for the previous one.
func (e *paced) turn() error {
	if !e.d.paced {
		if err := e.d.Sync(); err != nil {
			return err
		}
		e.taken(&e.cur)
		return nil
	}
	if err := e.d.syncRange(e.cur.off, e.cur.end-e.cur.off, Write); err != nil {
		return err
	}
	if err := e.wait(); err != nil {
		return err
	}
	e.prev, e.cur = e.cur, span{}
	return nil
}

// wait waits for the submitted window.
func (e *paced) wait() error {
	if err := e.d.syncRange(e.prev.off, e.prev.end-e.prev.off, WriteAndWait); err != nil {
		return err
	}
	e.taken(&e.prev)
	return nil
}

// taken counts a window that was written out, and drops its pages.
func (e *paced) taken(s *span) {
	if s.bytes > 0 {
		e.d.dropCache(s.off, s.end-s.off)
		e.out.Add(s.bytes)
	}
	*s = span{}
}

func (e *paced) drain() error {
	if e.cur.bytes > 0 {
		if err := e.turn(); err != nil {
			return err
		}
	}
	return e.wait()
}

func (e *paced) refill() int64 { return e.window }

func (e *paced) name() string {
	if e.d.paced {
		return Paced
	}
	return fmt.Sprintf("%s (fdatasync every %d KiB)", Paced, e.window>>10)
}
