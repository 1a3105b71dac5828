package blockdev

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// The engines of a [Writer].
const (
	// Paced writes through the page cache and keeps at most two windows dirty, with sync_file_range.
	Paced = "paced"
	// Direct writes with O_DIRECT, a few writes at a time. Each reports its own error.
	Direct = "direct"
	// Auto tries both on the first windows and continues with Direct unless Paced is clearly faster. Without O_DIRECT, or if the
	// image is shorter than the trial, it is Paced.
	Auto = "auto"
)

// The defaults of [WriterOptions], chosen by measurement: windows of 4 to 8 MiB reach full speed with the least dirty memory.
const (
	DefaultWindow   = 4 << 20
	DefaultInFlight = 3
)

// The checkpoint balances two costs. Each flush takes 1 to 90 ms, more behind queued reads. The read-back lags two checkpoints, which remain to
// be read after the last write. The checkpoint starts at minCheckpoint and doubles, at most to maxCheckpoint, after two checkpoints in a row
// that were too small:
//   - smaller than eight times the bytes that the engine needs to restart after a flush;
//   - smaller than fastCheckpoint and written within fast;
//   - the flush took more than size/flushShare of the time. Near that size the sum of both costs is minimal for an image of 700 MiB.
const (
	minCheckpoint  = 8 << 20
	fastCheckpoint = 32 << 20
	maxCheckpoint  = 128 << 20
	flushShare     = 256 << 20
	fast           = 100 * time.Millisecond
)

// dirtyLimit bounds the dirty bytes of the disk in the kernel. It is large enough not to slow two windows down.
const dirtyLimit = 8 * DefaultWindow

// WriterOptions tune a writer. The zero value is the default.
type WriterOptions struct {
	Engine     string // Paced, Direct or Auto; "" is Auto
	Window     int64  // bytes written between two write-outs; 0 is DefaultWindow
	Checkpoint int64  // bytes written between two flushes; 0 adapts from 8 to 128 MiB
	InFlight   int    // direct writes at a time; 0 is DefaultInFlight
	Buffer     int64  // bytes of one direct write, whole pages; 0 is 512 KiB
}

// Writer writes a device durably, through one of the engines, with a full barrier ([Device.Sync]) at every checkpoint and at the
// end. Only WrittenOut and ReadBackAt are safe for concurrent use. An error poisons the device: every later call fails.
type Writer struct {
	d        *Device
	o        WriterOptions
	engine   engine
	sinceBar int64     // bytes handed over since the last barrier
	barriers int       // completed
	last     time.Time // of the last barrier
	grows    bool      // the checkpoint adapts to the time of a flush
	outgrown int       // checkpoints in a row that were too small
	out      atomic.Int64
	restore  func() error // sets the kernel's old limit on dirty pages
}

// engine carries data to the device. The barrier of the Writer makes it durable.
type engine interface {
	write(p []byte, off int64) error
	// settle prepares for a range being zeroed without the engine.
	settle(off, length int64) error
	// drain waits until all data was written out. It returns the first error.
	drain() error
	// refill returns the number of bytes that the engine buffers after drain before the device has work again.
	refill() int64
	name() string
}

// ErrNoDirect is wrapped by the error of [Device.NewWriter] if the direct engine was requested but cannot work.
var ErrNoDirect = errors.New("direct engine not available")

