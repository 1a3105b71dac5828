// Package progress shows the progress of a job: it samples the counters of an install or a copy, and passes events to sinks, which print lines,
// draw bars, or inform a splash screen or a program.
package progress

import (
	"cmp"
	"fmt"
	"sync"
	"time"

	"updater/device"
	"updater/internal/terminal"
	"updater/update"
)

// A Sink shows a job. [Events] calls its methods one at a time.
type Sink interface {
	Warn(text string)
	Device(f device.Facts)  // before it is written
	Fetch(f update.Fetch)   // how an image on a server is fetched, before it is
	Hook(name, line string) // a hook has printed a line
	Phase(p Begin)          // a phase begins, and the one before it has ended
	Sample(s Sample)        // the phase has made progress
	Close()                 // the last phase has ended
}

// Begin is the beginning of a phase. Phase is "" at the end of a job, whether or not the phase before was completed.
type Begin struct {
	update.Phase
	Total  int64        // bytes to do; 0 is unknown
	Of     update.Share // of several images
	Before update.Phase // "" at the first
	Took   time.Duration
}

// Sample is the progress of a phase.
type Sample struct {
	update.Phase
	terminal.Bar
	Of update.Share // of several images
}

// All is the progress of the phase for all images, in bytes.
func (s Sample) All() (done, total int64) {
	if s.Of.All == 0 {
		return s.Done, s.Total
	}
	return s.Of.Before + s.Done, s.Of.All
}

// StallNotice is the time without progress after which a person is told.
const StallNotice = 60 * time.Second

// Events implements install.Events. Safe for concurrent use, once the sinks are chosen.
type Events struct {
	Sinks  []Sink
	Begun  func()        // a phase that writes begins; may be nil
	Splash string        // FIFO of a splash screen, "" means none
	Facts  *device.Facts // of the device that is written

	mu      sync.Mutex
	current update.Phase
	of      update.Share
	began   time.Time // of the current phase
}

// Each hands something to every sink.
func (r *Events) Each(tell func(Sink)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.Sinks {
		tell(s)
	}
}

// Warn implements install.Events.
func (r *Events) Warn(format string, a ...any) {
	text := fmt.Sprintf(format, a...)
	r.Each(func(s Sink) { s.Warn(text) })
}

// Device implements install.Events.
func (r *Events) Device(f device.Facts) {
	r.Facts = &f
	r.Each(func(s Sink) { s.Device(f) })
}

// Hook implements install.Events.
func (r *Events) Hook(name, line string) { r.Each(func(s Sink) { s.Hook(name, line) }) }

// Progress implements install.Events. stop may be called again.
func (r *Events) Progress() (p *update.Progress, stop func()) {
	p = &update.Progress{OnPhase: r.phase, OnFetch: func(f update.Fetch) { r.Each(func(s Sink) { s.Fetch(f) }) }}
	if splash := openSplash(r.Splash); splash != nil {
		r.Sinks = append(r.Sinks, splash)
	}
	ended := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		stall := stall{since: time.Now()}
		for {
			select {
			case <-tick.C:
				r.sample(p.Sample())
				if stall.notice(p.Moves()) {
					phase, _, _ := p.Sample()
					r.Warn("no progress for %s in phase %s: the medium, the source or a hook does not answer", StallNotice, cmp.Or(phase, "documents"))
				}
			case <-ended:
				return
			}
		}
	})
	return p, sync.OnceFunc(func() {
		close(ended)
		done.Wait()
		r.sample(p.Sample()) // the progress since the last tick
		r.phase("", 0, update.Share{})
		r.Each(Sink.Close)
	})
}

// stall detects that the moves of a job stay the same.
type stall struct {
	moves int64
	since time.Time // of the last change
	told  bool      // since then
}

// notice reports whether a person has to be told now, once for each stall.
func (s *stall) notice(moves int64) bool {
	if moves != s.moves {
		*s = stall{moves: moves, since: time.Now()}
	}
	if s.told || time.Since(s.since) < StallNotice {
		return false
	}
	s.told = true
	return true
}

func (r *Events) phase(p update.Phase, total int64, of update.Share) {
	now := time.Now()
	if p != "" && p != update.PhaseCheck && r.Begun != nil {
		r.Begun()
	}
	r.mu.Lock()
	begin := Begin{Phase: p, Total: total, Of: of, Before: r.current, Took: now.Sub(r.began)}
	r.current, r.began, r.of = p, now, of
	r.mu.Unlock()
	r.Each(func(s Sink) { s.Phase(begin) })
}

func (r *Events) sample(p update.Phase, done, total int64) {
	r.mu.Lock()
	if total == 0 || p != r.current {
		r.mu.Unlock()
		return
	}
	bar := terminal.Bar{Label: doing(p, r.of), Done: done, Total: total}
	s := Sample{Phase: p, Of: r.of, Bar: bar.At(time.Since(r.began))}
	r.mu.Unlock()
	r.Each(func(to Sink) { to.Sample(s) })
}

// Meter draws one step that reports its own progress, until stop. progress is nil if nobody would see it.
func (r *Events) Meter(doing string) (progress func(done, total int64), stop func()) {
	bars, ok := r.Sinks[0].(*bars)
	if !ok {
		return nil, func() {}
	}
	began := time.Now()
	return func(done, total int64) {
		bars.Sample(Sample{Bar: terminal.Bar{Label: doing, Done: done, Total: total}.At(time.Since(began))})
	}, func() { bars.finish(time.Since(began)) }
}

// phaseWords are the names of the phases for people.
var phaseWords = map[update.Phase]string{
	update.PhaseCheck:    "checking the signature",
	update.PhasePlan:     "comparing the slots",
	update.PhaseWrite:    "writing",
	update.PhaseFlush:    "flushing the device",
	update.PhaseReadBack: "reading back",
	update.PhaseRepair:   "repairing",
	update.PhaseSwitch:   "switching the boot slot",
}

// doing returns the name of a phase for people, with the role if there are several images.
func doing(p update.Phase, of update.Share) string {
	if of.Role == "" {
		return phaseWords[p]
	}
	return phaseWords[p] + " " + of.Role
}
