package web

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"updater/initramfs"
	"updater/internal/broadcast"
	"updater/internal/httpd"
)

// Options configure a [Server]. Every field is required.
type Options struct {
	Events *broadcast.Events      // lines of JSON
	Hint   func(err error) string // next step after an error, "" means none
	Log    func(format string, a ...any)
	Device Device
}

// Device carries choices out. Its methods except Current are called one at a time, by the receiver of the choices.
type Device interface {
	InstallStream(ctx context.Context, archive io.Reader) error
	InstallURL(ctx context.Context, url string) error
	BootOnce(ctx context.Context, slot string) error
	// Current reads the slots and the boot state, for JSON. It is safe for concurrent use.
	Current(ctx context.Context) (any, error)
	// WebCode is the configured code; "" means none.
	WebCode() (string, error)
}

// port is that of HTTP, so that a person types an address and nothing else.
const port = 80

// Open serves the page on every address of the machine until ctx ends. A configured code that cannot be read, or is too short, is replaced
// by a new one, as if none were configured.
func Open(ctx context.Context, o Options) (*initramfs.Remote, error) {
	code, shown := o.code()
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return nil, fmt.Errorf("web page: %w", err)
	}
	s := New(o, code)
	go func() { o.Log("web page: %v", s.Serve(ctx, l)) }()
	return &initramfs.Remote{Choices: s.Choices, Notice: func() []string { return []string{"web page: " + shown + ", at " + places()} }}, nil
}

// code is the configured code, or a new one, and how the consoles show it.
func (o Options) code() (code, shown string) {
	code, err := o.Device.WebCode()
	if err == nil && code != "" {
		err = checkCode(code)
	}
	if err != nil {
		o.Log("web page: the configured code is not used: %v", err)
	}
	if err != nil || code == "" {
		code = newCode()
		return code, "code " + code
	}
	return code, "the code of this device"
}

// places are the addresses of the page.
func places() string {
	all, _ := net.InterfaceAddrs()
	var at []string
	for _, a := range all {
		if ip, ok := a.(*net.IPNet); ok && !ip.IP.IsLoopback() && !ip.IP.IsLinkLocalUnicast() {
			at = append(at, (&url.URL{Scheme: "http", Host: hostOf(ip.IP)}).String()+"/")
		}
	}
	if len(at) == 0 {
		return "the network is not up"
	}
	return strings.Join(at, " or ")
}

func hostOf(ip net.IP) string {
	if ip.To4() == nil {
		return "[" + ip.String() + "]"
	}
	return ip.String()
}

// Limits of a client.
const (
	maxClients = 32            // connections
	maxForm    = httpd.MaxHead // bytes of a body that is not an upload
	handOver   = 5 * time.Second
	ping       = 15 * time.Second // between two signs of life on the stream of events
)

//go:embed page.html
var page []byte

//go:embed page.css
var style []byte

//go:embed page.js
var script []byte

// Server is the page and the choices made on it.
type Server struct {
	// Choices are the choices of people. Nobody needs to receive: a choice that is not received within seconds is refused.
	Choices  chan initramfs.Choice
	o        Options
	sessions sessions
	patience time.Duration // for 64 KiB of an upload
	status   chan struct{} // holds one token: the boot state is read by one request at a time
}

// New creates a server with a code.
func New(o Options, code string) *Server {
	return &Server{Choices: make(chan initramfs.Choice), o: o, sessions: newSessions(code), patience: httpd.PieceTime, status: make(chan struct{}, 1)}
}

// Serve answers on a listener until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	return httpd.Serve(ctx, l, httpd.Limits{Clients: maxClients}, s.route)
}

