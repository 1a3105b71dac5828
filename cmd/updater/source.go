package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"updater/bmap"
	"updater/pack"
	"updater/source"
	"updater/update"
	"updater/verify"
)

// SourceConfig says how images are fetched and decoded.
type SourceConfig struct {
	Proxy        string   `toml:"proxy"`         // address; the environment is not asked
	CA           string   `toml:"ca"`            // PEM file of the only roots to trust
	ClientCert   string   `toml:"client_cert"`   // PEM files
	ClientKey    string   `toml:"client_key"`    //
	TokenFile    string   `toml:"token_file"`    // bearer token
	TokenHost    string   `toml:"token_host"`    // the only host that gets it
	StallTimeout duration `toml:"stall_timeout"` // such as "30s"
	GiveUp       duration `toml:"give_up"`
	Timeout      duration `toml:"timeout"`
	MaxSize      byteSize `toml:"max_size"`    // such as "2G"
	ZstdWindow   byteSize `toml:"zstd_window"` //
	XZDict       byteSize `toml:"xz_dict"`     //
}

// duration is a positive time in the form of time.ParseDuration.
type duration time.Duration

// UnmarshalText parses it.
func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v <= 0 {
		return fmt.Errorf("%q is no positive time such as 30s or 2h", text)
	}
	*d = duration(v)
	return nil
}

// byteSize is a positive number of bytes in the form of parseSize.
type byteSize int64

// UnmarshalText parses it.
func (b *byteSize) UnmarshalText(text []byte) error {
	v, err := parseSize(string(text))
	if err != nil || v == 0 {
		return fmt.Errorf("%q is no positive size such as 64M", text)
	}
	*b = byteSize(v)
	return nil
}

