package source_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"updater/source"
)

// noLeak fails the test when a goroutine of ours, or a connection of our client, outlives it.
func noLeak(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		var stacks string
		for range 100 {
			var b strings.Builder
			_ = pprof.Lookup("goroutine").WriteTo(&b, 2)
			stacks = ""
			for stack := range strings.SplitSeq(b.String(), "\n\n") {
				own := strings.Contains(stack, "updater/source.") || strings.Contains(stack, "http.(*persistConn)")
				if own && !strings.Contains(stack, "source_test.") && !strings.Contains(stack, "net/http/httptest") && !strings.Contains(stack, "httputil") {
					stacks += stack + "\n\n"
				}
			}
			if stacks == "" {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Errorf("goroutines are left:\n%s", stacks)
	})
}

// quick are options with which nothing waits long.
func quick(o source.HTTPOptions) source.HTTPOptions {
	o.RetryDelay = time.Millisecond
	if o.Stall == 0 {
		o.Stall = 5 * time.Second
	}
	if o.GiveUp == 0 {
		o.GiveUp = 5 * time.Second
	}
	return o
}

func client(t testing.TB, o source.HTTPOptions) *source.Client {
	t.Helper()
	c, err := source.NewClient(quick(o))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// server is hostile: it serves data as every good one does, but answer may take over the n-th request, from 1, and reports whether it has.
type server struct {
	*httptest.Server
	requests atomic.Int64
	mu       sync.Mutex
	seen     []*http.Request
}

func serve(t testing.TB, data []byte, answer func(n int, w http.ResponseWriter, r *http.Request) bool) *server {
	t.Helper()
	s := new(server)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.seen = append(s.seen, r)
		s.mu.Unlock()
		w.Header().Set("ETag", `"v1"`)
		w.Header().Set("Content-Type", "application/octet-stream")
		if answer == nil || !answer(int(s.requests.Add(1)), w, r) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// cutAfter sends the head of the whole answer and n of its bytes, and then breaks the connection.
func cutAfter(w http.ResponseWriter, r *http.Request, data []byte, n int) bool {
	rec := httptest.NewRecorder()
	maps.Copy(rec.Header(), w.Header())
	http.ServeContent(rec, r, "", time.Time{}, bytes.NewReader(data))
	maps.Copy(w.Header(), rec.Header())
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes()[:min(n, rec.Body.Len())])
	panic(http.ErrAbortHandler)
}

func get(t testing.TB, c *source.Client, address string) ([]byte, error) {
	t.Helper()
	img, err := c.Open(t.Context(), address, source.Limits{})
	if err != nil {
		return nil, err
	}
	defer img.Close()
	return io.ReadAll(img)
}

func TestHTTPResumes(t *testing.T) {
	noLeak(t)
	data := sample(1_500_000)
	for _, codec := range []string{"cat", "gzip", "zstd", "xz", "lz4", "bzip2"} {
		packed := data
		if codec != "cat" {
			packed = compress(t, data, codec, "-c")
		}
		t.Run(codec, func(t *testing.T) {
			s := serve(t, packed, func(n int, w http.ResponseWriter, r *http.Request) bool {
				return n < 12 && cutAfter(w, r, packed, n*(len(packed)/100)-n%3)
			})
			var told atomic.Int64
			c := client(t, source.HTTPOptions{Warn: func(string, ...any) { told.Add(1) }})
			got, err := get(t, c, s.URL+"/image")
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%d bytes, %v; want the %d of the image", len(got), err, len(data))
			}
			if told.Load() < 5 {
				t.Errorf("%d new requests were told of", told.Load())
			}
			for i, r := range s.seen {
				if i > 0 && (!strings.HasPrefix(r.Header.Get("Range"), "bytes=") || r.Header.Get("If-Range") != `"v1"`) {
					t.Errorf("request %d: Range %q, If-Range %q", i+1, r.Header.Get("Range"), r.Header.Get("If-Range"))
				}
				if r.Header.Get("Accept-Encoding") != "identity" {
					t.Errorf("request %d: Accept-Encoding %q", i+1, r.Header.Get("Accept-Encoding"))
				}
			}
		})
	}
}

