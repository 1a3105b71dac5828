package provision

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Device is a target's whole disk, opened exclusively. Its methods are those of a medium; Writer is a paced writer on
// it, whose data is on stable storage after its Flush.
type Device interface {
	Medium
	Writer() Writer
	// FitTable moves the backup partition table to the end of the disk, and with grow gives the rest of the disk to the
	// last partition; durable and read back. found is whether there is a GUID partition table at all.
	FitTable(sector int, grow bool) (found bool, err error)
	Close() error
}

// Writer writes the bulk of the data.
type Writer interface {
	Sink
	Flush() error
}

// MediumError says that the medium of a unit could not be written or read, or does not hold what was written.
type MediumError struct {
	Unit, Step string
	Err        error
}

func (e *MediumError) Error() string { return fmt.Sprintf("%s: %s: %v", e.Unit, e.Step, e.Err) }
func (e *MediumError) Unwrap() error { return e.Err }

// errStalled says that a medium answers no more.
var errStalled = errors.New("the device does not answer")

// unit is one target on its way. Its fields belong to the goroutine that works on it; what a verdict needs is guarded,
// since one that hangs gets its verdict from another.
type unit struct {
	Target
	disk  *Disk
	tile  *tile
	board *Board

	key    string
	strong bool
	parts  []Placed
	before held
	writer Writer

	payload int          // that it needs next
	at      int64        // in it
	out     *Out         // of the last fan
	bad     [][]badRange // of each payload, to be written again
	mended  bool         // that was done
	again   bool         // the device was tried again
	fresh   bool         // it begins at the beginning

	mu      sync.Mutex
	dev     *watched
	got     *Reservation
	id      *Identity
	latch   string
	steps   []Step
	began   time.Time
	retries []Retry
	over    bool // it has its verdict
}

// step ends the current step and begins the next, of total bytes.
func (u *unit) step(name string, total int64) {
	u.mu.Lock()
	u.endStep()
	u.began = time.Now()
	began := u.began
	u.steps = append(u.steps, Step{Name: name})
	u.tile.done.Store(0)
	u.mu.Unlock()
	u.board.set(u.tile, func(t *Tile) { t.Step, t.Total, t.Began = name, total, began })
}

// endStep notes how long the step took and how much it did. The caller holds the lock.
func (u *unit) endStep() {
	if len(u.steps) == 0 || u.began.IsZero() {
		return
	}
	s := &u.steps[len(u.steps)-1]
	s.Seconds, s.Bytes = time.Since(u.began).Seconds(), u.tile.done.Load()
	if s.Seconds > 0 && s.Bytes > 0 {
		s.BytesPerSecond = int64(float64(s.Bytes) / s.Seconds)
	}
	u.began = time.Time{}
}

// set changes what is guarded.
func (u *unit) set(change func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	change()
}

func (u *unit) retry(step string, off int64, err error) {
	u.set(func() { u.retries = append(u.retries, Retry{Step: step, Offset: off, Error: err.Error()}) })
}

func (u *unit) device() *watched {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.dev
}

// open opens the disk exclusively.
func (u *unit) open(ctx context.Context, how func(ctx context.Context, d *Disk) (Device, error)) error {
	dev, err := how(ctx, u.disk)
	if err != nil {
		return err
	}
	u.set(func() { u.dev = &watched{Device: dev} })
	u.writer = dev.Writer()
	return nil
}

// close closes the disk, if it is open.
func (u *unit) close() error {
	dev := u.device()
	u.set(func() { u.dev = nil })
	if dev == nil {
		return nil
	}
	return dev.Close()
}

// window is the partition of a name.
func (u *unit) window(name string) (Window, error) {
	for _, p := range u.parts {
		if p.Name == name {
			return Window{Medium: u.device(), Offset: p.Offset, Length: p.Length}, nil
		}
	}
	return Window{}, fmt.Errorf("partition %s is not on the disk", name)
}

// medium wraps an error of the unit's medium.
func (u *unit) medium(step string, err error) error {
	if err == nil {
		return nil
	}
	return &MediumError{Unit: u.Name, Step: step, Err: err}
}

// watched knows since when an operation of the medium is under way, and whether one has failed.
type watched struct {
	Device
	since  atomic.Int64 // unix nanoseconds; 0 is none
	failed atomic.Bool
	dead   atomic.Bool // it is given up: nothing more is done on it
}

// do runs one operation.
func (w *watched) do(op func() error) error {
	if w.dead.Load() {
		return errStalled
	}
	w.since.Store(time.Now().UnixNano())
	err := op()
	w.since.Store(0)
	if err != nil {
		w.failed.Store(true)
	}
	return err
}

// stalled tells whether an operation has been under way for longer than patience; if so the device is given up.
func (w *watched) stalled(patience time.Duration) bool {
	since := w.since.Load()
	if since == 0 || time.Since(time.Unix(0, since)) < patience {
		return false
	}
	w.dead.Store(true)
	return true
}

func (w *watched) ReadAt(p []byte, off int64) (n int, err error) {
	err = w.do(func() error { n, err = w.Device.ReadAt(p, off); return err })
	return n, err
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
