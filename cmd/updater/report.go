package main

import (
	"fmt"
	"sync"
	"time"

	"updater/device"
	"updater/update"
)

// A sink shows how a job goes, for people or for a machine. Its methods are called one at a time.
type sink interface {
	warn(text string)
	device(f device.Facts)  // before it is written
	fetch(f update.Fetch)   // how an image on a server is fetched, before it is
	hook(name, line string) // that a hook has printed
	phase(p phaseBegin)     // a phase begins, and the one before it has ended
	sample(s sample)        // some of the phase is done
	close()                 // the last phase has ended
}

// phaseBegin is the beginning of a phase.
type phaseBegin struct {
	update.Phase
	total  int64        // bytes to do; 0 is unknown
	of     update.Share // of several images
	before update.Phase // "" at the first
	took   time.Duration
}

// sample is what is done of a phase.
type sample struct {
	update.Phase
	done, total int64         // bytes
	of          update.Share  // of several images
	rate        int64         // bytes a second since the phase began; 0 is not known yet
	left        time.Duration // to its end at that rate
}

// all is what is done of the phase for all images, in bytes.
func (s sample) all() (done, total int64) {
	if s.of.All == 0 {
		return s.done, s.total
	}
	return s.of.Before + s.done, s.of.All
}

// report implements recovery.Events, which are install.Events and the result: it samples the counters of a job and hands everything to its sinks, which are chosen once.
type report struct {
	env    Env
	asJSON bool
	start  time.Time
	facts  *device.Facts // of the device that is written

	mu      sync.Mutex
	sinks   []sink
	current update.Phase
	of      update.Share
	began   time.Time // of the current phase
}

func newReport(env Env, asJSON bool) *report {
	if env.out == nil {
		env.out = &output{psplash: defaultSplash}
	}
	r := &report{env: env, asJSON: asJSON || env.out.progress == "json", start: time.Now()}
	switch {
	case r.asJSON:
		r.sinks = []sink{&jsonSink{env: env}}
	case env.out.draws(env.Stderr):
		r.sinks = []sink{&barSink{lineSink: lineSink{env: env}, live: live{w: env.Stderr}}}
	default:
		r.sinks = []sink{&lineSink{env: env}}
	}
	return r
}

func (r *report) each(tell func(sink)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.sinks {
		tell(s)
	}
}

// Warn implements install.Events.
func (r *report) Warn(format string, a ...any) {
	text := fmt.Sprintf(format, a...)
	r.each(func(s sink) { s.warn(text) })
}

// Device implements install.Events.
func (r *report) Device(f device.Facts) {
	r.facts = &f
	r.each(func(s sink) { s.device(f) })
}

// Hook implements install.Events.
func (r *report) Hook(name, line string) { r.each(func(s sink) { s.hook(name, line) }) }

// Installed implements recovery.Events.
func (r *report) Installed(res *update.Result, late error) error { return r.installed(res, late) }

// Progress implements install.Events.
func (r *report) Progress() (p *update.Progress, stop func()) {
	p = new(update.Progress)
	p.OnPhase = r.phase
	p.OnFetch = func(f update.Fetch) { r.each(func(s sink) { s.fetch(f) }) }
	if splash := openSplash(r.env.out.psplash); splash != nil {
		r.sinks = append(r.sinks, splash)
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
					r.Warn("no progress for %s in phase %s: the medium, the source or a hook does not answer", stallNotice, phase)
				}
			case <-ended:
				return
			}
		}
	})
	return p, sync.OnceFunc(func() {
		close(ended)
		done.Wait()
		r.phase("", 0, update.Share{})
		r.each(sink.close)
	})
}

// stall notices that the moves of a job stay the same.
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
	if s.told || time.Since(s.since) < stallNotice {
		return false
	}
	s.told = true
	return true
}

func (r *report) phase(p update.Phase, total int64, of update.Share) {
	now := time.Now()
	if p != "" && p != update.PhaseCheck {
		r.env.out.begin()
	}
	r.mu.Lock()
	begin := phaseBegin{Phase: p, total: total, of: of, before: r.current, took: now.Sub(r.began)}
	r.current, r.began, r.of = p, now, of
	r.mu.Unlock()
	r.each(func(s sink) { s.phase(begin) })
}

func (r *report) sample(p update.Phase, done, total int64) {
	r.mu.Lock()
	if total == 0 || p != r.current {
		r.mu.Unlock()
		return
	}
	s := sample{Phase: p, done: done, total: total, of: r.of}
	s.rate, s.left = rate(done, total, time.Since(r.began))
	r.mu.Unlock()
	r.each(func(to sink) { to.sample(s) })
}

// rate is how fast done bytes were in a time, in bytes a second, and how long the rest takes at that rate; 0 is not known yet.
func rate(done, total int64, spent time.Duration) (int64, time.Duration) {
	if done <= 0 || spent < time.Second {
		return 0, 0
	}
	left := time.Duration(float64(spent) * float64(total-done) / float64(done))
	return int64(float64(done) / spent.Seconds()), left.Round(time.Second)
}

// meter draws one step that reports its own progress, until stop. It is nil where nobody would see it.
func (r *report) meter(doing string) (progress func(done, total int64), stop func()) {
	bar, ok := r.sinks[0].(*barSink)
	if !ok {
		return nil, func() {}
	}
	began := time.Now()
	progress = func(done, total int64) {
		s := sample{done: done, total: total}
		s.rate, s.left = rate(done, total, time.Since(began))
		bar.draw(doing, s)
	}
	return progress, bar.close
}