// After the first answer was cut in the middle, or at once, an answer that does not fit is refused, for good.
func TestHTTPRefuses(t *testing.T) {
	noLeak(t)
	data := sample(1 << 20)
	respond := func(status int, body string, headers ...string) func(w http.ResponseWriter, r *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			for i := 0; i < len(headers); i += 2 {
				w.Header().Set(headers[i], headers[i+1])
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
			return true
		}
	}
	rest := func(headers ...string) func(w http.ResponseWriter, r *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			var from int
			_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(data)-1, len(data)))
			return respond(206, string(data[from:]), headers...)(w, r)
		}
	}
	for _, c := range []struct {
		name   string
		cut    bool // the answer is to the second request, for the rest
		answer func(w http.ResponseWriter, r *http.Request) bool
		want   string
	}{
		{"not found", false, respond(404, "no"), "404 Not Found"},
		{"forbidden", false, respond(403, "no"), "403 Forbidden"},
		{"gone in the middle", true, respond(404, "no"), "404 Not Found"},
		{"web page", false, respond(200, " \n<!DOCTYPE HTML><html><body>log in</body></html>"), "web page"},
		{"a short part, again and again", false, respond(206, "x", "Content-Range", "bytes 0-0/100"), "expected the one from byte 1"},
		{"a part of unknown size, again and again", false, respond(206, "x", "Content-Range", "bytes 0-65535/*"), "expected the one from byte 1"},
		{"changed, shorter", true, respond(416, ""), "416 Requested"},
		{"changed, longer", true, rest("Content-Range", "bytes 65536-1999999/2000000"), "has changed"},
		{"another part", true, rest("Content-Range", fmt.Sprintf("bytes 5-%d/%d", len(data)-1, len(data))), "expected the one from byte 65536"},
		{"a later part", true, rest("Content-Range", fmt.Sprintf("bytes 300000-300001/%d", len(data))), "expected the one from byte 65536"},
		{"a part without a range", true, rest("Content-Range", ""), "expected the one from byte 65536"},
		{"a part with a huge range", true, rest("Content-Range", "bytes 65536-99999999999999999999/999999999999999999999"), "expected the one from byte 65536"},
		{"redirect to a file", false, respond(302, "", "Location", "file:///etc/shadow"), `scheme "file"`},
		{"redirect for ever", false, func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "/"+strconv.Itoa(len(r.URL.Path)), http.StatusFound)
			return true
		}, "more than 5 redirects"},
		{"redirect to nowhere", false, respond(302, ""), "302 Found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, data, func(n int, w http.ResponseWriter, r *http.Request) bool {
				if c.cut && n == 1 {
					return cutAfter(w, r, data, 300000)
				}
				return c.answer(w, r)
			})
			got, err := get(t, client(t, source.HTTPOptions{GiveUp: time.Second}), s.URL)
			if _, ok := errors.AsType[*source.FetchError](err); !ok || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%d bytes, %v; want a FetchError with %q", len(got), err, c.want)
			}
			if !bytes.HasPrefix(data, got) {
				t.Error("wrong bytes came before the error")
			}
			if n := s.requests.Load(); c.want != "more than 5 redirects" && n > 4 {
				t.Errorf("%d requests; asking again cannot help", n)
			}
		})
	}
}

