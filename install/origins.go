package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"updater/bmap"
	"updater/device/config"
	"updater/pack"
	"updater/release"
	"updater/source"
	"updater/update"
	"updater/verify"
)

// Origins opens the inputs that a request names: a path, an address, or standard input. The client for addresses is created at the first
// one, so that a missing certificate file does not matter to a stick. Not safe for concurrent use, except for the inputs it opened.
type Origins struct {
	config   *config.Config
	in       Inputs
	recorded time.Time      // the last trusted time
	client   *source.Client // nil before the first address
	docs     int64          // bytes of documents that were read

	// Trust judges a detached signature before its document is fetched, and bounds the documents. Without a keyring it judges none.
	Trust release.Trust
	heap  int64 // limit that was set, in bytes
}

// NewOrigins takes [source] of a configuration and the last trusted time; zero is none.
func NewOrigins(c *config.Config, in Inputs, recorded time.Time) *Origins {
	return &Origins{config: c, in: in, recorded: recorded, Trust: release.Trust{MaxMap: int64(c.Source.MaxBmap)}}
}

// Close closes the client. Close it after the images.
func (o *Origins) Close() {
	if o.client != nil {
		_ = o.client.Close()
	}
}

// address reports whether name is an address, and creates the client for it.
func (o *Origins) address(name string) (bool, error) {
	u, ok, err := source.ParseURL(name)
	if err != nil {
		return ok, &config.RequestError{Err: err}
	}
	if !ok {
		return false, nil
	}
	if u.User != nil && u.Scheme == "http" && o.client == nil {
		o.in.Warn("the password in %s is sent unencrypted", (&url.URL{Scheme: u.Scheme, Host: u.Host}).String())
	}
	_, err = o.Client()
	return true, err
}

// Client is the client for addresses.
func (o *Origins) Client() (*source.Client, error) {
	if o.client != nil {
		return o.client, nil
	}
	c := o.config.Source
	client, err := source.NewClient(source.HTTPOptions{
		Proxy: c.Proxy, CA: c.CA, ClientCert: c.ClientCert, ClientKey: c.ClientKey, TokenFile: c.TokenFile, TokenHost: c.TokenHost, TokenType: c.TokenType,
		Stall: time.Duration(c.StallTimeout), GiveUp: time.Duration(c.GiveUp), Timeout: time.Duration(c.Timeout), MaxSize: int64(c.MaxSize), MaxRate: int64(c.RateLimit),
		Now: o.now, Warn: o.in.Warn,
	})
	if err != nil {
		return nil, config.Errorf("the [source] table of the configuration: %w", err)
	}
	o.client = client
	return client, nil
}

// now is the time that certificates of servers are judged by.
func (o *Origins) now() time.Time {
	now, _ := verify.TrustedClock(o.config.Build.Time, o.recorded)
	if o.in.Clock == nil {
		return now
	}
	return o.in.Clock(now)
}

// Read reads a file, or fetches an address, of at most limit bytes.
func (o *Origins) Read(ctx context.Context, name string, limit int64) (data []byte, err error) {
	defer func() { o.docs += int64(len(data)) }()
	remote, err := o.address(name)
	switch {
	case err != nil:
		return nil, err
	case remote:
		err = o.mirrored(name, func(at string) (err error) { data, err = o.client.Fetch(ctx, at, limit); return err })
		return data, err
	}
	return ReadFile(name, limit)
}

// mirrored calls fetch with an address and, while it cannot be fetched, with its places on the other mirrors: those of an address below the
// folder of channel.url or of one of channel.mirrors. The channel itself has none, since its caller judges the channel of each mirror.
func (o *Origins) mirrored(name string, fetch func(at string) error) error {
	err := fetch(name)
	for _, at := range o.mirrors(name) {
		if !isFetch(err) {
			break
		}
		o.in.Warn("%v; asking %s", err, ImageName(at))
		err = fetch(at)
	}
	return err
}

func (o *Origins) mirrors(name string) (others []string) {
	channels := append([]string{o.config.Channel.URL}, o.config.Channel.Mirrors...)
	u, remote, err := source.ParseURL(name)
	if err != nil || !remote || slices.Contains(channels, name) {
		return nil
	}
	for i, channel := range channels {
		own, remote, err := source.ParseURL(channel)
		if err != nil || !remote || own.Scheme != u.Scheme || own.Host != u.Host {
			continue
		}
		folder, _ := path.Split(own.Path)
		if below, ok := strings.CutPrefix(u.Path, folder); ok {
			for _, other := range slices.Concat(channels[i+1:], channels[:i]) {
				others = append(others, Beside(other, below))
			}
			return others
		}
	}
	return nil
}

// findBmap reads the bmap beside an image, and calls before with its name before that.
func (o *Origins) findBmap(ctx context.Context, image string, limit int64, before func(bmap string) error) (name string, data []byte, err error) {
	defer func() { o.docs += int64(len(data)) }()
	const hint = "name the bmap with --bmap"
	remote, err := o.address(image)
	if err != nil {
		return "", nil, err
	}
	if remote {
		name, data, err = o.client.FindBmap(ctx, image, limit, before)
		if _, refused := errors.AsType[*verify.SignatureError](err); err != nil && !refused && !isFetch(err) {
			err = &config.RequestError{Err: err, Advice: hint}
		}
		return name, data, err
	}
	if name, err = source.FindBmap(image); errors.Is(err, fs.ErrNotExist) {
		return "", nil, err
	} else if err != nil {
		return "", nil, &config.RequestError{Err: err, Advice: hint}
	}
	if err = before(name); err == nil {
		data, err = ReadFile(name, limit)
	}
	return name, data, err
}