// route calls the handler of a method and path. It refuses requests of other sites, and requests without a session.
func (s *Server) route(w *httpd.Response, r *http.Request) {
	type file struct {
		kind string
		data []byte
	}
	files := map[string]file{
		"GET /": {"text/html", page}, "GET /page.css": {"text/css", style}, "GET /page.js": {"text/javascript", script},
	}
	handlers := map[string]func(*httpd.Response, *http.Request){
		"GET /status": s.showStatus, "GET /events": s.events, "GET /log": s.log,
		"POST /upload": s.upload, "POST /address": s.address, "POST /boot": s.boot, "POST /restart": s.restart,
	}
	if foreign(w, r) {
		return
	}
	what := r.Method + " " + r.URL.Path
	if f, ok := files[what]; ok {
		w.Begin(http.StatusOK, f.kind+"; charset=utf-8")
		_, _ = w.Write(f.data)
		return
	}
	switch h := handlers[what]; {
	case what == "POST /code":
		s.enter(w, r)
	case h == nil:
		answer(w, http.StatusNotFound, "there is no such page", "")
	case !s.sessions.knows(r):
		answer(w, http.StatusUnauthorized, "enter the code that the console shows", "")
	default:
		h(w, r)
	}
}

// foreign answers a request that does not come from the page. Only an address may be asked: a name may lead here from the page of someone
// else, by a DNS that changes its answer. A request that a browser sends on behalf of another page is refused.
func foreign(w *httpd.Response, r *http.Request) bool {
	origin, site := r.Header.Get("Origin"), r.Header.Get("Sec-Fetch-Site")
	switch {
	case !isAddress(r.Host):
		answer(w, http.StatusMisdirectedRequest, "the name of this host is unknown; use the address that the console shows", "")
	case origin != "" && origin != "http://"+r.Host, site != "" && site != "same-origin" && site != "none":
		answer(w, http.StatusForbidden, "the request comes from another page", "")
	default:
		return false
	}
	return true
}

func isAddress(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	_, err := netip.ParseAddr(host)
	return err == nil || host == "localhost"
}