// NewWriter returns a writer on d, which owns d. Until Close it limits the dirty pages of the device if the kernel can.
func (d *Device) NewWriter(o WriterOptions) (*Writer, error) {
	if o.Window <= 0 {
		o.Window = DefaultWindow
	}
	grows := o.Checkpoint <= 0
	if grows {
		o.Checkpoint = minCheckpoint
	}
	if o.InFlight <= 0 {
		o.InFlight = DefaultInFlight
	}
	if o.Buffer <= 0 {
		o.Buffer = 512 << 10
	}
	d.fills = true
	w := &Writer{d: d, o: o, grows: grows, last: time.Now(), restore: func() error { return nil }}
	switch o.Engine {
	case Paced:
		w.engine = newPaced(d, o, &w.out)
	case Direct:
		if err := d.canWriteDirect(); err != nil {
			return nil, fmt.Errorf("writing %s: %w: %w", d.name, ErrNoDirect, err)
		}
		w.engine = newDirect(d, o, &w.out)
	case Auto, "":
		w.engine = newPaced(d, o, &w.out)
		if d.canWriteDirect() == nil {
			w.engine = newAuto(w.engine, newDirect(d, o, &w.out), 2*o.Window)
		}
	default:
		return nil, fmt.Errorf("writing %s: unknown engine %q, expected %s, %s or %s", d.name, o.Engine, Paced, Direct, Auto)
	}
	if d.sysfs == "" {
		return w, nil
	}
	_ = restoreDirty(d.sysfs, bdiNotes) // it would fail again at the end
	if o.Engine != Direct {
		w.restore = limitDirty(d.sysfs, bdiNotes, dirtyLimit)
	}
	return w, nil
}

// WriteAt queues p for off. Offsets should ascend; no byte may be written twice between two flushes. Nothing is durable before
// [Writer.Flush] returns nil.
func (w *Writer) WriteAt(p []byte, off int64) (int, error) {
	if err := w.d.check("writing", off, int64(len(p))); err != nil {
		return 0, err
	}
	if err := w.engine.write(p, off); err != nil {
		return 0, err
	}
	if w.sinceBar += int64(len(p)); w.sinceBar >= w.o.Checkpoint {
		return len(p), w.Flush()
	}
	return len(p), nil
}

// Zero is [Device.Zero], ordered with the writes.
func (w *Writer) Zero(off, length int64) error {
	if err := w.engine.settle(off, length); err != nil {
		return err
	}
	return w.d.Zero(off, length)
}

// Discard is [Device.Discard]. Only whole pages are discarded, which share nothing with the writes beside them.
func (w *Writer) Discard(off, length int64) error { return w.d.Discard(off, length) }

// Flush writes everything out and flushes the drive's cache. When it returns nil, all writes before it are on stable storage. It
// must not be repeated after an error.
func (w *Writer) Flush() error {
	if err := w.engine.drain(); err != nil {
		return err
	}
	w.sinceBar = 0
	start := time.Now()
	if err := w.d.Sync(); err != nil {
		return err
	}
	w.barriers++
	end := time.Now()
	if w.grows {
		w.grow(end.Sub(w.last), end.Sub(start))
	}
	w.last = end
	return nil
}

// grow doubles the checkpoint after the second in a row that was too small. took is the time of the last checkpoint with its flush.
func (w *Writer) grow(took, flush time.Duration) {
	size := w.o.Checkpoint
	stops := size < 8*w.engine.refill() || size < fastCheckpoint && took < fast
	if !stops && flush*time.Duration(flushShare/size) <= took {
		w.outgrown = 0
		return
	}
	if w.outgrown++; w.outgrown == 2 {
		w.o.Checkpoint, w.outgrown = min(2*size, maxCheckpoint), 0
	}
}

// Barriers counts the completed flushes of a writer on a built-in medium with direct read-back. It stays 0 on every other: removable
// media, whole disks, files.
func (w *Writer) Barriers() int {
	if !w.d.fixed || w.d.direct == nil {
		return 0
	}
	return w.barriers
}

// ReadBackAt is [Device.ReadBackAt].
func (w *Writer) ReadBackAt(p []byte, off int64) (int, error) { return w.d.ReadBackAt(p, off) }

// WrittenOut returns the number of bytes of this writer that were written out to the device, not merely to the page cache. Safe for
// concurrent use.
func (w *Writer) WrittenOut() int64 { return w.out.Load() }

// Engine describes the engine in use and the kind of read-back, for results.
func (w *Writer) Engine() string {
	if w.d.ReadBackDirect() {
		return w.engine.name() + ", direct read-back"
	}
	return w.engine.name() + ", read-back after dropping the page cache"
}

// Close restores the kernel's limit and closes the device. It does not flush.
func (w *Writer) Close() error {
	_ = w.engine.drain() // no write may be in flight when the descriptors close; Flush reports errors
	return errors.Join(w.restore(), w.d.Close())
}
