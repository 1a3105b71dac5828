package service

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"strings"

	"updater/device"
	"updater/device/config"
	"updater/fleet"
	"updater/install"
	"updater/internal/broadcast"
	"updater/update"
)

// Options configure a [Service]. Every field is required.
type Options struct {
	Config   func() (*config.Config, error) // is called for every method, so that a change counts at once
	Inputs   install.Inputs
	Events   func(w io.Writer) Events // sink for the events of one install: it writes JSON lines
	Describe func(err error) (code int, hint string)
	Version  string
}

// Events write the progress of an install; the last event is the result.
type Events interface {
	install.Events
	Installed(res *update.Result, late error) error
	Failed(err error)
	// Handed reports that another program continues: the recovery.
	Handed(what error)
}

// Service answers calls. Safe for concurrent use.
type Service struct {
	o      Options
	events broadcast.Events // of every install of this process
}

// New creates a service.
func New(o Options) *Service { return &Service{o: o} }

// dispatch carries a call out and returns the parameters of its last reply.
func (s *Service) dispatch(ctx context.Context, c *call) (any, error) {
	methods := map[string]func(context.Context, *call) (any, error){
		"Status": s.status, "Check": s.check, "Install": s.install, "Update": s.update,
		"MarkGood": s.markGood, "Activate": s.activate, "Monitor": s.monitor,
	}
	dot := strings.LastIndexByte(c.Method, '.')
	if dot < 0 {
		return nil, protocolError("MethodNotFound", "method", c.Method)
	}
	switch of, name := c.Method[:dot], c.Method[dot+1:]; of {
	case "org.varlink.service":
		return s.about(c)
	case "io.updater":
		if do := methods[name]; do != nil {
			return do(ctx, c)
		}
		return nil, protocolError("MethodNotFound", "method", c.Method)
	default:
		return nil, protocolError("InterfaceNotFound", "interface", of)
	}
}

// eventReply has the parameters of a reply with an event.
type eventReply struct {
	Event json.RawMessage `json:"event"`
}

func (s *Service) status(ctx context.Context, c *call) (any, error) {
	conf, err := s.plain(c)
	if err != nil {
		return nil, err
	}
	status, err := device.ReadStatus(ctx, conf, "")
	return struct {
		Status *device.Status `json:"status"`
	}{status}, err
}

// plain reads the configuration for a method without parameters.
func (s *Service) plain(c *call) (*config.Config, error) {
	if err := c.read(new(struct{})); err != nil {
		return nil, err
	}
	return s.o.Config()
}

func (s *Service) check(ctx context.Context, c *call) (any, error) {
	conf, err := s.plain(c)
	if err != nil {
		return nil, err
	}
	verdict, err := fleet.Check(ctx, conf, s.o.Inputs)
	return struct {
		Verdict *fleet.Verdict `json:"verdict"`
	}{verdict}, err
}

func (s *Service) install(ctx context.Context, c *call) (any, error) {
	var in struct {
		Source  string `json:"source"`
		IfNewer *bool  `json:"if_newer"`
	}
	if err := c.read(&in); err != nil {
		return nil, err
	}
	if !filepath.IsAbs(in.Source) && !strings.Contains(in.Source, "://") { // no standard input, and no folder that the client means
		return nil, protocolError("InvalidParameter", "parameter", "source")
	}
	conf, err := s.o.Config()
	if err != nil {
		return nil, err
	}
	r := install.Request{Config: conf, Image: in.Source, IfNewer: in.IfNewer != nil && *in.IfNewer}
	return s.job(ctx, c, func(ctx context.Context, e Events) (*update.Result, error) { return install.Run(ctx, r, s.o.Inputs, e) })
}

func (s *Service) update(ctx context.Context, c *call) (any, error) {
	conf, err := s.plain(c)
	if err != nil {
		return nil, err
	}
	return s.job(ctx, c, func(ctx context.Context, e Events) (*update.Result, error) {
		return fleet.Update(ctx, fleet.Request{Config: conf}, s.o.Inputs, e)
	})
}