func TestHTTPWaits(t *testing.T) {
	noLeak(t)
	data := sample(1 << 20)
	hold := func(r *http.Request) { <-r.Context().Done() }
	for _, c := range []struct {
		name   string
		answer func(n int, w http.ResponseWriter, r *http.Request) bool
	}{
		{"busy", func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n < 4 {
				w.WriteHeader([]int{0, 503, 429, 500}[n])
			}
			return n < 4
		}},
		{"silent before its answer", func(n int, _ http.ResponseWriter, r *http.Request) bool {
			if n < 3 {
				hold(r)
			}
			return n < 3
		}},
		{"silent in the middle", func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n < 3 {
				w.Header().Set("Content-Length", strconv.Itoa(len(data)))
				if n > 1 {
					return false
				}
				_, _ = w.Write(data[:70000])
				_ = http.NewResponseController(w).Flush()
				hold(r)
			}
			return n < 3
		}},
		{"cut in a chunked answer", func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n > 1 {
				return false
			}
			_, _ = w.Write(data[:70000])
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, data, c.answer)
			got, err := get(t, client(t, source.HTTPOptions{Stall: 150 * time.Millisecond}), s.URL)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %v; want %d", len(got), err, len(data))
			}
		})
	}
}

func TestHTTPGivesUp(t *testing.T) {
	noLeak(t)
	data := sample(1 << 20)
	trickle := func(_ int, w http.ResponseWriter, r *http.Request) bool {
		for r.Context().Err() == nil {
			_, _ = w.Write(data[:10])
			_ = http.NewResponseController(w).Flush()
			time.Sleep(10 * time.Millisecond)
		}
		return true
	}
	for _, c := range []struct {
		name   string
		answer func(n int, w http.ResponseWriter, r *http.Request) bool
		o      source.HTTPOptions
		want   string
	}{
		{"always busy", func(_ int, w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(503); return true },
			source.HTTPOptions{GiveUp: 100 * time.Millisecond}, "503"},
		{"always silent", func(_ int, _ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true },
			source.HTTPOptions{Stall: 50 * time.Millisecond, GiveUp: 300 * time.Millisecond}, "sends nothing"},
		{"cut without a byte", func(_ int, w http.ResponseWriter, r *http.Request) bool { return cutAfter(w, r, data, 0) },
			source.HTTPOptions{GiveUp: 100 * time.Millisecond}, "no new byte received"},
		{"asks for a day of patience", func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Retry-After", "60000")
			w.WriteHeader(503)
			return true
		}, source.HTTPOptions{}, "503"},
		{"too slow in all", trickle, source.HTTPOptions{Timeout: 300 * time.Millisecond}, "time limit"},
		{"too large", nil, source.HTTPOptions{MaxSize: 1 << 19}, "allowed are 524288"},
		{"too large without saying so", func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			for range 4 {
				_, _ = w.Write(data[:1<<18])
				_ = http.NewResponseController(w).Flush()
			}
			return true
		}, source.HTTPOptions{MaxSize: 1 << 19}, "limit of 524288"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, data, c.answer)
			got, err := get(t, client(t, c.o), s.URL)
			if _, ok := errors.AsType[*source.FetchError](err); !ok || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%d bytes, %v; want a FetchError with %q", len(got), err, c.want)
			}
		})
	}
	s := serve(t, data, nil)
	s.Close()
	if _, err := get(t, client(t, source.HTTPOptions{GiveUp: 50 * time.Millisecond}), s.URL); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody listens: %v", err)
	}
}

// A cancelled context ends every stage of a transfer with its cause, and leaves nothing behind.
func TestHTTPCancel(t *testing.T) {
	noLeak(t)
	data := sample(1 << 20)
	stop := errors.New("stopped by hand")
	for _, at := range []string{"before", "answer", "body", "wait"} {
		t.Run(at, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			if at == "before" {
				cancel(stop)
			}
			s := serve(t, data, func(_ int, w http.ResponseWriter, r *http.Request) bool {
				switch at {
				case "answer":
					cancel(stop)
				case "body":
					_, _ = w.Write(data[:300000])
					_ = http.NewResponseController(w).Flush()
					cancel(stop)
				case "wait":
					time.AfterFunc(20*time.Millisecond, func() { cancel(stop) })
					w.WriteHeader(503)
					return true
				}
				<-r.Context().Done()
				return true
			})
			o := source.HTTPOptions{}
			c, err := source.NewClient(o) // waits a second before it asks again
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			img, err := c.Open(ctx, s.URL, source.Limits{})
			if err == nil {
				_, err = io.Copy(io.Discard, img)
				img.Close()
			}
			if !errors.Is(err, stop) {
				t.Errorf("error is %v; want the cause", err)
			}
		})
	}
}

