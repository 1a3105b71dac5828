package station

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"updater/device"
	"updater/device/config"
	"updater/install"
	"updater/provision/board"
	"updater/provision/identity"
	"updater/provision/keys"
	"updater/provision/line"
	"updater/provision/medium"
	"updater/provision/plan"
	"updater/provision/record"
	"updater/provision/target"
	"updater/source"
	"updater/update"
)

const (
	diskPatience = 10 * time.Second // disks may take so long to appear in an initramfs: card readers are slow
	sendPause    = 5 * time.Second  // between two attempts to send records
	maxToken     = 64 << 10
)

// Job finds the targets, verifies the signed bmap of every image and asks for the input of a person. Nothing is opened for writing. The
// board shows the run. Errors: [config.RequestError], [update.Accept]'s.
func (s *Station) Job(ctx context.Context, b *board.Board) (*Job, error) {
	j := &Job{station: s, targets: s.find(ctx)}
	if len(j.targets) == 0 {
		return nil, config.Requestf("no target: name one with --target or --port, or list them in the plan")
	}
	if err := s.loadPayloads(ctx); err != nil {
		return nil, err
	}
	j.job = line.Job{
		Plan: s.plan, Host: host{s}, Payloads: s.payloads, Web: s.web, Spool: s.spool, Key: s.key,
		Operator: s.o.Operator, Version: s.o.Build.Version, Now: s.trust.Time, Code: s.o.Code, Board: b, Check: s.o.Check,
	}
	var err error
	if s.plan.Latch != nil {
		if j.job.Factory, err = keys.LoadPublic(s.plan.Latch.FactoryKey); err != nil {
			return nil, err
		}
	}
	if id := s.plan.Identity; id != nil && id.Key != nil && id.Key.Issuer != "" {
		if j.job.Issuers, err = identity.Issuers(id.Key.Issuer); err != nil {
			return nil, err
		}
	}
	if s.o.Token != "" {
		if j.job.Token, err = install.ReadFile(s.o.Token, maxToken); err != nil {
			return nil, fmt.Errorf("reading the token: %w", err)
		}
	}
	if s.plan.Identity != nil && !s.o.Check {
		j.job.Allocator, err = s.allocator(ctx, j.targets)
	}
	return j, err
}

// Job is a run that can begin.
type Job struct {
	station *Station
	targets []target.Target
	job     line.Job
}

// Run provisions the targets, see [line.Run], and sets the LEDs of the plan.
func (j *Job) Run(ctx context.Context) ([]line.Result, error) {
	j.station.setLED("working")
	results, err := line.Run(ctx, j.job, j.targets)
	state := "pass"
	if slices.ContainsFunc(results, func(r line.Result) bool { return r.Verdict != record.Pass }) {
		state = "fail"
	}
	j.station.setLED(state)
	return results, err
}

// Again is the job for the targets of results that did not pass, as they are found now.
func (j *Job) Again(ctx context.Context, results []line.Result) *Job {
	again := *j
	again.targets = slices.DeleteFunc(j.station.find(ctx), func(t target.Target) bool {
		return !slices.ContainsFunc(results, func(r line.Result) bool { return r.Name == t.Name && r.Verdict != record.Pass })
	})
	return &again
}

// find selects the disks. In an initramfs it waits for those that are missing.
func (s *Station) find(ctx context.Context) []target.Target {
	deadline := time.Now().Add(diskPatience)
	for {
		found := target.Select(target.Host{}, s.plan, s.o.Targets, s.o.Ports)
		absent := slices.ContainsFunc(found, func(t target.Target) bool { return t.Absent })
		if !absent || !s.o.Inside || ctx.Err() != nil || time.Now().After(deadline) {
			return found
		}
		time.Sleep(time.Second / 4)
	}
}

// loadPayloads verifies the signed bmap of every image.
func (s *Station) loadPayloads(ctx context.Context) error {
	if i := s.plan.Image; i != nil {
		return s.loadPayload(ctx, plan.Partition{Image: i.Path, Bmap: i.Bmap, Signature: i.Signature})
	}
	for _, p := range s.plan.Partition {
		if p.Image == "" {
			continue
		}
		if err := s.loadPayload(ctx, p); err != nil {
			return fmt.Errorf("partition %s: %w", p.Name, err)
		}
	}
	if s.plan.Release != nil {
		return s.loadRelease(ctx)
	}
	return s.onlySets()
}

