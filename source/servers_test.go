package source_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"updater/pack"
	"updater/source"
)

// answer is the answer of a good server to a request. A quirk changes it.
type answer struct {
	r        *http.Request
	n        int // of the request, from 1
	file     []byte
	from, to int  // the part
	ranged   bool // a range was asked for, and If-Range holds
	status   int
	header   http.Header
	body     []byte
	chunked  bool
}

func plan(r *http.Request, n int, file []byte) *answer {
	a := &answer{r: r, n: n, file: file, to: len(file), status: 200, header: http.Header{}}
	a.header.Set("Etag", `"v1"`)
	a.header.Set("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT")
	a.header.Set("Accept-Ranges", "bytes")
	a.header.Set("Content-Type", "application/octet-stream")
	if v := r.Header.Get("If-Range"); r.Header.Get("Range") != "" && (v == "" || v == a.header.Get("Etag") || v == a.header.Get("Last-Modified")) {
		a.ranged = true
		first, last, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Range"), "bytes="), "-")
		a.from, _ = strconv.Atoi(first)
		if last != "" {
			b, _ := strconv.Atoi(last)
			a.to = min(b+1, len(file))
		}
		if a.from >= len(file) {
			a.fail(416)
			a.header.Set("Content-Range", fmt.Sprintf("bytes */%d", len(file)))
			return a
		}
		a.part(a.from, a.to)
		return a
	}
	a.body = file
	return a
}

// part answers with a part.
func (a *answer) part(from, to int) {
	a.status, a.from, a.to, a.body = 206, from, to, a.file[from:to]
	a.header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(a.file)))
}

// whole answers with the whole file.
func (a *answer) whole() {
	a.ranged, a.status, a.body = false, 200, a.file
	a.header.Del("Content-Range")
}

func (a *answer) fail(status int) {
	a.ranged, a.status, a.body = false, status, []byte("no")
	a.header.Del("Content-Range")
}

