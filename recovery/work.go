package recovery

import (
	"cmp"
	"sync"
	"time"

	"updater/initramfs"
	"updater/update"
)

// Bounds of steps that may be slow: one flush, since a card may still have to write what its cache and that of the kernel hold, and
// clean up; documents over a slow line, whose bytes are not counted.
const (
	flushBound    = 10 * time.Minute
	documentBound = 30 * time.Minute
)

// Defaults of the limits that end a download and a hook: those of source.HTTPOptions and package install.
const (
	defaultGiveUp = 5 * time.Minute
	defaultHook   = time.Minute
)

// watchedEvents hands the progress of a job to the work of the initramfs.
type watchedEvents struct {
	Events
	device *Device
}

// watched creates the events of one install, which begins with its documents.
func (d *Device) watched() Events {
	d.Work.Begin("reading the documents of an update", documentBound)
	return watchedEvents{d.Events(), d}
}

// Progress implements install.Events.
func (e watchedEvents) Progress() (p *update.Progress, stop func()) {
	p, shown := e.Events.Progress()
	watched := e.device.watch(p)
	return p, func() { watched(); shown() }
}

// Hook implements install.Events. The output of a hook is progress.
func (e watchedEvents) Hook(name, line string) {
	e.device.Work.Progress()
	e.Events.Hook(name, line)
}

// watch samples the counters of a job until stop, and reports progress to the work.
func (d *Device) watch(p *update.Progress) (stop func()) {
	ended := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		var last update.Phase
		for moves := int64(-1); ; {
			phase, _, _ := p.Sample()
			if phase != last {
				last = phase
				d.Work.Begin("installing, phase "+string(phase), d.bound(phase))
			}
			if now := p.Moves(); now != moves {
				moves = now
				d.Work.Progress()
			}
			select {
			case <-tick.C:
			case <-ended:
				return
			}
		}
	})
	return sync.OnceFunc(func() {
		close(ended)
		done.Wait()
		d.Work.Begin("finishing an install", initramfs.StepBound)
	})
}

// bound is how long a phase may take without progress. A server and a hook have limits of their own, which end them first.
func (d *Device) bound(p update.Phase) time.Duration {
	if p == update.PhaseFlush {
		return flushBound
	}
	own := cmp.Or(time.Duration(d.Config.Source.GiveUp), defaultGiveUp)
	if d.Config.Hooks.Initramfs {
		own = max(own, cmp.Or(time.Duration(d.Config.Hooks.Timeout), defaultHook))
	}
	return initramfs.StepBound + own
}