// signature reads the detached signature of a document that is not read yet: the one at named, else the one beside the document; nil
// without one. A signature that no trusted key can have made is refused. Errors: [verify.SignatureError], source.FetchError.
func (o *Origins) signature(ctx context.Context, kind release.Type, doc, named string) (sig []byte, err error) {
	if named != "" {
		sig, err = o.Read(ctx, named, verify.MaxSignatureSize)
	} else {
		sig, _, err = o.FindSignature(ctx, doc)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the signature: %w", err)
	case sig == nil || o.Trust.Policy.Keyring == nil:
	case kind == release.TypeMap:
		err = o.Trust.CheckSignature(kind, sig)
	default: // the document is small, and its wrong type is the better error
		_, err = o.Trust.Policy.Claimed(sig)
	}
	return sig, err
}

// FindSignature reads the detached signature beside a document.
func (o *Origins) FindSignature(ctx context.Context, doc string) (data []byte, found bool, err error) {
	remote, err := o.address(doc)
	switch {
	case err != nil:
		return nil, false, err
	case remote:
		return o.client.FindSignature(ctx, doc, verify.MaxSignatureSize)
	}
	name, found := source.FindSignature(doc)
	if found {
		data, err = ReadFile(name, verify.MaxSignatureSize)
	}
	return data, found, err
}

// Open opens an image and returns its decoded size in bytes where that is known before the end, as for raw files, else -1. The caller
// closes it before the origins. Errors: update.SourceError, [config.RequestError].
func (o *Origins) Open(ctx context.Context, name string) (*source.Image, int64, error) {
	limits := o.limits()
	remote, err := o.address(name)
	if err != nil {
		return nil, 0, err
	}
	var img *source.Image
	if remote {
		err = o.mirrored(name, func(at string) (err error) { img, err = o.client.Open(ctx, at, limits); return err })
	} else {
		img, err = source.Open(name, Interruptible(ctx, o.in.Stdin), limits)
	}
	if err != nil {
		return nil, 0, &update.SourceError{Err: err}
	}
	o.limitMemory(img.Codec(), limits)
	size := int64(-1)
	if img.Codec() == "raw" {
		if _, size = img.Consumed(); size == 0 {
			return nil, 0, &update.SourceError{Err: errors.Join(fmt.Errorf("%s is empty", img.Name()), img.Close())}
		}
	}
	return img, size, nil
}

func (o *Origins) limits() source.Limits {
	return source.Limits{ZstdWindow: int64(o.config.Source.ZstdWindow), XZDict: int64(o.config.Source.XZDict)}
}

// limitMemory sets the heap limit to the budget of docs/design.md: buffers, the needs of the codec, and the map, which takes less than
// its text. GOMEMLIMIT, if set, takes precedence.
func (o *Origins) limitMemory(codec string, l source.Limits) {
	limit := 18<<20 + o.docs // below this the collector never rests
	switch codec {
	case "zstd":
		limit += max(l.ZstdWindow, 8<<20) - 2<<20
	case "lz4":
		limit += 6 << 20 // a block of 4 MiB, packed and not
	case "delta": // dictionaries and frames, or an index; the decoder of the image rests
		o.heap, limit = 0, limit+l.ZstdWindow
	case "xz":
		limit += 2*max(l.XZDict, 16<<20) + 16<<20 // two blocks at a time
	}
	if o.heap = max(o.heap, limit); os.Getenv("GOMEMLIMIT") == "" { // the images of a release are open together
		debug.SetMemoryLimit(o.heap)
	}
}

// sparse is an image on a server, of which parts can be fetched.
type sparse struct{ patched }

// Plan implements update.Sparse.
func (s sparse) Plan(m *bmap.Map, want []bmap.Span) (update.Fetch, error) {
	s.LimitFrames(pack.Frames(m.ImageSize(), m.Len()))
	ranges := make([]pack.Range, len(want))
	for i, w := range want {
		ranges[i] = pack.Range{Offset: w.Offset, Length: w.Length}
	}
	p, err := s.Image.Plan(ranges)
	return update.Fetch{Parts: p.Parts, Bytes: p.Bytes, Requests: p.Requests, Whole: p.Whole, Reason: p.Reason}, err
}

func isFetch(err error) bool {
	_, ok := errors.AsType[*source.FetchError](err)
	return ok
}

// ReadFile reads a regular file of at most limit bytes, as [source.ReadFile] does: a FIFO or a device cannot block it.
func ReadFile(path string, limit int64) ([]byte, error) { return source.ReadFile(path, limit) }

// ImageName returns the origin of an image as it is recorded. An address loses the parts that may be secret: user, password and query.
func ImageName(image string) string {
	if image == "-" {
		return "standard input"
	}
	u, remote, err := source.ParseURL(image)
	switch {
	case err != nil:
		return "an invalid address"
	case !remote:
		return image
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// Interruptible returns a reader whose blocked Read ends when ctx does. The read itself goes on until the process ends.
func Interruptible(ctx context.Context, r io.Reader) io.Reader { return interruptible{ctx, r} }

type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i interruptible) Read(p []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	done, own := make(chan result, 1), make([]byte, len(p))
	go func() {
		n, err := i.r.Read(own)
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		return copy(p, own[:r.n]), r.err
	case <-i.ctx.Done():
		return 0, context.Cause(i.ctx)
	}
}