// A raw image is not fetched where it is skipped.
func TestHTTPJumps(t *testing.T) {
	noLeak(t)
	data := sample(12 << 20)
	var sent atomic.Int64
	s := serve(t, data, func(_ int, w http.ResponseWriter, r *http.Request) bool {
		http.ServeContent(countingWriter{w, &sent}, r, "", time.Time{}, bytes.NewReader(data))
		return true
	})
	img, err := client(t, source.HTTPOptions{}).Open(t.Context(), s.URL, source.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	buf := make([]byte, 5000)
	for _, skip := range []int64{100, 5000, 1_200_000, 3 << 20, 4096} {
		if err := img.Skip(skip); err != nil {
			t.Fatal(err)
		}
		at := img.Offset()
		if _, err := io.ReadFull(img, buf); err != nil || !bytes.Equal(buf, data[at:at+5000]) {
			t.Fatalf("after Skip(%d), at %d: wrong bytes, %v", skip, at, err)
		}
	}
	if err := img.Skip(int64(len(data))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Skip past the end = %v", err)
	}
	if err := img.Skip(int64(len(data)) - img.Offset()); err != nil {
		t.Fatal(err)
	}
	if err := img.End(); err != nil {
		t.Errorf("End() = %v", err)
	}
	if n := s.requests.Load(); n < 3 {
		t.Errorf("%d requests; want new ones behind large holes", n)
	}
}

type countingWriter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c countingWriter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return c.ResponseWriter.Write(p)
}

func TestHTTPFind(t *testing.T) {
	noLeak(t)
	files := map[string]string{"/a/x.img.bmap": "map of x", "/a/x.img.bmap.sig": "signature of x",
		"/a/y.img.zst.bmap": "map of y", "/a/y.img.zst.bmap.asc": strings.Repeat("s", 100)}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if text, ok := files[r.URL.Path]; ok && r.URL.RawQuery == "key=1" {
			_, _ = io.WriteString(w, text)
			return
		}
		http.NotFound(w, r)
	}))
	defer web.Close()
	c := client(t, source.HTTPOptions{})
	for image, want := range map[string]string{"/a/x.img.zst": "/a/x.img.bmap", "/a/y.img.zst": "/a/y.img.zst.bmap"} {
		name, data, err := c.FindBmap(t.Context(), web.URL+image+"?key=1", 100, nil)
		if err != nil || name != web.URL+want+"?key=1" || string(data) != files[want] {
			t.Errorf("FindBmap(%s) = %s, %q, %v", image, name, data, err)
		}
		sig, found, err := c.FindSignature(t.Context(), name, 100)
		if err != nil || !found || len(sig) == 0 {
			t.Errorf("FindSignature(%s) = %q, %v, %v", name, sig, found, err)
		}
		if _, _, err := c.FindSignature(t.Context(), name, 5); err == nil || !strings.Contains(err.Error(), "longer than 5 bytes") {
			t.Errorf("FindSignature with a cap: %v", err)
		}
	}
	_, _, err := c.FindBmap(t.Context(), web.URL+"/z.img.xz?key=1", 100, nil)
	if e, ok := errors.AsType[*source.FetchError](err); !ok || e.Status != 404 || !strings.Contains(err.Error(), "z.img.xz.bmap, z.img.bmap, z.bmap") {
		t.Errorf("FindBmap of nothing = %v", err)
	}
	if _, found, err := c.FindSignature(t.Context(), web.URL+"/z.bmap?key=1", 100); found || err != nil {
		t.Errorf("FindSignature of nothing = %v, %v", found, err)
	}
	for _, name := range []string{"http://", "https:///x", "http://[::1", "ftp://x/y"} {
		if _, err := c.Fetch(t.Context(), name, 100); err == nil {
			t.Errorf("Fetch(%s) succeeded", name)
		}
	}
}

