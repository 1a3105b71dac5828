package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"updater/device"
	"updater/device/config"
	"updater/initramfs"
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
	"updater/verify"
)

// line is a station with its plan: it wires sources, keys and servers to package provision.
type station struct {
	o        provisionOptions
	env      Env
	plan     *plan.Plan
	base     string // folder or address of the plan
	remote   bool
	config   *config.Config
	trust    verify.Policy
	from     *install.Origins
	station  crypto.Signer
	spool    *record.Spool
	web      *identity.Web
	payloads []*medium.Payload
	signed   map[string]install.Signed // by partition
}

// loadLine reads the plan, and trusts it only for a reason: it is a file that the operator named on his own host, or
// it is signed by the configured keyring.
func loadLine(ctx context.Context, o provisionOptions, env Env) (_ *station, err error) {
	l := &station{o: o, env: env, config: &config.Config{Build: env.build()}, base: filepath.Dir(o.plan)}
	l.remote = isURL(o.plan)
	mustSign := l.remote || o.config != "" || o.configured != nil || initramfs.Sealed()
	if mustSign {
		if l.config = o.configured; l.config == nil {
			if l.config, err = env.config(cmp.Or(o.config, config.DefaultPath)); err != nil {
				return nil, err
			}
		}
	}
	l.from = install.NewOrigins(l.config, env.inputs(env.warn), time.Time{})
	defer func() {
		if err != nil {
			l.from.Close()
		}
	}()
	if err := o.reach(ctx, l.remote); err != nil {
		return nil, err
	}
	data, err := l.from.Read(ctx, o.plan, plan.MaxSize)
	if err != nil {
		return nil, fmt.Errorf("reading the plan: %w", err)
	}
	if mustSign {
		if data, err = l.signedPlan(ctx, data); err != nil {
			return nil, err
		}
	}
	if l.plan, err = plan.Parse(data); err != nil {
		return nil, &usageError{err: fmt.Errorf("plan %s: %w", o.plan, err), hint: "docs/factory.md lists every key"}
	}
	if err := l.resolve(mustSign); err != nil {
		return nil, err
	}
	return l, o.reach(ctx, slices.ContainsFunc(l.plan.Sources(), isURL))
}

func isURL(name string) bool {
	_, remote, _ := source.ParseURL(name)
	return remote
}

// patience is how long disks may take to show up in an initramfs: card readers are slow.
const patience = 10 * time.Second

// targets finds the disks to be written. In an initramfs those that are not there yet are waited for.
func (l *station) targets(ctx context.Context) []target.Target {
	for deadline := time.Now().Add(patience); ; {
		found := target.Select(target.Host{}, l.plan, l.o.targets, l.o.ports)
		absent := slices.ContainsFunc(found, func(t target.Target) bool { return t.Absent })
		if !absent || !l.o.inside || ctx.Err() != nil || time.Now().After(deadline) {
			return found
		}
		time.Sleep(time.Second / 4)
	}
}

// signedPlan checks the plan's signature and returns what was signed.
func (l *station) signedPlan(ctx context.Context, data []byte) ([]byte, error) {
	var err error
	if l.trust, err = l.config.Policy(nil, time.Time{}); err != nil {
		return nil, err
	}
	var sig []byte
	if !verify.IsClearsigned(data) {
		var found bool
		if sig, found, err = l.from.FindSignature(ctx, l.o.plan); err == nil && !found {
			err = &verify.SignatureError{Reason: "the plan is not signed: there is no " + l.o.plan + ".asc or .sig", Advice: "sign it, or name a plan on this host without --config"}
		}
		if err != nil {
			return nil, err
		}
	}
	signed, err := l.trust.Verify(data, sig)
	if err != nil {
		return nil, err
	}
	signers := signed.Signers
	if len(l.trust.Documents) > 0 { // a configuration that limits keys must name one for plans
		if signers, err = l.trust.PermitDocument(signers, "plan"); err != nil {
			return nil, err
		}
	}
	if _, err := l.trust.Permit(signers, "plan"); err != nil {
		return nil, err
	}
	return signed.Data, nil
}

// resolve makes the plan's paths absolute and loads what they name.
func (l *station) resolve(signed bool) (err error) {
	p := l.plan
	for _, path := range p.LocalPaths() {
		if *path == "" || filepath.IsAbs(*path) {
			continue
		}
		if signed { // a file beside it would be as good as signed
			return usagef("plan %s: %s has to be an absolute path, since the plan is one that has to be signed", l.o.plan, *path)
		}
		*path = filepath.Join(l.base, *path)
	}
	switch {
	case signed && len(p.Keyring) > 0:
		return usagef("plan %s: keyring is set, but a signed plan takes the configured one", l.o.plan)
	case !signed:
		if l.trust, err = l.config.Policy(p.Keyring, time.Time{}); err != nil {
			return err
		}
	}
	if l.station, err = readKey(p.Record.Key); err != nil {
		return err
	}
	if l.spool, err = record.OpenSpool(p.Record.Spool, l.station); err != nil {
		return err
	}
	client, err := l.from.Client()
	l.web = &identity.Web{Client: client, Tries: 5, Pause: time.Second}
	return err
}