// answer writes the outcome of a request for people.
func answer(w *httpd.Response, code int, message, hint string) {
	w.Begin(code, "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{"message": message, "hint": hint})
}

func (s *Server) enter(w *httpd.Response, r *http.Request) {
	var in struct{ Code string }
	if !read(w, r, &in) {
		return
	}
	token, wait := s.sessions.enter(in.Code)
	switch {
	case wait > 0:
		w.Set("Retry-After", fmt.Sprint(int(wait.Seconds())+1))
		answer(w, http.StatusTooManyRequests, "too many codes were tried", fmt.Sprintf("try again in %d s", int(wait.Seconds())+1))
	case token == "":
		answer(w, http.StatusForbidden, "that is not the code", "the console shows it")
	default:
		w.Set("Set-Cookie", cookie+"="+token+"; Path=/; HttpOnly; SameSite=Strict")
		answer(w, http.StatusOK, "", "")
	}
}

// read reads a small JSON object.
func read(w *httpd.Response, r *http.Request, into any) bool {
	if err := json.NewDecoder(io.LimitReader(r.Body, maxForm)).Decode(into); err != nil {
		answer(w, http.StatusBadRequest, "the request cannot be read", "")
		return false
	}
	return true
}

func (s *Server) showStatus(w *httpd.Response, r *http.Request) {
	select {
	case s.status <- struct{}{}:
		defer func() { <-s.status }()
	case <-w.Ctx.Done():
		return
	}
	status, err := s.o.Device.Current(w.Ctx)
	if err != nil {
		answer(w, http.StatusInternalServerError, err.Error(), s.o.Hint(err))
		return
	}
	w.Begin(http.StatusOK, "application/json")
	_ = json.NewEncoder(w).Encode(status)
}

func (s *Server) log(w *httpd.Response, _ *http.Request) {
	text, err := initramfs.ReadLog()
	if err != nil {
		answer(w, http.StatusInternalServerError, err.Error(), "")
		return
	}
	w.Set("Content-Disposition", `attachment; filename="recovery.log"`)
	w.Begin(http.StatusOK, "text/plain; charset=utf-8")
	_, _ = w.Write(text)
}

// events streams the events of the installs (server-sent events of the HTML standard).
func (s *Server) events(w *httpd.Response, _ *http.Request) {
	lines, stop := s.o.Events.Read()
	defer stop()
	tick := time.NewTicker(ping)
	defer tick.Stop()
	w.Begin(http.StatusOK, "text/event-stream")
	for text := []byte(": hello\n\n"); ; {
		if _, err := w.Write(text); err != nil {
			return
		}
		select {
		case line := <-lines:
			text = fmt.Appendf(nil, "data: %s\n\n", strings.TrimSpace(string(line)))
		case <-tick.C:
			text = []byte(": still here\n\n")
		case <-w.Ctx.Done():
			return
		}
	}
}

func (s *Server) upload(w *httpd.Response, r *http.Request) {
	if r.Header.Get("Expect") == "100-continue" {
		_, _ = io.WriteString(w.Conn, "HTTP/1.1 100 Continue\r\n\r\n")
	}
	body := &paced{body: r.Body, patience: s.patience, deadline: w.Conn.SetReadDeadline}
	s.choose(w, initramfs.Choice{
		Doing: "installing an upload", Installs: true,
		Do: func(ctx context.Context) error { return s.o.Device.InstallStream(ctx, body) },
	})
}

func (s *Server) address(w *httpd.Response, r *http.Request) {
	var in struct{ Address string }
	if !read(w, r, &in) {
		return
	}
	if !strings.HasPrefix(in.Address, "http://") && !strings.HasPrefix(in.Address, "https://") {
		answer(w, http.StatusBadRequest, "expected an address that begins with http:// or https://", "")
		return
	}
	s.choose(w, initramfs.Choice{
		Doing: "installing from an address", Installs: true,
		Do: func(ctx context.Context) error { return s.o.Device.InstallURL(ctx, in.Address) },
	})
}

func (s *Server) boot(w *httpd.Response, r *http.Request) {
	var in struct{ Slot string }
	if !read(w, r, &in) {
		return
	}
	s.choose(w, initramfs.Choice{
		Doing: "booting a slot once",
		Do:    func(ctx context.Context) error { return s.o.Device.BootOnce(ctx, in.Slot) },
	})
}

func (s *Server) restart(w *httpd.Response, _ *http.Request) {
	s.choose(w, initramfs.Choice{Doing: "restarting", Do: func(context.Context) error { return nil }})
}

// choose hands a choice over and answers with its outcome. The choice goes on when the client does not wait for the answer; an upload then
// ends, since its body does.
func (s *Server) choose(w *httpd.Response, c initramfs.Choice) {
	done := make(chan error, 1)
	c.Done = func(err error) { done <- err }
	select {
	case s.Choices <- c:
	case <-w.Ctx.Done():
		return
	case <-time.After(handOver):
		answer(w, http.StatusConflict, "the recovery is busy with something else", "wait until it is done, then try again")
		return
	}
	if err := <-done; err != nil {
		answer(w, http.StatusUnprocessableEntity, err.Error(), s.o.Hint(err))
		return
	}
	answer(w, http.StatusOK, "done; the device restarts", "")
}

// errSlow ends an upload.
var errSlow = errors.New("the client sends less than 64 KiB within the time limit")

// paced reads the body of an upload. The client has a limited time for every 64 KiB; the time that the install takes does not count.
type paced struct {
	body     io.Reader
	patience time.Duration
	deadline func(time.Time) error
	got      int
	spent    time.Duration
}

// Read implements io.Reader.
func (p *paced) Read(b []byte) (int, error) {
	start := time.Now()
	if err := p.deadline(start.Add(p.patience - p.spent)); err != nil {
		return 0, err
	}
	n, err := p.body.Read(b)
	p.got, p.spent = p.got+n, p.spent+time.Since(start)
	if p.got >= 64<<10 {
		p.got, p.spent = 0, 0
	}
	if t, ok := errors.AsType[net.Error](err); ok && t.Timeout() {
		err = errSlow
	}
	return n, err
}