// job runs an install and sends its events to the client, if it wants them, and to monitors. A client that does not read delays nothing; one
// that goes away ends the install.
func (s *Service) job(ctx context.Context, c *call, run func(context.Context, Events) (*update.Result, error)) (any, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !c.Oneway {
		defer c.watch(func(gone bool) {
			if gone {
				cancel()
			}
		})()
	}
	own := new(broadcast.Events)
	lines, end := own.Read()
	defer end()
	done := make(chan error, 1)
	go func() { done <- finish(ctx, s.o.Events(io.MultiWriter(own, &s.events)), run) }()
	var result eventReply
	take := func(line []byte) {
		if isResult(line) {
			result.Event = line
		} else if c.More && c.send(reply{Parameters: eventReply{line}, Continues: true}) != nil {
			cancel()
		}
	}
	for {
		select {
		case line := <-lines:
			take(line)
		case err := <-done:
			for len(lines) > 0 {
				take(<-lines)
			}
			return result, err
		}
	}
}

func isResult(line []byte) bool {
	var e struct {
		Event string `json:"ev"`
	}
	return json.Unmarshal(line, &e) == nil && e.Event == "result"
}

// finish runs an install and reports its result. The error is nil when the new slot, or the recovery that installs it, boots next.
func finish(ctx context.Context, e Events, run func(context.Context, Events) (*update.Result, error)) error {
	res, err := run(ctx, e)
	if handed, ok := errors.AsType[*install.HandedOver](err); ok {
		e.Handed(handed)
		return nil
	}
	if res == nil {
		e.Failed(err)
		return err
	}
	return e.Installed(res, err)
}

func (s *Service) monitor(ctx context.Context, c *call) (any, error) {
	if err := c.read(new(struct{})); err != nil {
		return nil, err
	}
	if !c.More {
		return nil, &fault{"org.varlink.service.ExpectedMore", struct{}{}}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer c.watch(func(bool) { cancel() })() // the next message ends it
	lines, end := s.events.Read()
	defer end()
	for {
		select {
		case line := <-lines:
			if err := c.send(reply{Parameters: eventReply{line}, Continues: true}); err != nil {
				return nil, err
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// change opens the device for a change of its boot state. may, unless nil, is asked before.
func (s *Service) change(may func(c *config.Config) error, do func(d *device.Device) error) error {
	conf, err := s.o.Config()
	if err == nil && may != nil {
		err = may(conf)
	}
	if err != nil {
		return err
	}
	d, err := device.Open(conf, device.Options{Purpose: device.Change})
	if err != nil {
		return err
	}
	defer d.Close()
	return do(d)
}

func (s *Service) markGood(ctx context.Context, c *call) (any, error) {
	var in struct {
		Slot *string `json:"slot"`
	}
	if err := c.read(&in); err != nil {
		return nil, err
	}
	var out struct {
		Slot string `json:"slot"`
	}
	err := s.change(nil, func(d *device.Device) (err error) {
		if in.Slot != nil {
			out.Slot = *in.Slot
		}
		if out.Slot, err = d.SlotOrBooted(out.Slot); err != nil {
			return err
		}
		return d.MarkGood(ctx, out.Slot)
	})
	return out, err
}

func (s *Service) activate(ctx context.Context, c *call) (any, error) {
	var in struct {
		Slot  string `json:"slot"`
		Tries *int   `json:"tries"`
	}
	if err := c.read(&in); err != nil {
		return nil, err
	}
	if in.Tries != nil && *in.Tries < 1 {
		return nil, protocolError("InvalidParameter", "parameter", "tries")
	}
	out := struct {
		Slot  string `json:"slot"`
		Tries int    `json:"tries"`
	}{Slot: in.Slot}
	may := func(conf *config.Config) error {
		return fleet.MayActivate(ctx, fleet.Activation{Config: conf, Slot: in.Slot}, s.o.Inputs)
	}
	err := s.change(may, func(d *device.Device) error {
		if err := d.Known(in.Slot); err != nil {
			return err
		}
		if out.Tries = d.Tries(); in.Tries != nil {
			out.Tries = *in.Tries
		}
		return d.SwitchTo(ctx, in.Slot, out.Tries)
	})
	return out, err
}
