package main

import (
	"time"

	"updater/internal/progress"
	"updater/update"
)

// report implements recovery.Events: the events of a job, and its result.
type report struct {
	*progress.Events
	env    Env
	asJSON bool
	start  time.Time
}

func newReport(env Env, asJSON bool) *report {
	if env.out == nil {
		env.out = &output{psplash: defaultSplash}
	}
	o := env.out
	r := &report{env: env, asJSON: asJSON || o.progress == "json", start: time.Now()}
	r.Events = &progress.Events{Begun: o.begin, Splash: o.psplash}
	if r.asJSON {
		r.Sinks = []progress.Sink{&jsonSink{env: env}}
	} else {
		style := progress.Style{Quiet: o.quiet, Silent: o.progress == "none", Verbose: o.verbose}
		r.Sinks = []progress.Sink{progress.ForPeople(env.Stderr, style, o.progress == "plain")}
	}
	if env.events != nil {
		r.Sinks = append(r.Sinks, &jsonSink{env: Env{Stdout: env.events, Stderr: env.Stderr}})
	}
	return r
}

// Installed implements recovery.Events.
func (r *report) Installed(res *update.Result, late error) error { return r.installed(res, late) }

// Failed implements recovery.Events.
func (r *report) Failed(err error) { _ = r.failed(err) }

// Handed implements service.Events.
func (r *report) Handed(what error) { r.waits(what) }
