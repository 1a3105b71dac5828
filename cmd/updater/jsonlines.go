package main

import (
	"time"

	"updater/bmap"
	"updater/device"
	"updater/install"
	"updater/internal/progress"
	"updater/update"
)

// event is one line of --json.
type event struct {
	TS    string       `json:"ts"`
	Seq   int          `json:"seq"`
	Event string       `json:"ev"` // device | phase | fetch | progress | hook | warn | result
	Phase update.Phase `json:"phase,omitempty"`
	Bytes int64        `json:"bytes,omitempty"`
	Total int64        `json:"total,omitempty"`
	Rate  int64        `json:"rate,omitempty"` // bytes a second, since the phase began
	// With several images: the role of the current one, and the bytes of the phase done and in total for all of them.
	Image    string `json:"image,omitempty"`
	AllBytes int64  `json:"all_bytes,omitempty"`
	AllTotal int64  `json:"all_total,omitempty"`

	ETA    int64               `json:"eta,omitempty"` // seconds to its end at that rate
	Code   *int                `json:"code,omitempty"`
	Hook   string              `json:"hook,omitempty"` // that has printed msg
	Msg    string              `json:"msg,omitempty"`
	Hint   string              `json:"hint,omitempty"`
	Ranges []bmap.Span         `json:"ranges,omitempty"` // that read back wrong
	Device *device.Facts       `json:"device,omitempty"` // that was written
	Fetch  *update.Fetch       `json:"fetch,omitempty"`
	Result *update.Result      `json:"result,omitempty"`
	Copy   *install.CopyResult `json:"copy,omitempty"`
}

// jsonSink prints one JSON object a line to standard output (docs/events.schema.json).
type jsonSink struct {
	env Env
	seq int
}

func (j *jsonSink) emit(e event) {
	j.seq++
	e.TS, e.Seq = time.Now().UTC().Format(time.RFC3339Nano), j.seq
	if err := j.env.json(e); e.Event == "result" {
		j.env.unprinted(err)
	}
}

func (j *jsonSink) Warn(text string)       { j.emit(event{Event: "warn", Msg: text}) }
func (j *jsonSink) Device(f device.Facts)  { j.emit(event{Event: "device", Device: &f}) }
func (j *jsonSink) Fetch(f update.Fetch)   { j.emit(event{Event: "fetch", Fetch: &f}) }
func (j *jsonSink) Hook(name, line string) { j.emit(event{Event: "hook", Hook: name, Msg: line}) }
func (j *jsonSink) Close()                 {}
func (j *jsonSink) Phase(p progress.Begin) {
	if p.Phase != "" {
		j.emit(event{Event: "phase", Phase: p.Phase, Total: p.Total, Image: p.Of.Role, AllBytes: p.Of.Before, AllTotal: p.Of.All})
	}
}

func (j *jsonSink) Sample(s progress.Sample) {
	e := event{Event: "progress", Phase: s.Phase, Bytes: s.Done, Total: s.Total, Rate: s.Rate, ETA: int64(s.Left.Seconds())}
	if s.Of.All > 0 {
		e.Image = s.Of.Role
		e.AllBytes, e.AllTotal = s.All()
	}
	j.emit(e)
}

// result is the last line.
func (r *report) result(e event) {
	e.Event, e.Device = "result", r.Facts
	r.Each(func(s progress.Sink) {
		if j, ok := s.(*jsonSink); ok {
			j.emit(e)
		}
	})
}
