package blockdev

import (
	"fmt"
	"sync/atomic"
)

// The defaults of [WriterOptions], chosen by measurement: windows of 4 to 8 MiB reach full speed with
// the least dirty memory, and a flush every 128 MiB costs a few per cent on media that take 50 ms for it.
const (
	DefaultWindow     = 4 << 20
	DefaultCheckpoint = 128 << 20
)

// WriterOptions tune the paced writer. The zero value is the default.
type WriterOptions struct {
	Window     int64 // bytes written between two write-outs; 0 is DefaultWindow
	Checkpoint int64 // bytes written between two flushes; 0 is DefaultCheckpoint
}

// Writer is the paced engine: it writes through the page cache and keeps at most two windows dirty.
// When window N is full its write-out is started, then window N-1 is waited for, which reports errors
// early and makes [Writer.WrittenOut] true, and its pages are dropped. Every checkpoint and at the end
// there is a full barrier. Not safe for concurrent use, but for WrittenOut. After an error every call
// returns it.
type Writer struct {
	d        *Device
	o        WriterOptions
	cur      span // dirty, not submitted
	prev     span // submitted, not waited for
	sinceBar int64
	out      atomic.Int64
}

// span is the extent from the first to the last byte of a window; bytes counts what was written in it.
type span struct{ off, end, bytes int64 }

// NewWriter returns a paced writer on d.
func (d *Device) NewWriter(o WriterOptions) *Writer {
	if o.Window <= 0 {
		o.Window = DefaultWindow
	}
	if o.Checkpoint <= 0 {
		o.Checkpoint = DefaultCheckpoint
	}
	return &Writer{d: d, o: o}
}

// WriteAt writes p at off. Offsets should ascend: a window spans from its lowest to its highest byte.
// Nothing is durable before [Writer.Flush] returns nil.
func (w *Writer) WriteAt(p []byte, off int64) (int, error) {
	n, err := w.d.WriteAt(p, off)
	if err != nil {
		return n, err
	}
	if w.cur.bytes == 0 {
		w.cur.off, w.cur.end = off, off
	}
	w.cur.off, w.cur.end = min(w.cur.off, off), max(w.cur.end, off+int64(n))
	w.cur.bytes += int64(n)
	if w.cur.bytes < w.o.Window {
		return n, nil
	}
	if err := w.turn(); err != nil {
		return n, err
	}
	if w.sinceBar >= w.o.Checkpoint {
		return n, w.Flush()
	}
	return n, nil
}

// Zero is [Device.Zero] in the order of the writes.
func (w *Writer) Zero(off, length int64) error { return w.d.Zero(off, length) }

// turn submits the current window and waits for the one before it. Without sync_file_range every window is
// flushed instead.
func (w *Writer) turn() error {
	w.sinceBar += w.cur.bytes
	if !w.d.paced {
		return w.barrier()
	}
	if err := w.d.syncRange(w.cur.off, w.cur.end-w.cur.off, Write); err != nil {
		return err
	}
	if err := w.wait(); err != nil {
		return err
	}
	w.prev, w.cur = w.cur, span{}
	return nil
}

// wait waits for the submitted window.
func (w *Writer) wait() error {
	if w.prev.bytes > 0 {
		if err := w.d.syncRange(w.prev.off, w.prev.end-w.prev.off, WriteAndWait); err != nil {
			return err
		}
	}
	w.taken(&w.prev)
	return nil
}

// taken counts a window that the medium has taken, and drops its pages.
func (w *Writer) taken(s *span) {
	if s.bytes > 0 {
		w.d.dropCache(s.off, s.end-s.off)
		w.out.Add(s.bytes)
	}
	*s = span{}
}

// Flush writes out everything and flushes the drive's cache. What was written before is on stable
// storage when it returns nil.
func (w *Writer) Flush() error {
	if w.d.paced {
		if w.cur.bytes > 0 {
			if err := w.turn(); err != nil {
				return err
			}
		}
		if err := w.wait(); err != nil {
			return err
		}
	}
	return w.barrier()
}

// barrier flushes; nothing is under way after it.
func (w *Writer) barrier() error {
	if err := w.d.Sync(); err != nil {
		return err
	}
	w.taken(&w.prev)
	w.taken(&w.cur)
	w.sinceBar = 0
	return nil
}

// WrittenOut is the number of bytes that the medium has taken, in this writer. Safe for concurrent use.
func (w *Writer) WrittenOut() int64 { return w.out.Load() }

// Engine names the engine for results: "paced", or "paced (fdatasync per window)" on a kernel without
// sync_file_range.
func (w *Writer) Engine() string {
	if w.d.paced {
		return "paced"
	}
	return fmt.Sprintf("paced (fdatasync every %d MiB)", w.o.Window>>20)
}
