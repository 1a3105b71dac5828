package station

import (
	"cmp"
	"context"
	"crypto"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"time"

	"updater/device"
	"updater/device/config"
	"updater/initramfs"
	"updater/install"
	"updater/internal/program"
	"updater/provision/identity"
	"updater/provision/keys"
	"updater/provision/medium"
	"updater/provision/plan"
	"updater/provision/record"
	"updater/release"
	"updater/source"
	"updater/state"
	"updater/update"
	"updater/verify"
)

// Options are one use of a station. Every field without a note is required.
type Options struct {
	Plan       string         // path or address
	Config     *config.Config // whose keyring signs the plan; nil reads ConfigPath if the plan must be signed
	ConfigPath string         // "" is the default one; setting it requires a signed plan
	Build      config.Build
	Inputs     install.Inputs

	Targets  []string // devices
	Ports    []string // PORT=NAME; with no targets either, the plan names them
	Token    string   // file; "" means none
	Operator string
	Code     func(error) int // exit code of an error
	Check    bool            // compare only

	// Ask asks a person before the run. It may be nil if the plan does not need it.
	Ask func(ctx context.Context, question string) (string, error)
	// Inside is the initramfs of the device: disks may still be coming up, and the records must be sent before it ends.
	Inside  bool
	Network func(context.Context) error // brings the network up; nil if it is up
	LEDs    string                      // folder; "" is /sys/class/leds
}

// Station is a machine with a trusted plan. Not safe for concurrent use.
type Station struct {
	o        Options
	plan     *plan.Plan
	config   *config.Config // of this program; the zero value without one
	device   *config.Config // of the plan's devices; nil without one
	trust    verify.Policy
	from     *install.Origins
	key      crypto.Signer
	spool    *record.Spool
	web      *identity.Web
	payloads []*medium.Payload
	signed   map[string]install.Signed // by partition
	set      *set                      // the release of the plan; nil without one
	accepts  []accepts                 // every signed document of the plan
	known    state.State               // of this device, in its initramfs
}

// Open reads and trusts the plan and opens the spool. Errors: [config.RequestError], [config.Error], [verify.SignatureError],
// source.FetchError. The caller closes the station.
func Open(ctx context.Context, o Options) (_ *Station, err error) {
	s := &Station{o: o, config: &config.Config{Build: o.Build}, signed: map[string]install.Signed{}}
	mustSign := isURL(o.Plan) || o.ConfigPath != "" || o.Config != nil || initramfs.Sealed()
	if mustSign {
		if s.config = o.Config; s.config == nil {
			if s.config, err = device.LoadConfig(cmp.Or(o.ConfigPath, config.DefaultPath), o.Build); err != nil {
				return nil, err
			}
		}
	}
	s.from = install.NewOrigins(s.config, o.Inputs, time.Time{})
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if err := s.reach(ctx, o.Plan); err != nil {
		return nil, err
	}
	if err := s.load(ctx, mustSign); err != nil {
		return nil, err
	}
	return s, s.reach(ctx, s.plan.Sources()...)
}

// Close closes the connections to servers.
func (s *Station) Close() { s.from.Close() }

// load reads the plan and the files that it names.
func (s *Station) load(ctx context.Context, mustSign bool) error {
	data, err := s.from.Read(ctx, s.o.Plan, plan.MaxSize)
	if err != nil {
		return fmt.Errorf("reading the plan: %w", err)
	}
	var signed time.Time
	if mustSign {
		if data, signed, err = s.checkSignature(ctx, data); err != nil {
			return err
		}
	}
	s.plan, err = plan.Parse(data)
	if err == nil && mustSign {
		err = s.plan.CheckSigned(signed)
	}
	if err != nil {
		return &config.RequestError{Err: fmt.Errorf("plan %s: %w", s.o.Plan, err), Advice: "docs/factory.md lists every key"}
	}
	if end := s.plan.Expires; !end.IsZero() && s.now().After(end) {
		return fmt.Errorf("plan %s: %w", s.o.Plan, &update.ExpiredError{Expires: end, Now: s.now()})
	}
	if err := s.resolve(mustSign); err != nil {
		return err
	}
	for _, step := range s.plan.Step { // also checked when it runs
		if err := program.Owned(step.Argv[0]); err != nil {
			return &config.RequestError{Err: fmt.Errorf("plan %s: step %s: %w", s.o.Plan, step.Name, err), Advice: "docs/factory.md has the rules for steps"}
		}
	}
	s.from.Trust.Policy = s.trust
	if s.plan.Config != "" {
		if s.device, err = s.loadDevice(); err != nil {
			return err
		}
	}
	if err := s.oneProduct(); err != nil {
		return err
	}
	if s.key, err = keys.Load(s.plan.Record.Key); err != nil {
		return err
	}
	if s.spool, err = record.OpenSpool(s.plan.Record.Spool, s.key); err != nil {
		return err
	}
	return s.openWeb()
}