// loadPayload verifies the bmap of one image; the name of the partition is "" for the whole disk.
func (s *Station) loadPayload(ctx context.Context, p plan.Partition) error {
	path := s.beside(p.Image)
	signed, err := install.Documents{Bmap: s.beside(p.Bmap), Signature: s.beside(p.Signature)}.Find(ctx, path, s.from)
	if _, missing := errors.AsType[*config.RequestError](err); missing {
		return &config.RequestError{Err: err, Advice: "make the bmap with updater bmap create and sign it, or name it as bmap in the plan"}
	}
	if err != nil {
		return err
	}
	accept := func(c update.Conditions) (*update.Document, error) {
		c.Role = p.Role
		doc, err := update.Accept(signed.UnverifiedBmap, signed.UnverifiedSig, c)
		if err != nil {
			err = fmt.Errorf("image %s: %w", p.Image, err)
		}
		return doc, err
	}
	doc, err := accept(s.conditions())
	if err != nil {
		return err
	}
	s.accepts = append(s.accepts, func(c update.Conditions) error { _, err := accept(c); return err })
	s.signed[p.Name] = signed
	open := func(ctx context.Context) (update.ImageCloser, error) {
		img, _, err := s.from.Open(ctx, path)
		return img, err
	}
	s.payloads = append(s.payloads, &medium.Payload{Name: p.Image, Partition: p.Name, Doc: doc, Open: open})
	return nil
}

// allocator makes the source of serials. A person is asked before the run, while the terminal is free.
func (s *Station) allocator(ctx context.Context, targets []target.Target) (identity.Allocator, error) {
	switch rule := s.plan.Identity.Serial; rule.From {
	case "plan":
		return identity.Fixed(rule.Value), nil
	case "csv":
		return identity.NewCSV(rule.File), nil
	case "http":
		return &identity.HTTPAllocator{URL: s.beside(rule.URL), Station: s.plan.Record.Station, Web: s.web}, nil
	case "prompt":
		answers := map[string]string{}
		for _, t := range targets {
			if t.Refused != nil {
				continue
			}
			answer, err := s.o.Ask(ctx, fmt.Sprintf("serial of %s (%s)", t.Name, strings.TrimSpace(t.Disk.Model)))
			if err != nil {
				return nil, fmt.Errorf("asking for the serial of %s: %w", t.Name, err)
			}
			unit, _ := t.Disk.Key(t.Name)
			answers[unit] = answer
		}
		return identity.Prompt(func(_ context.Context, unit string) (string, error) { return answers[unit], nil }), nil
	default:
		return identity.Own(func(context.Context, identity.Claim) (string, error) { return device.MachineSerial("/", rule.From) }), nil
	}
}

// Send sends the records that the server does not have yet, once. Errors: [config.RequestError], [identity.AnswerError], [source.FetchError].
func (s *Station) Send(ctx context.Context) error {
	if s.plan.Record.URL == "" {
		return config.Requestf("plan %s: record.url is not set", s.o.Plan)
	}
	return s.spool.Deliver(ctx, func(ctx context.Context, line []byte, key string) error {
		_, err := s.web.Post(ctx, source.Message{
			URL: s.beside(s.plan.Record.URL), Type: "application/json", Body: line, Header: map[string]string{"Idempotency-Key": key},
		})
		return err
	})
}

// Deliver sends the records after a run. A failure is a warning, since the records stay in the spool; in an initramfs, whose spool ends with
// it, Deliver retries until they are sent. Errors: the cause of a cancelled context.
func (s *Station) Deliver(ctx context.Context) error {
	if s.plan.Record.URL == "" {
		return nil
	}
	for {
		err := s.Send(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		s.o.Inputs.Warn("%v", err)
		if !s.o.Inside {
			return nil
		}
		select {
		case <-time.After(sendPause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
