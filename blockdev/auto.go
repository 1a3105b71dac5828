package blockdev

import (
	"fmt"
	"time"
)

// pacedLead is the factor by which paced must outrun direct to be chosen: while a slot is read back, writes through the page cache become
// slower and direct ones do not.
const pacedLead = 1.1

// auto writes the first bytes with each engine in turn and continues with direct unless paced is clearly faster. It measures the time inside
// the engine only, so a slow source does not matter.
type auto struct {
	engines []engine // paced, direct
	trial   int64    // bytes written with each before the choice
	now     int      // index of the engine in use
	chosen  bool
	bytes   int64
	rate    [2]float64 // bytes per second
	spent   time.Duration
}

func newAuto(paced, direct engine, trial int64) *auto {
	return &auto{engines: []engine{paced, direct}, trial: trial}
}

func (a *auto) write(p []byte, off int64) error {
	start := time.Now()
	if err := a.engines[a.now].write(p, off); err != nil || a.chosen {
		return err
	}
	a.bytes += int64(len(p))
	if a.bytes >= a.trial {
		if err := a.engines[a.now].drain(); err != nil {
			return err
		}
		a.spent += time.Since(start)
		a.judge()
		return nil
	}
	a.spent += time.Since(start)
	return nil
}

// judge ends the trial of one engine.
func (a *auto) judge() {
	a.rate[a.now] = float64(a.bytes) / max(a.spent, 1).Seconds()
	a.bytes, a.spent = 0, 0
	if a.now == 0 {
		a.now = 1
		return
	}
	a.chosen = true
	if a.rate[0] >= pacedLead*a.rate[1] {
		a.now = 0
	}
	a.engines[1-a.now] = nil // frees its buffers
}

func (a *auto) settle(off, length int64) error { return a.engines[a.now].settle(off, length) }
func (a *auto) drain() error                   { return a.engines[a.now].drain() }
func (a *auto) refill() int64                  { return a.engines[a.now].refill() }

func (a *auto) name() string {
	if !a.chosen {
		return a.engines[0].name()
	}
	return fmt.Sprintf("%s (auto: paced %.0f MiB/s, direct %.0f MiB/s)", a.engines[a.now].name(), a.rate[0]/(1<<20), a.rate[1]/(1<<20))
}
