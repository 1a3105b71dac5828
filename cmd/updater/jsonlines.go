package main

import (
	"time"

	"updater/bmap"
	"updater/device"
	"updater/install"
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
	// Of several images: the role of the one that is worked on, and what the phase has done and does for all of them.
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

func (j *jsonSink) warn(text string)       { j.emit(event{Event: "warn", Msg: text}) }
func (j *jsonSink) device(f device.Facts)  { j.emit(event{Event: "device", Device: &f}) }
func (j *jsonSink) fetch(f update.Fetch)   { j.emit(event{Event: "fetch", Fetch: &f}) }
func (j *jsonSink) hook(name, line string) { j.emit(event{Event: "hook", Hook: name, Msg: line}) }
func (j *jsonSink) close()                 {}
func (j *jsonSink) phase(p phaseBegin) {
	if p.Phase != "" {
		j.emit(event{Event: "phase", Phase: p.Phase, Total: p.total, Image: p.of.Role, AllBytes: p.of.Before, AllTotal: p.of.All})
	}
}

func (j *jsonSink) sample(s sample) {
	e := event{Event: "progress", Phase: s.Phase, Bytes: s.done, Total: s.total, Rate: s.rate, ETA: int64(s.left.Seconds())}
	if s.of.All > 0 {
		e.Image = s.of.Role
		e.AllBytes, e.AllTotal = s.all()
	}
	j.emit(e)
}

// result is the last line.
func (r *report) result(e event) {
	e.Event, e.Device = "result", r.facts
	r.each(func(s sink) {
		if j, ok := s.(*jsonSink); ok {
			j.emit(e)
		}
	})
}