// send posts one record.
func (l *station) send(ctx context.Context, line []byte, key string) error {
	_, err := l.web.Post(ctx, source.Message{
		URL: l.beside(l.plan.Record.URL), Type: "application/json", Body: line, Header: map[string]string{"Idempotency-Key": key},
	})
	return err
}

// beside resolves a path or address of the plan.
func (l *station) beside(name string) string {
	if _, remote, err := source.ParseURL(name); name == "" || remote || err != nil || filepath.IsAbs(name) {
		return name
	}
	if !l.remote {
		return filepath.Join(l.base, name)
	}
	plan, err := url.Parse(l.o.plan)
	if err != nil {
		return name
	}
	return plan.ResolveReference(&url.URL{Path: name}).String()
}

// loadPayloads verifies the signed bmap of every image.
func (l *station) loadPayloads(ctx context.Context) error {
	if i := l.plan.Image; i != nil {
		return l.load(ctx, i.Path, i.Bmap, i.Signature, "", "")
	}
	for _, p := range l.plan.Partition {
		if p.Image == "" {
			continue
		}
		if err := l.load(ctx, p.Image, p.Bmap, p.Signature, p.Name, p.Role); err != nil {
			return fmt.Errorf("partition %s: %w", p.Name, err)
		}
	}
	return nil
}

func (l *station) load(ctx context.Context, image, bmap, sig, partition, role string) error {
	path := l.beside(image)
	files := install.Documents{Bmap: l.beside(bmap), Signature: l.beside(sig)}
	signed, err := files.Find(ctx, path, l.from)
	if err != nil {
		return err
	}
	product := cmp.Or(l.plan.Product, l.config.Product)
	doc, err := update.Accept(signed.UnverifiedBmap, signed.UnverifiedSig, update.Conditions{Policy: l.trust, Product: product, Role: role, Require: l.config.Trust.Required()})
	if err != nil {
		return fmt.Errorf("image %s: %w", image, err)
	}
	if l.signed == nil {
		l.signed = map[string]install.Signed{}
	}
	l.signed[partition] = signed
	l.payloads = append(l.payloads, &medium.Payload{Name: image, Partition: partition, Doc: doc, Open: func(ctx context.Context) (update.ImageCloser, error) {
		img, _, err := l.from.Open(ctx, path)
		return img, err
	}})
	return nil
}

// job wires a run.
func (l *station) job(ctx context.Context, targets []target.Target) (line.Job, error) {
	job := line.Job{
		Plan: l.plan, Host: l, Payloads: l.payloads, Web: l.web, Spool: l.spool, Key: l.station,
		Operator: l.o.operator, Version: buildVersion(), Now: l.trust.Time, Code: code, Board: new(board.Board), Check: l.o.check,
	}
	var err error
	if l.plan.Latch != nil {
		data, bad := install.ReadFile(l.plan.Latch.FactoryKey, 64<<10)
		if bad == nil {
			job.Factory, bad = keys.ParsePublic(data)
		}
		if bad != nil {
			return job, fmt.Errorf("reading the factory key: %w", bad)
		}
	}
	if l.o.token != "" {
		if job.Token, err = install.ReadFile(l.o.token, 64<<10); err != nil {
			return job, fmt.Errorf("reading the token: %w", err)
		}
	}
	if l.plan.Identity != nil && !l.o.check {
		job.Allocator, err = l.allocator(ctx, targets)
	}
	return job, err
}

// allocator makes the source of serials. A person is asked before the run, while the terminal is free.
func (l *station) allocator(ctx context.Context, targets []target.Target) (identity.Allocator, error) {
	rule := l.plan.Identity.Serial
	switch rule.From {
	case "plan":
		return identity.Fixed(rule.Value), nil
	case "csv":
		return identity.NewCSV(rule.File), nil
	case "http":
		return &identity.HTTPAllocator{URL: l.beside(rule.URL), Station: l.plan.Record.Station, Web: l.web}, nil
	case "prompt":
		answers := map[string]string{}
		in := bufio.NewReader(io.LimitReader(install.Interruptible(ctx, l.env.Stdin), 1<<20))
		for _, t := range targets {
			if t.Refused != nil {
				continue
			}
			fmt.Fprintf(l.env.Stderr, "updater: serial of %s (%s): ", t.Name, strings.TrimSpace(t.Disk.Model))
			text, err := in.ReadString('\n')
			if err != nil && (err != io.EOF || text == "") {
				return nil, fmt.Errorf("asking for the serial of %s: %w", t.Name, err)
			}
			key, _ := t.Disk.Key(t.Name)
			answers[key] = text
		}
		return identity.Prompt(func(_ context.Context, unit string) (string, error) { return answers[unit], nil }), nil
	}
	return identity.Own(func(context.Context, identity.Claim) (string, error) { return device.MachineSerial("/", rule.From) }), nil
}

// deliver sends the records. What cannot be sent stays in the spool, and is no failure of the units.
func (l *station) deliver(ctx context.Context) error {
	if l.plan.Record.URL == "" {
		return nil
	}
	for {
		err := l.spool.Deliver(ctx, l.send)
		if err == nil || ctx.Err() != nil {
			return err
		}
		l.env.warn("%v", err)
		if !l.o.inside {
			return nil
		}
		select {
		case <-time.After(5 * time.Second):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// errSlots says that a configuration and a plan do not belong together.
var errSlots = errors.New("no slot of the configuration is written completely by the plan")
