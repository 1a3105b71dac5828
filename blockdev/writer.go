package blockdev

import (
	"errors"
	"fmt"
	"sync/atomic"
)

// The engines of a [Writer].
const (
	// Paced writes through the page cache, and keeps at most two windows dirty with sync_file_range.
	Paced = "paced"
	// Direct writes with O_DIRECT, a few writes at a time, each of which reports its own error.
	Direct = "direct"
	// Auto tries both on the first windows and goes on with the faster one. Where there is no O_DIRECT, or the
	// image is shorter than the trial, it is Paced.
	Auto = "auto"
)

// The defaults of [WriterOptions], chosen by measurement: windows of 4 to 8 MiB reach full speed with
// the least dirty memory, and a flush every 128 MiB costs a few per cent on media that take 50 ms for it.
const (
	DefaultWindow     = 4 << 20
	DefaultCheckpoint = 128 << 20
	DefaultInFlight   = 3
)

// dirtyLimit is what the kernel may keep dirty of the disk beside the pacing: enough not to slow two windows down.
const dirtyLimit = 8 * DefaultWindow

// WriterOptions tune a writer. The zero value is the default.
type WriterOptions struct {
	Engine     string // Paced, Direct or Auto; "" is Auto
	Window     int64  // bytes written between two write-outs; 0 is DefaultWindow
	Checkpoint int64  // bytes written between two flushes; 0 is DefaultCheckpoint
	InFlight   int    // direct writes at a time; 0 is DefaultInFlight
}

// Writer writes a device durably, through one of the engines. Every checkpoint and at the end there is a full
// barrier, [Device.Sync]. Not safe for concurrent use, but for WrittenOut and ReadBackAt. After an error every
// call fails: the device is poisoned.
type Writer struct {
	d        *Device
	o        WriterOptions
	engine   engine
	sinceBar int64 // bytes handed over since the last barrier
	out      atomic.Int64
	restore  func() error // of the kernel's limit on dirty pages
}

// engine carries data to the device. None of it is durable before the barrier of the Writer.
type engine interface {
	write(p []byte, off int64) error
	// settle is called before the range is zeroed or discarded behind the engine's back.
	settle(off, length int64) error
	// drain returns when the device has taken everything that was handed over, or with the error.
	drain() error
	name() string
}

// ErrNoDirect is returned by [Device.NewWriter] when the direct engine was asked for and cannot work.
var ErrNoDirect = errors.New("no direct writing")

// NewWriter returns a writer on d, which closes d. It asks the kernel to keep few dirty pages of the device, as
// far as it can, until Close.
func (d *Device) NewWriter(o WriterOptions) (*Writer, error) {
	if o.Window <= 0 {
		o.Window = DefaultWindow
	}
	if o.Checkpoint <= 0 {
		o.Checkpoint = DefaultCheckpoint
	}
	if o.InFlight <= 0 {
		o.InFlight = DefaultInFlight
	}
	w := &Writer{d: d, o: o, restore: func() error { return nil }}
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
		return nil, fmt.Errorf("writing %s: there is no engine %q; there are %s, %s and %s", d.name, o.Engine, Paced, Direct, Auto)
	}
	if o.Engine != Direct && d.sysfs != "" {
		w.restore = limitDirty(d.sysfs, dirtyLimit)
	}
	return w, nil
}

// WriteAt hands p over for off. Offsets should ascend, and no byte be written twice between two flushes.
// Nothing is durable before [Writer.Flush] returns nil.
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

// Zero is [Device.Zero], in the order of the writes.
func (w *Writer) Zero(off, length int64) error {
	if err := w.engine.settle(off, length); err != nil {
		return err
	}
	return w.d.Zero(off, length)
}

// Discard is [Device.Discard], in the order of the writes.
func (w *Writer) Discard(off, length int64) error {
	if err := w.engine.settle(off, length); err != nil {
		return err
	}
	return w.d.Discard(off, length)
}

// Flush hands everything to the device and flushes its cache. What was written before is on stable storage when
// it returns nil. It is never repeated after an error.
func (w *Writer) Flush() error {
	if err := w.engine.drain(); err != nil {
		return err
	}
	w.sinceBar = 0
	return w.d.Sync()
}

// ReadBackAt is [Device.ReadBackAt].
func (w *Writer) ReadBackAt(p []byte, off int64) (int, error) { return w.d.ReadBackAt(p, off) }

// WrittenOut is the number of bytes that the device has taken from this writer: written out, not merely in the
// page cache. Safe for concurrent use.
func (w *Writer) WrittenOut() int64 { return w.out.Load() }

// Engine names the engine that ran and how read-back is done, for results.
func (w *Writer) Engine() string {
	if w.d.ReadBackDirect() {
		return w.engine.name() + ", direct read-back"
	}
	return w.engine.name() + ", read-back after dropping the page cache"
}

// Close takes the kernel's limit back and closes the device. It flushes nothing.
func (w *Writer) Close() error {
	_ = w.engine.drain() // no write is under way when the descriptors close; its error was or will be reported
	return errors.Join(w.restore(), w.d.Close())
}