// trust writes the certificate that a client must trust to reach a test server.
func trust(t *testing.T, s *httptest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestHTTPS(t *testing.T) {
	noLeak(t)
	data := sample(100_000)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(data) }))
	s.Config.ErrorLog = nil
	s.StartTLS()
	defer s.Close()
	ca := trust(t, s)
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	for _, c := range []struct {
		name, address string
		o             source.HTTPOptions
		want          string
	}{
		{"own root", s.URL, source.HTTPOptions{CA: ca}, ""},
		{"unknown root", s.URL, source.HTTPOptions{}, "certificate signed by unknown authority"},
		{"other host", "https://localhost:" + port, source.HTTPOptions{CA: ca}, "certificate is valid for"},
		{"expired", s.URL, source.HTTPOptions{CA: ca, Now: func() time.Time { return time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC) }}, "expired"},
		{"no TLS", "http://" + s.Listener.Addr().String(), source.HTTPOptions{}, "400"},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := time.Now()
			got, err := get(t, client(t, c.o), c.address)
			if c.want == "" {
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
				return
			}
			if _, ok := errors.AsType[*source.FetchError](err); !ok || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v; want a FetchError with %q", err, c.want)
			}
			if time.Since(start) > 4*time.Second {
				t.Error("it was asked again, which cannot help")
			}
		})
	}
}

// membersOnly is a TLS server for clients that have the certificate.
func membersOnly(t testing.TB, pair tls.Certificate, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	pool := x509.NewCertPool()
	pool.AddCert(pair.Leaf)
	s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func TestHTTPClientCertificate(t *testing.T) {
	noLeak(t)
	dir := t.TempDir()
	cert, key, pair := selfSigned(t, dir, "127.0.0.1")
	s := membersOnly(t, pair, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("for members")) })
	ca := trust(t, s)
	got, err := get(t, client(t, source.HTTPOptions{CA: ca, ClientCert: cert, ClientKey: key}), s.URL)
	if err != nil || string(got) != "for members" {
		t.Errorf("with the certificate: %q, %v", got, err)
	}
	if _, err := get(t, client(t, source.HTTPOptions{CA: ca}), s.URL); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without: %v", err)
	}
	for _, o := range []source.HTTPOptions{{ClientCert: cert}, {ClientCert: cert, ClientKey: cert}, {CA: key}, {CA: filepath.Join(dir, "none")},
		{Proxy: "socks5://x"}, {Proxy: "proxy:3128"}} {
		if _, err := source.NewClient(o); err == nil {
			t.Errorf("NewClient(%+v) succeeded", o)
		}
	}
}

