package medium

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"updater/provision/fan"
	"updater/provision/target"
)

// Device is a whole disk, opened exclusively. Any error of a write or flush is final.
type Device interface {
	target.Medium
	// Writer is a paced writer on the device.
	Writer() Writer
	// FitTable moves the backup partition table to the end of the disk, and with grow gives the rest of the disk to the last
	// partition; it is durable and read back. found reports whether there is a GUID partition table at all.
	FitTable(sector int, grow bool) (found bool, err error)
	Close() error
}

// Writer writes the bulk of the data, which is on stable storage after Flush.
type Writer interface {
	fan.Sink
	Flush() error
}

// ErrStalled reports a device that does not answer.
var ErrStalled = errors.New("the device does not answer")

// watched is a device that knows since when an operation has been running, and which one was the first to fail.
type watched struct {
	Device
	running sync.Mutex                // held by an operation
	since   atomic.Pointer[time.Time] // nil means none
	failed  atomic.Pointer[error]
	dead    atomic.Bool      // it was given up: every operation fails
	now     func() time.Time // its times have a monotonic reading: the clock of a station may be set
}

// do runs one operation.
func (w *watched) do(op func() error) error {
	if w.dead.Load() {
		return ErrStalled
	}
	w.running.Lock()
	defer w.running.Unlock()
	now := w.now()
	w.since.Store(&now)
	err := op()
	w.since.Store(nil)
	if w.dead.Load() {
		return ErrStalled // it was given up meanwhile
	}
	if err != nil {
		w.failed.CompareAndSwap(nil, &err)
	}
	return err
}

// Stalled reports whether an operation has been running for longer than patience, and gives the disk up then.
func (w *watched) Stalled(patience time.Duration) bool {
	since := w.since.Load()
	if since == nil || w.now().Sub(*since) < patience {
		return false
	}
	w.dead.Store(true)
	return true
}

// Failed is the first error of an operation of the disk, nil for none.
func (w *watched) Failed() error {
	if err := w.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// GiveUp makes every operation fail with [ErrStalled], also one that is running.
func (w *watched) GiveUp() { w.dead.Store(true) }

// Close closes the disk. One that was given up is closed in the background, once its last operation has returned: the kernel may give
// the number of a closed descriptor to another file.
func (w *watched) Close() error {
	closed := func() error {
		w.running.Lock()
		defer w.running.Unlock()
		return w.Device.Close()
	}
	if w.dead.Load() {
		go func() { _ = closed() }()
		return ErrStalled
	}
	return closed()
}

func (w *watched) WriteAt(p []byte, off int64) (n int, err error) {
	err = w.do(func() error { n, err = w.Device.WriteAt(p, off); return err })
	return n, err
}

func (w *watched) ReadBackAt(p []byte, off int64) (n int, err error) {
	err = w.do(func() error { n, err = w.Device.ReadBackAt(p, off); return err })
	return n, err
}

func (w *watched) Zero(off, length int64) error {
	return w.do(func() error { return w.Device.Zero(off, length) })
}

func (w *watched) Sync() error { return w.do(w.Device.Sync) }

func (w *watched) FitTable(sector int, grow bool) (found bool, err error) {
	err = w.do(func() error { found, err = w.Device.FitTable(sector, grow); return err })
	return found, err
}

// bulk writes an image, which begins at base, with the device's paced writer.
type bulk struct {
	*watched
	w    Writer
	base int64
}

func (b bulk) WriteAt(p []byte, off int64) (n int, err error) {
	err = b.do(func() error { n, err = b.w.WriteAt(p, b.base+off); return err })
	return n, err
}

func (b bulk) Zero(off, length int64) error {
	return b.do(func() error { return b.w.Zero(b.base+off, length) })
}

func (b bulk) Flush() error { return b.do(b.w.Flush) }