// send sends the answer, and breaks the connection after most bytes of it.
func (a *answer) send(w http.ResponseWriter, most int) {
	maps.Copy(w.Header(), a.header)
	if !a.chunked {
		w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body[:min(most, len(a.body))])
	if a.chunked {
		_ = http.NewResponseController(w).Flush()
	}
	if most < len(a.body) {
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

func ifRange(a *answer) bool { return a.r.Header.Get("If-Range") != "" }
func asked(a *answer) bool   { return a.r.Header.Get("Range") != "" }
func set(name, value string) func(a *answer) {
	return func(a *answer) { a.header.Set(name, value) }
}

// on changes the answers to some requests.
func on(when func(a *answer) bool, what func(a *answer)) func(a *answer) {
	return func(a *answer) {
		if when(a) {
			what(a)
		}
	}
}

func status(code int) func(a *answer) { return func(a *answer) { a.fail(code) } }

func isPart(a *answer) bool { return a.status == 206 }

func contentRange(format string) func(a *answer) {
	return on(isPart, func(a *answer) { a.header.Set("Content-Range", fmt.Sprintf(format, a.from, a.to-1, len(a.file))) })
}

func everySecond(what func(a *answer)) func(a *answer) {
	return on(func(a *answer) bool { return a.n%2 == 1 }, what)
}

func gzipped(a *answer) {
	a.whole()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(a.file)
	_ = z.Close()
	a.body, a.chunked = b.Bytes(), true
	a.header.Set("Content-Encoding", "gzip")
	a.header.Set("Etag", `"v1-gzip"`)
	a.header.Del("Accept-Ranges")
}

// nodes are servers behind a load balancer whose copies of the file have their own ETag and date.
func nodes(etag, date, honour bool) func(a *answer) {
	return func(a *answer) {
		if honour && ifRange(a) {
			a.whole()
		}
		if etag {
			a.header.Set("Etag", fmt.Sprintf(`"node-%d"`, a.n))
		}
		if date {
			a.header.Set("Last-Modified", fmt.Sprintf("Wed, 01 Jan 2025 00:00:%02d GMT", a.n%60))
		}
	}
}

// quirks are peculiarities of servers, proxies and load balancers. With each of them every byte comes through.
var quirks = map[string]func(a *answer){
	"none":                              func(*answer) {},
	"no ranges":                         func(a *answer) { a.whole(); a.header.Del("Accept-Ranges") },
	"no ranges, chunked":                func(a *answer) { a.whole(); a.chunked = true },
	"claims ranges, serves none":        func(a *answer) { a.whole() },
	"claims no ranges, serves them":     set("Accept-Ranges", "none"),
	"ranges end after two requests":     on(func(a *answer) bool { return a.n > 2 }, func(a *answer) { a.whole() }),
	"ranges now and then":               everySecond(func(a *answer) { a.whole() }),
	"200 to If-Range":                   on(ifRange, func(a *answer) { a.whole() }),
	"200 to If-Range, chunked":          on(ifRange, func(a *answer) { a.whole(); a.chunked = true }),
	"200 to If-Range with an ETag":      on(func(a *answer) bool { return strings.HasPrefix(a.r.Header.Get("If-Range"), `"`) }, func(a *answer) { a.whole() }),
	"412 to If-Range":                   on(ifRange, status(412)),
	"400 to If-Range":                   on(ifRange, status(400)),
	"416 to If-Range":                   on(ifRange, status(416)),
	"400 to Range":                      on(asked, status(400)),
	"403 to Range":                      on(asked, status(403)),
	"405 to Range":                      on(asked, status(405)),
	"416 to Range":                      on(asked, status(416)),
	"501 to Range":                      on(asked, status(501)),
	"416 to an open range":              on(func(a *answer) bool { return strings.HasSuffix(a.r.Header.Get("Range"), "-") }, status(416)),
	"ETag per node":                     nodes(true, false, false),
	"ETag per node, If-Range honoured":  nodes(true, false, true),
	"date per node":                     func(a *answer) { nodes(false, true, true)(a); a.header.Del("Etag") },
	"ETag and date per node":            nodes(true, true, true),
	"ETag now and then":                 everySecond(func(a *answer) { a.header.Del("Etag") }),
	"weak ETag":                         set("Etag", `W/"v1"`),
	"ETag without quotes":               set("Etag", "v1"),
	"no validator":                      func(a *answer) { a.header.Del("Etag"); a.header.Del("Last-Modified") },
	"date only":                         func(a *answer) { a.header.Del("Etag") },
	"text/html for parts":               on(isPart, set("Content-Type", "text/html")),
	"text/html":                         set("Content-Type", "text/html; charset=utf-8"),
	"multipart as the type of one part": on(isPart, set("Content-Type", "multipart/byteranges; boundary=x")),
	"several parts": on(isPart, func(a *answer) {
		a.body = fmt.Appendf(nil, "--x\r\nContent-Range: bytes %d-%d/%d\r\n\r\n%s\r\n--x--\r\n", a.from, a.to-1, len(a.file), a.body)
		a.header.Set("Content-Type", "multipart/byteranges; boundary=x")
		a.header.Del("Content-Range")
	}),
	"stored Content-Encoding":      set("Content-Encoding", "gzip"),
	"aws-chunked":                  set("Content-Encoding", "aws-chunked"),
	"identity":                     set("Content-Encoding", "identity"),
	"gzip on the fly":              gzipped,
	"size unknown":                 contentRange("bytes %[1]d-%[2]d/*"),
	"Content-Range without a size": contentRange("bytes %[1]d-%[2]d"),
	"Content-Range with =":         contentRange("bytes=%d-%d/%d"),
	"Content-Range in capitals":    contentRange("Bytes %d-%d/%d"),
	"no Content-Range":             on(isPart, func(a *answer) { a.header.Del("Content-Range") }),
	"Content-Range is a lie":       on(isPart, func(a *answer) { a.header.Set("Content-Range", fmt.Sprintf("bytes 0-9/%d", len(a.file))) }),
	"short parts":                  on(isPart, func(a *answer) { a.part(a.from, min(a.to, a.from+40_000)) }),
	"long parts":                   on(isPart, func(a *answer) { a.part(a.from, len(a.file)) }),
	"chunked parts":                on(isPart, func(a *answer) { a.chunked = true }),
	"206 to everything":            on(func(a *answer) bool { return !asked(a) }, func(a *answer) { a.part(0, len(a.file)) }),
	"203":                          on(func(a *answer) bool { return a.status == 200 }, func(a *answer) { a.status = 203 }),
	"closes every connection":      set("Connection", "close"),
	"500":                          everySecond(status(500)),
	"502, 520, 530":                on(func(a *answer) bool { return a.n%4 > 0 }, func(a *answer) { a.fail([]int{0, 502, 520, 530}[a.n%4]) }),
	"503 and Retry-After":          everySecond(func(a *answer) { a.fail(503); a.header.Set("Retry-After", "0") }),
	"429 until a date that passed": everySecond(func(a *answer) { a.fail(429); a.header.Set("Retry-After", "Wed, 01 Jan 2025 00:00:00 GMT") }),
	"421 and 425":                  on(func(a *answer) bool { return a.n < 3 }, func(a *answer) { a.fail([]int{0, 421, 425}[a.n]) }),
	"302":                          redirected(302),
	"308":                          redirected(308),
}

func redirected(code int) func(a *answer) {
	return func(a *answer) {
		if a.r.URL.Path != "/moved" {
			a.fail(code)
			a.header.Set("Location", "/moved")
		}
	}
}

// quirky serves a file. The n-th answer breaks after n times cut bytes; 0 breaks none.
func quirky(t *testing.T, file []byte, quirk func(a *answer), cut int) string {
	t.Helper()
	var requests atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(requests.Add(1))
		a := plan(r, n, file)
		quirk(a)
		most := len(a.body)
		if cut > 0 {
			most = n * cut
		}
		a.send(w, most)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/image"
}

func TestServers(t *testing.T) {
	noLeak(t)
	data := bytes.Repeat(sample(150_000), 4)
	var ranges []pack.Range
	for off := int64(0); off < int64(len(data)); off += 40_000 {
		ranges = append(ranges, pack.Range{Offset: off, Length: 40_000})
	}
	var packed bytes.Buffer
	if err := pack.Write(t.Context(), &packed, pack.Image{Data: bytes.NewReader(data), Size: int64(len(data)), Ranges: ranges}, 1); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"raw": data, "zst": compress(t, data, "zstd", "-c", "-1"), "packed": packed.Bytes()}
	document := sample(50_000)
	wanted := []pack.Range{{Offset: 0, Length: 40_000}, {Offset: 200_000, Length: 80_000}, {Offset: 560_000, Length: 40_000}}
	for name, quirk := range quirks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, cut := range []int{0, 70_000, 9_000} {
				c := client(t, source.HTTPOptions{MinRate: -1, GiveUp: 20 * time.Second})
				for what, file := range files {
					got, err := get(t, c, quirky(t, file, quirk, cut))
					if err != nil || !bytes.Equal(got, data) {
						t.Errorf("%s, cut %d: %d bytes, %v; want %d", what, cut, len(got), err, len(data))
					}
				}
				if err := getRanges(t, c, quirky(t, packed.Bytes(), quirk, cut), data, wanted); err != nil {
					t.Errorf("in parts, cut %d: %v", cut, err)
				}
				got, err := c.Fetch(t.Context(), quirky(t, document, quirk, cut), 100_000)
				if err != nil || !bytes.Equal(got, document) {
					t.Errorf("document, cut %d: %d bytes, %v; want %d", cut, len(got), err, len(document))
				}
			}
		})
	}
}