// The token goes to its host and to no other, whatever redirects say.
func TestHTTPToken(t *testing.T) {
	noLeak(t)
	var mu sync.Mutex
	got := map[string][]string{}
	note := func(who string, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		got[who] = append(got[who], r.Header.Get("Authorization"))
		if r.Header.Get("Referer") != "" || r.Header.Get("Cookie") != "" {
			t.Errorf("%s got Referer %q, Cookie %q", who, r.Header.Get("Referer"), r.Header.Get("Cookie"))
		}
	}
	other := httptest.NewTLSServer(nil)
	defer other.Close()
	own := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		note("own", r)
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, other.URL+"/there", http.StatusFound)
		case "/round":
			http.Redirect(w, r, other.URL+"/back", http.StatusFound)
		case "/clear":
			http.Redirect(w, r, "http://"+r.Host+"/x", http.StatusFound)
		default:
			_, _ = io.WriteString(w, "image")
		}
	}))
	defer own.Close()
	other.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		note("other", r)
		if r.URL.Path == "/back" {
			http.Redirect(w, r, own.URL+"/x", http.StatusFound)
			return
		}
		_, _ = io.WriteString(w, "image")
	})
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("s3cret.token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	host := strings.TrimPrefix(own.URL, "https://")
	c := client(t, source.HTTPOptions{CA: trust(t, own), TokenFile: token, TokenHost: host})
	for path, ok := range map[string]bool{"/x": true, "/away": true, "/round": true, "/clear": false} {
		_, err := get(t, c, own.URL+path)
		if (err == nil) != ok {
			t.Errorf("%s: %v", path, err)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("the error tells the token: %v", err)
		}
	}
	if _, err := get(t, c, other.URL+"/there"); err != nil {
		t.Error(err)
	}
	for _, a := range got["own"] {
		if a != "Bearer s3cret.token" {
			t.Errorf("its own host got %q", a)
		}
	}
	for _, a := range got["other"] {
		if a != "" {
			t.Errorf("another host got %q", a)
		}
	}
	if len(got["other"]) != 3 || len(got["own"]) != 5 {
		t.Errorf("requests: %d to its host, %d to the other", len(got["own"]), len(got["other"]))
	}
	for _, text := range []string{"", "two words", "line\r\nX-Evil: 1"} {
		if err := os.WriteFile(token, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := source.NewClient(source.HTTPOptions{TokenFile: token, TokenHost: host}); err == nil {
			t.Errorf("a token %q was taken", text)
		}
	}
	if _, err := source.NewClient(source.HTTPOptions{TokenFile: token}); err == nil {
		t.Error("a token for no host was taken")
	}
}

func TestHTTPProxy(t *testing.T) {
	noLeak(t)
	data := sample(100_000)
	s := serve(t, data, nil)
	var used atomic.Int64
	direct := &httputil.ReverseProxy{Rewrite: func(*httputil.ProxyRequest) {}}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		used.Add(1)
		if _, err := url.Parse(r.RequestURI); err != nil || !r.URL.IsAbs() {
			t.Errorf("the proxy was asked for %q", r.RequestURI)
		}
		direct.ServeHTTP(w, r)
	}))
	defer proxy.Close()
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1") // must not be asked
	got, err := get(t, client(t, source.HTTPOptions{Proxy: proxy.URL}), strings.Replace(s.URL, "127.0.0.1", "localhost", 1))
	if err != nil || !bytes.Equal(got, data) || used.Load() == 0 {
		t.Errorf("through the proxy: %d bytes, %v, %d requests", len(got), err, used.Load())
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections() // of the test's proxy
}

func TestParseURL(t *testing.T) {
	for name, want := range map[string]bool{
		"http://h/x": true, "HTTPS://h": true, "http.img": false, "/http://x": false, "-": false, "file:///x": false, "a:b": false, "./ssh:x": false, "C:/x": false,
	} {
		if _, ok, err := source.ParseURL(name); ok != want || err != nil {
			t.Errorf("ParseURL(%s) = %v, %v; want %v", name, ok, err, want)
		}
	}
	for name, scheme := range map[string]string{"ftp://h/x": "ftp", "SSH://h/x": "ssh", "ssh:h/x": "ssh", "s3://bucket/x": "s3", "unheard+of://x": "unheard+of"} {
		_, ok, err := source.ParseURL(name)
		if e, is := errors.AsType[*source.SchemeError](err); ok || !is || e.Scheme != scheme {
			t.Errorf("ParseURL(%s) = %v, %v; want a SchemeError of %s", name, ok, err, scheme)
		}
	}
	for _, name := range []string{"http:", "http://", "https:///x", "https://u:secret@/x?sig=secret", "http://[::1", "https://h/%zz?sig=secret", "http:h/x"} {
		_, ok, err := source.ParseURL(name)
		if !ok || err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("ParseURL(%s) = %v, %v; want an error without secrets", name, ok, err)
		}
	}
	img, err := client(t, source.HTTPOptions{}).Open(t.Context(), serve(t, sample(1000), nil).URL, source.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	img.Close()
	if _, err := img.Read(make([]byte, 1)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Read of a closed image = %v", err)
	}
}
