package initramfs

import (
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// StepBound is how long a step may take without progress. A slow medium stays below it: the kernel gives a command of a SCSI disk up
// after 6 attempts of 30 s (drivers/scsi/sd.h), one of an MMC card earlier.
const StepBound = 5 * time.Minute

// beatEvery is the interval of heartbeats.
const beatEvery = 2 * time.Second

// Work is what the worker is doing. Its heartbeat ([Work.Beat]) depends on progress: it ends when the current step is overdue.
// The zero value is ready and has a step of [StepBound]. Safe for concurrent use.
type Work struct {
	mu    sync.Mutex
	doing string
	bound time.Duration
	since time.Time        // the last progress
	now   func() time.Time // replaced in tests
}

// Begin begins a step whose progress is due within bound, again and again; 0 is no bound, for a step that watches itself or
// waits for a person. doing is for messages.
func (w *Work) Begin(doing string, bound time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.doing, w.bound, w.since = doing, bound, w.clock()
}

// Progress records progress of the current step.
func (w *Work) Progress() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.since.IsZero() {
		w.bound = StepBound
	}
	w.since = w.clock()
}

// Overdue returns the current step, and whether its bound is over. Steps of the clock do not matter: the time is monotonic.
func (w *Work) Overdue() (doing string, bound time.Duration, late bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.doing, w.bound, w.bound > 0 && w.clock().Sub(w.since) > w.bound
}

func (w *Work) clock() time.Time {
	if w.now != nil {
		return w.now()
	}
	return time.Now()
}

// Beat sends heartbeats to the [Supervisor] while the work makes progress. It returns when a step is overdue, which it logs, or when
// nothing supervises this process. The worker runs it in a goroutine.
func (w *Work) Beat(log func(format string, a ...any)) {
	unix.CloseOnExec(beatFD)
	w.Progress()
	for {
		if doing, bound, late := w.Overdue(); late {
			log("error: no progress for %s while %s", bound, doing)
			return
		}
		if _, err := unix.Write(beatFD, []byte{0}); err != nil && !errors.Is(err, unix.EINTR) {
			return // no supervisor
		}
		time.Sleep(beatEvery)
	}
}