// getRanges reads ranges of a packed image as a plan allows, and compares them.
func getRanges(t *testing.T, c *source.Client, address string, data []byte, ranges []pack.Range) error {
	img, err := c.Open(t.Context(), address, source.Limits{})
	if err != nil {
		return err
	}
	defer img.Close()
	if _, err := img.Plan(ranges); err != nil {
		return err
	}
	for _, r := range ranges {
		if err := img.Skip(r.Offset - img.Offset()); err != nil {
			return err
		}
		got := make([]byte, r.Length)
		if _, err := io.ReadFull(img, got); err != nil {
			return err
		}
		if !bytes.Equal(got, data[r.Offset:r.Offset+r.Length]) {
			return fmt.Errorf("wrong bytes at %d", r.Offset)
		}
	}
	return nil
}

// A download fails on answers with another file, or with none.
func TestServersRefused(t *testing.T) {
	noLeak(t)
	data := sample(600_000)
	later := func(what func(a *answer)) func(a *answer) {
		return on(func(a *answer) bool { return a.n > 1 }, what)
	}
	for name, c := range map[string]struct {
		quirk func(a *answer)
		want  string
	}{
		"another size":            {later(func(a *answer) { a.file = append(data, 0); a.whole() }), "has changed"},
		"another size, in a part": {later(func(a *answer) { a.file = append(data, 0); a.part(a.from, len(a.file)) }), "has changed"},
		"a shorter file, chunked": {later(func(a *answer) { a.file = data[:1000]; a.whole(); a.chunked = true }), "unexpected EOF"},
		"a login page":            {func(a *answer) { a.fail(200); a.body = []byte("\n<!doctype HTML><title>log in</title>") }, "web page"},
		"404":                     {status(404), "404 Not Found"},
		"401":                     {status(401), "401 Unauthorized"},
		"403":                     {status(403), "403 Forbidden"},
		"204":                     {func(a *answer) { a.fail(204); a.body = nil }, "204 No Content"},
		"304":                     {func(a *answer) { a.fail(304); a.body = nil }, "304 Not Modified"},
		"300":                     {status(300), "300 Multiple Choices"},
		"expired in the middle":   {later(status(403)), "403 Forbidden"},
		"gone in the middle":      {later(status(410)), "410 Gone"},
	} {
		_, err := get(t, client(t, source.HTTPOptions{GiveUp: 300 * time.Millisecond}), quirky(t, data, c.quirk, 200_000))
		if _, ok := errors.AsType[*source.FetchError](err); !ok || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want a FetchError with %q", name, err, c.want)
		}
	}
}

