package fleet

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"updater/bmap"
	"updater/device"
	"updater/device/config"
	"updater/internal/httpd"
	"updater/source"
	"updater/update"
)

// Limits of the neighbours.
const (
	answerTime     = time.Hour
	offersFor      = 10 * time.Second
	piece          = 64 << 10 // bytes that are written at a time
	defaultServing = 1 << 20  // bytes per second
)

// Serve offers the releases of the good slots to other devices, on serve.listen of the configuration, until ctx ends. A range is sent only after
// it was hashed and equals its signed checksum: a mounted file system may hold secrets where the image had none. Unmapped blocks are sent as
// zeros. Nothing is written, and no name of a request opens a file. Errors: [config.Error], those of listening, the cause of ctx.
func Serve(ctx context.Context, c *config.Config, say func(format string, a ...any)) error {
	if c.Serve.Listen == "" {
		return config.Errorf("serve.listen is not set: this device offers nothing to others")
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Serve.Listen)
	if err != nil {
		return err
	}
	s := &neighbours{config: c, say: say, pace: source.Pace{Rate: int64(c.Serve.RateLimit)}}
	if s.pace.Rate == 0 {
		s.pace.Rate = defaultServing
	}
	say("serving on %s", l.Addr())
	err = httpd.Serve(ctx, l, limits, s.route)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// limits of the connections: each may hold a range of at most 4 MiB in memory.
var limits = httpd.Limits{Clients: 8, Each: 4}

// neighbours are the devices that are served.
type neighbours struct {
	config *config.Config
	say    func(format string, a ...any)
	pace   source.Pace

	mu     sync.Mutex
	offers []*device.Offer
	read   time.Time // the offers
}

func (s *neighbours) route(w *httpd.Response, r *http.Request) {
	ctx, stop := context.WithTimeout(w.Ctx, answerTime)
	defer stop()
	identity, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	o, err := s.offer(identity)
	if err != nil {
		s.say("%v", err)
	}
	switch a := (&answer{ctx: ctx, pace: &s.pace, w: w}); {
	case r.Method != http.MethodGet:
		a.begin(http.StatusMethodNotAllowed, 0)
	case err != nil:
		a.begin(http.StatusInternalServerError, 0)
	case o != nil && o.Documents[name] != nil:
		a.begin(http.StatusOK, int64(len(o.Documents[name])))
		_ = a.write(o.Documents[name]) // or the client has gone
	case o != nil && o.Images[name].Document != nil:
		s.image(a, r.Header.Get("Range"), o, o.Images[name])
	default:
		a.begin(http.StatusNotFound, 0)
	}
}

// offer finds a release, nil if no good slot holds it. The signed documents are checked every few seconds at most.
func (s *neighbours) offer(identity string) (*device.Offer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.read) > offersFor {
		dev, err := device.Open(s.config, device.Options{})
		if err != nil {
			return nil, err
		}
		defer dev.Close()
		if s.offers, err = dev.Offers(); err != nil {
			return nil, err
		}
		s.read = time.Now()
	}
	for _, o := range s.offers {
		if o.Identity == identity {
			return o, nil
		}
	}
	return nil, nil
}

// image sends an image, or a part of it. When its first range differs from the signed checksum, it does not exist; when a later one does, the
// connection ends.
func (s *neighbours) image(a *answer, spec string, o *device.Offer, image device.Offered) {
	from, end, part := byteRange(spec, image.Map.ImageSize())
	a.code, a.length = http.StatusOK, end-from
	if part {
		a.code, a.place = http.StatusPartialContent, fmt.Sprintf("bytes %d-%d/%d", from, end-1, image.Map.ImageSize())
	}
	if from >= end {
		a.begin(http.StatusRequestedRangeNotSatisfiable, 0)
		return
	}
	dev, err := device.Open(s.config, device.Options{})
	if err == nil {
		defer dev.Close()
		err = dev.ReadOffered(o.Slot, image.Role, func(held update.ReadBacker) error { return a.send(image.Map, held, from, end) })
	}
	if err != nil && !a.begun {
		s.say("%s of release %.16s is not served: %v", image.Role, o.Identity, err)
		a.begin(http.StatusNotFound, 0)
	}
}

// byteRange parses the value of a Range header with one range (RFC 9110, section 14.1.2). Any other value asks for everything. from is end for a
// range outside of the file.
func byteRange(value string, size int64) (from, end int64, part bool) {
	spec, ok := strings.CutPrefix(value, "bytes=")
	first, last, one := strings.Cut(strings.TrimSpace(spec), "-")
	a, badA := strconv.ParseUint(first, 10, 63)
	b, badB := strconv.ParseUint(last, 10, 63)
	switch {
	case !ok || !one || badA != nil && first != "" || badB != nil && last != "" || first == "" && last == "":
		return 0, size, false
	case first == "":
		return max(size-int64(b), 0), size, true
	case last == "" || int64(b) >= size:
		return min(int64(a), size), size, true
	}
	return int64(a), int64(b) + 1, true
}

// answer is one answer.
type answer struct {
	ctx  context.Context
	pace *source.Pace
	w    *httpd.Response

	code   int // of an image, with its length in bytes and the Content-Range
	length int64
	place  string // "" for all of it
	begun  bool   // the headers were written
}

// begin writes the headers.
func (a *answer) begin(code int, length int64) {
	a.begun = true
	if code == http.StatusPartialContent {
		a.w.Set("Content-Range", a.place)
	}
	a.w.Set("Accept-Ranges", "bytes")
	a.w.Set("Content-Length", strconv.FormatInt(length, 10))
	a.w.Begin(code, "application/octet-stream")
}

var zeros [piece]byte

// send writes the bytes from one offset of an image to another one. Each range is read whole and compared before a byte of it is sent.
func (a *answer) send(m *bmap.Map, held update.ReadBacker, from, end int64) error {
	hole := func(to int64) error {
		for from < to {
			n := min(to-from, piece)
			if err := a.write(zeros[:n]); err != nil {
				return err
			}
			from += n
		}
		return nil
	}
	buf := make([]byte, bmap.HeldRange)
	for i, rng := range m.Ranges() {
		to := rng.Offset + rng.Length
		if to <= from {
			continue
		}
		if rng.Offset >= end {
			break
		}
		if err := hole(rng.Offset); err != nil {
			return err
		}
		if rng.Length > bmap.HeldRange {
			return fmt.Errorf("range %d has %d bytes, expected at most %d to compare it", i, rng.Length, bmap.HeldRange)
		}
		p, sum := buf[:rng.Length], m.NewHash()
		if _, err := held.ReadBackAt(p, rng.Offset); err != nil {
			return err
		}
		if sum.Write(p); hex.EncodeToString(sum.Sum(nil)) != rng.Checksum {
			return fmt.Errorf("range %d at %d differs from its signed checksum", i, rng.Offset)
		}
		p = p[from-rng.Offset : min(end, to)-rng.Offset]
		a.pace.Spend(a.ctx, int(rng.Length)-len(p)) // bytes read for nothing count too
		if err := a.write(p); err != nil {
			return err
		}
		from += int64(len(p))
	}
	return hole(end)
}

func (a *answer) write(p []byte) error {
	if !a.begun {
		a.begin(a.code, a.length)
	}
	for len(p) > 0 {
		n := int(a.pace.Most(min(int64(len(p)), piece)))
		a.pace.Spend(a.ctx, n)
		if a.ctx.Err() != nil {
			return context.Cause(a.ctx)
		}
		if _, err := a.w.Write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}