// openWeb makes the client for the servers of the line.
func (s *Station) openWeb() error {
	p := s.plan.Server
	for _, secret := range []string{p.ClientKey, p.TokenFile} {
		if secret == "" {
			continue
		}
		if err := keys.Private(secret); err != nil {
			return fmt.Errorf("plan %s: server: %w", s.o.Plan, err)
		}
	}
	client, err := s.from.Client()
	if p != (plan.Server{}) && err == nil {
		client, err = source.NewClient(source.HTTPOptions{
			Proxy: s.config.Source.Proxy, CA: p.CA, ClientCert: p.ClientCert, ClientKey: p.ClientKey, TokenFile: p.TokenFile, TokenHost: p.TokenHost,
			Now: s.now, Warn: s.o.Inputs.Warn,
		})
	}
	if err != nil {
		return fmt.Errorf("plan %s: server: %w", s.o.Plan, err)
	}
	s.web = &identity.Web{Client: client, Tries: 5, Pause: time.Second}
	return nil
}

// reach brings the network up if one of the sources is an address.
func (s *Station) reach(ctx context.Context, sources ...string) error {
	if s.o.Network == nil || !slices.ContainsFunc(sources, isURL) {
		return nil
	}
	return s.o.Network(ctx)
}

func isURL(name string) bool {
	_, remote, _ := source.ParseURL(name)
	return remote
}

// now is the trusted clock.
func (s *Station) now() time.Time {
	now, _ := verify.TrustedClock(s.o.Build.Time, s.known.Time)
	return now
}

// oneProduct refuses a plan for another product than the configured ones.
func (s *Station) oneProduct() error {
	for _, c := range []*config.Config{s.config, s.device} {
		if c != nil && c.Product != "" && s.plan.Product != "" && c.Product != s.plan.Product {
			return &update.IncompatibleError{
				Reason: fmt.Sprintf("plan %s is for product %q, the configuration %s for %q", s.o.Plan, s.plan.Product, c.File, c.Product)}
		}
	}
	return nil
}

// conditions are those that every signed document of the plan must meet, for a device without a floor.
func (s *Station) conditions() update.Conditions {
	product := cmp.Or(s.config.Product, s.plan.Product)
	if s.device != nil {
		product = cmp.Or(product, s.device.Product)
	}
	return update.Conditions{Policy: s.trust, Product: product, Require: s.config.Trust.Required()}
}

// checkSignature returns the signed bytes of the plan, and when it was signed.
func (s *Station) checkSignature(ctx context.Context, data []byte) (_ []byte, at time.Time, err error) {
	if s.o.Inside { // the device provisions itself
		s.known = install.Remembered(s.config, func(string, ...any) {})
	}
	if s.trust, err = s.config.Policy(nil, s.known.Time); err != nil {
		return nil, at, err
	}
	var sig []byte
	if !verify.IsClearsigned(data) {
		var found bool
		if sig, found, err = s.from.FindSignature(ctx, s.o.Plan); err != nil {
			return nil, at, err
		}
		if !found {
			return nil, at, &verify.SignatureError{
				Reason: fmt.Sprintf("the plan is not signed: neither %s.asc nor %s.sig exists", s.o.Plan, s.o.Plan),
				Advice: "sign it, or name a plan on this host without --config",
			}
		}
	}
	signed, err := release.Trust{Policy: s.trust}.Open(release.TypePlan, data, sig)
	if err != nil {
		return nil, at, err
	}
	for _, by := range signed.Signers {
		if by.Time.After(at) {
			at = by.Time
		}
	}
	return signed.Data, at, nil
}

// resolve makes the plan's local paths absolute and chooses the keyring of the images.
func (s *Station) resolve(signed bool) (err error) {
	dir, err := filepath.Abs(filepath.Dir(s.o.Plan))
	if err != nil {
		return err
	}
	for _, path := range s.plan.LocalPaths() {
		if *path == "" || filepath.IsAbs(*path) {
			continue
		}
		if signed {
			return config.Requestf("plan %s: %s: expected an absolute path in a plan that must be signed", s.o.Plan, *path)
		}
		*path = filepath.Join(dir, *path)
	}
	switch {
	case !signed:
		s.trust, err = s.config.Policy(s.plan.Keyring, time.Time{})
	case len(s.plan.Keyring) > 0:
		err = config.Requestf("plan %s: keyring is set, but a signed plan uses the configured one", s.o.Plan)
	}
	return err
}

// beside resolves a path or address of the plan.
func (s *Station) beside(name string) string {
	if name == "" || filepath.IsAbs(name) || isURL(name) {
		return name
	}
	if !isURL(s.o.Plan) {
		return filepath.Join(filepath.Dir(s.o.Plan), name)
	}
	base, err := url.Parse(s.o.Plan)
	if err != nil {
		return name
	}
	return base.ResolveReference(&url.URL{Path: name}).String()
}