// No answer to a name that is only tried ends the search.
func TestFindOnServers(t *testing.T) {
	noLeak(t)
	absent := map[string]func(a *answer){
		"404": status(404), "410": status(410), "403": status(403), "401": status(401), "400": status(400), "405": status(405),
		"a web page": func(a *answer) { a.fail(200); a.body = []byte("<html>not found</html>") },
		"a redirect to a web page": func(a *answer) {
			a.fail(302)
			a.header.Set("Location", "/login")
		},
	}
	for name, quirk := range absent {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			a := plan(r, 1, nil)
			switch path, _, _ := strings.Cut(r.RequestURI, "?"); path {
			case "/login":
				a.body = []byte("<html>log in</html>")
			case "/p%2Fq/os-1%2B2.img.bmap":
				a.body = []byte("map")
			case "/p%2Fq/os-1%2B2.img.bmap.sig":
				a.body = []byte("signature")
			default:
				quirk(a)
			}
			a.send(w, len(a.body))
		}))
		c := client(t, source.HTTPOptions{})
		address, data, err := c.FindBmap(t.Context(), s.URL+"/p%2Fq/os-1%2B2.img.zst?key=1", 100, nil)
		if err != nil || address != s.URL+"/p%2Fq/os-1%2B2.img.bmap?key=1" || string(data) != "map" {
			t.Errorf("%s: FindBmap = %s, %q, %v", name, address, data, err)
		}
		if sig, found, err := c.FindSignature(t.Context(), address, 100); err != nil || !found || string(sig) != "signature" {
			t.Errorf("%s: FindSignature = %q, %v, %v", name, sig, found, err)
		}
		_, _, err = c.FindBmap(t.Context(), s.URL+"/other.img", 100, nil)
		if e, ok := errors.AsType[*source.FetchError](err); !ok || e.Status != 404 {
			t.Errorf("%s: FindBmap of nothing = %v; want a FetchError of 404", name, err)
		}
		if _, found, err := c.FindSignature(t.Context(), s.URL+"/other.bmap", 100); err != nil || found {
			t.Errorf("%s: FindSignature of nothing = %v, %v", name, found, err)
		}
		s.Close()
	}
}

// BusyBox httpd sends every part as text/html.
func TestBusyBox(t *testing.T) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox is not installed")
	}
	noLeak(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	dir, data := t.TempDir(), sample(600_000)
	for name, content := range map[string][]byte{"image": data, "image.zst": compress(t, data, "zstd", "-c", "-1")} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(path, "httpd", "-f", "-p", address, "-h", dir)
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	k := badLink(t, address)
	k.bytes.Store(200_000)
	c := client(t, source.HTTPOptions{})
	for _, name := range []string{"image", "image.zst"} {
		if got, err := get(t, c, "http://"+k.Addr().String()+"/"+name); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(data))
		}
	}
}