// resolve makes relative paths count from the folder of the configuration.
func (c *SourceConfig) resolve(dir string) {
	for _, p := range []*string{&c.CA, &c.ClientCert, &c.ClientKey, &c.TokenFile} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

func (c SourceConfig) check() error {
	if (c.TokenFile == "") != (c.TokenHost == "") {
		return fmt.Errorf("source.token_file and source.token_host need each other: a token is only sent to one host")
	}
	if (c.ClientCert == "") != (c.ClientKey == "") {
		return fmt.Errorf("source.client_cert and source.client_key need each other")
	}
	return nil
}

// origins opens what a command line names: a path, an address, or standard input. The client for addresses is
// made when the first one is met, so that a missing certificate file does not matter to a stick.
type origins struct {
	config   SourceConfig
	env      Env
	warn     func(format string, a ...any)
	recorded time.Time      // the last trusted time
	client   *source.Client // nil before the first address
	docs     int64          // bytes of bmap and signature that were read
}

func (c SourceConfig) origins(env Env, warn func(format string, a ...any), recorded time.Time) (*origins, error) {
	return &origins{config: c, env: env, warn: warn, recorded: recorded}, c.check()
}

// Close closes the client. Close it after the images.
func (o *origins) Close() {
	if o.client != nil {
		_ = o.client.Close()
	}
}

// address says whether name is an address, and makes the client for it.
func (o *origins) address(name string) (bool, error) {
	u, ok, err := source.ParseURL(name)
	if err != nil {
		return ok, &usageError{err: err}
	}
	if !ok || o.client != nil {
		return ok, nil
	}
	if u.User != nil && u.Scheme == "http" {
		o.warn("the password in %s is sent in the clear", (&url.URL{Scheme: u.Scheme, Host: u.Host}).String())
	}
	c := o.config
	o.client, err = source.NewClient(source.HTTPOptions{
		Proxy: c.Proxy, CA: c.CA, ClientCert: c.ClientCert, ClientKey: c.ClientKey, TokenFile: c.TokenFile, TokenHost: c.TokenHost,
		Stall: time.Duration(c.StallTimeout), GiveUp: time.Duration(c.GiveUp), Timeout: time.Duration(c.Timeout), MaxSize: int64(c.MaxSize),
		Now:  func() time.Time { now, _ := verify.TrustedClock(buildTime(), o.recorded); return o.env.hint.later(now) },
		Warn: o.warn,
	})
	if err != nil {
		return ok, usagef("the [source] table of the configuration: %w", err)
	}
	return ok, nil
}

// read reads a file of at most limit bytes.
func (o *origins) read(ctx context.Context, name string, limit int64) (data []byte, err error) {
	defer func() { o.docs += int64(len(data)) }()
	remote, err := o.address(name)
	switch {
	case err != nil:
		return nil, err
	case remote:
		return o.client.Fetch(ctx, name, limit)
	}
	return readCapped(name, limit)
}

// findBmap reads the bmap beside an image.
func (o *origins) findBmap(ctx context.Context, image string, limit int64) (name string, data []byte, err error) {
	defer func() { o.docs += int64(len(data)) }()
	const hint = "name the bmap with --bmap"
	remote, err := o.address(image)
	if err != nil {
		return "", nil, err
	}
	if remote {
		name, data, err = o.client.FindBmap(ctx, image, limit)
		if err != nil && !is[*source.FetchError](err) {
			err = &usageError{err: err, hint: hint}
		}
		return name, data, err
	}
	if name, err = source.FindBmap(image); err != nil {
		return "", nil, &usageError{err: err, hint: hint}
	}
	data, err = readCapped(name, limit)
	return name, data, err
}

// findSignature reads the detached signature beside a bmap.
func (o *origins) findSignature(ctx context.Context, bmap string, limit int64) (data []byte, found bool, err error) {
	remote, err := o.address(bmap)
	switch {
	case err != nil:
		return nil, false, err
	case remote:
		return o.client.FindSignature(ctx, bmap, limit)
	}
	name, found := source.FindSignature(bmap)
	if found {
		data, err = readCapped(name, limit)
	}
	return data, found, err
}

// open opens an image and tells its decoded size where that is known before the end: for raw files.
func (o *origins) open(ctx context.Context, name string) (*source.Image, int64, error) {
	limits := source.Limits{ZstdWindow: int64(o.config.ZstdWindow), XZDict: int64(o.config.XZDict)}
	remote, err := o.address(name)
	if err != nil {
		return nil, 0, err
	}
	var img *source.Image
	if remote {
		img, err = o.client.Open(ctx, name, limits)
	} else {
		img, err = source.Open(name, interruptible{ctx: ctx, r: o.env.Stdin}, limits)
	}
	if err != nil {
		return nil, 0, &update.SourceError{Err: err}
	}
	o.limitMemory(img.Codec(), limits)
	size := int64(-1)
	if img.Codec() == "raw" {
		_, size = img.Consumed()
	}
	return img, size, nil
}

// limitMemory tells the runtime what the budget of docs/design.md leaves for the heap: buffers, what the codec needs,
// and the map, which takes less than its text. GOMEMLIMIT in the environment goes before.
func (o *origins) limitMemory(codec string, l source.Limits) {
	limit := 18<<20 + o.docs // below this the collector runs all the time
	switch codec {
	case "zstd":
		limit += max(l.ZstdWindow, 8<<20) - 2<<20
	case "lz4":
		limit += 6 << 20 // a block of 4 MiB, packed and not
	case "xz":
		limit += 2*max(l.XZDict, 16<<20) + 16<<20 // two blocks at a time
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit)
	}
}

// sparse is an image on a server, of which parts can be fetched.
type sparse struct{ *source.Image }

// Plan implements update.Sparse.
func (s sparse) Plan(want []bmap.Span) (update.Fetch, error) {
	ranges := make([]pack.Range, len(want))
	for i, w := range want {
		ranges[i] = pack.Range{Offset: w.Offset, Length: w.Length}
	}
	p, err := s.Image.Plan(ranges)
	return update.Fetch{Parts: p.Parts, Bytes: p.Bytes, Requests: p.Requests, Whole: p.Whole, Reason: p.Reason}, err
}
