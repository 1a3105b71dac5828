package web_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"strings"
	"testing"
	"time"

	"updater/device"
	"updater/device/config"
	"updater/initramfs"
	"updater/install"
	"updater/internal/broadcast"
	"updater/internal/rig"
	"updater/recovery"
	"updater/recovery/web"
	"updater/update"
)

func TestMain(m *testing.M) { os.Exit(rig.Cleanly(m).Run()) }

const code = "ABCD-2345"

// events hand the phases of an install to the page.
type events struct{ to *broadcast.Events }

func (events) Device(device.Facts)                  {}
func (events) Warn(string, ...any)                  {}
func (events) Hook(string, string)                  {}
func (e events) Failed(err error)                   { fmt.Fprintf(e.to, `{"ev":"result","code":1,"msg":%q}`, err) }
func (events) Progress() (*update.Progress, func()) { return new(update.Progress), func() {} }
func (e events) Installed(_ *update.Result, err error) error {
	fmt.Fprint(e.to, `{"ev":"result","code":0}`)
	return err
}

// served is the page of a device whose choices nobody carries out yet.
type served struct {
	t      *testing.T
	url    string
	server *web.Server
	events *broadcast.Events
	client *http.Client
}

// serve starts the page of a device.
func serve(t *testing.T, d web.Device) *served {
	t.Helper()
	return serveWith(t, d, code)
}

func serveWith(t *testing.T, d web.Device, given string) *served {
	t.Helper()
	s := &served{t: t, events: new(broadcast.Events), client: newClient(t)}
	if r, ok := d.(*recovery.Device); ok {
		r.Events = func() recovery.Events { return events{s.events} }
	}
	s.server = web.New(web.Options{Events: s.events, Hint: func(error) string { return "a hint" }, Log: t.Logf, Device: d}, given)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.url = "http://" + l.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.server.Serve(ctx, l) }()
	t.Cleanup(func() { stop(); <-ended })
	return s
}

func newClient(t *testing.T) *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar, Timeout: 2 * time.Minute}
}

// carryOut acts as the recovery, which carries out one choice after the other.
func (s *served) carryOut() {
	done := make(chan struct{})
	s.t.Cleanup(func() { close(done) })
	go func() {
		for {
			select {
			case c := <-s.server.Choices:
				c.Done(c.Do(context.Background()))
			case <-done:
				return
			}
		}
	}()
}

// do sends a request and returns the status and the body.
func (s *served) do(method, path string, body io.Reader, headers ...string) (int, string) {
	s.t.Helper()
	q, err := http.NewRequest(method, s.url+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if q.Header.Set(headers[i], headers[i+1]); headers[i] == "Host" {
			q.Host = headers[i+1]
		}
	}
	answer, err := s.client.Do(q)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer.StatusCode, string(data)
}

func (s *served) want(status int, words, method, path, body string, headers ...string) {
	s.t.Helper()
	if got, text := s.do(method, path, strings.NewReader(body), headers...); got != status || !strings.Contains(text, words) {
		s.t.Errorf("%s %s: %d %s; want %d and %q", method, path, got, text, status, words)
	}
}

func (s *served) login() {
	s.t.Helper()
	s.want(200, "", "POST", "/code", `{"code":"abcd 2345"}`)
}

// device is a recovery with a disk whose slots are A, which boots next, and B.
func newDevice(t *testing.T) (*rig.Rig, *recovery.Device) {
	r := rig.New(t)
	r.Configure(`state = "PARTLABEL=state"`, "")
	r.Sh(`sed -i '/^booted/d' config.toml`)
	conf, err := device.LoadConfig(r.Path("config.toml"), config.Build{})
	if err != nil {
		t.Fatal(err)
	}
	return r, &recovery.Device{Config: conf, Work: new(initramfs.Work), Say: t.Logf, Inputs: install.Inputs{Warn: t.Logf}}
}

// archive makes a tar stream of files in a folder.
func archive(r *rig.Rig, names ...string) []byte {
	r.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range names {
		data := r.Read(name)
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), Format: tar.FormatUSTAR}); err != nil {
			r.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			r.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		r.Fatal(err)
	}
	return b.Bytes()
}

// TestUpload: an upload that is unsigned, cut or not a release is refused with its reason; then the same device accepts a good one, also
// after an upload that broke in the middle of the image.
func TestUpload(t *testing.T) {
	r, d := newDevice(t)
	r.Bmap("image.img.bmap", rig.Release, "--product", "demo", "--version", "7", "--rollback-index", "7")
	r.Sh(`cp image.img.bmap foreign.bmap; cp image.img up.img
		updater release create --product demo --version 8 --rollback-index 8 -o release.toml rootfs=up.img >/dev/null
		gpg -q --batch -u release@example.com --armor --detach-sign release.toml
		gpg -q --batch -u other@example.com --armor -o foreign.bmap.asc --detach-sign foreign.bmap`)
	s := serve(t, d)
	s.carryOut()
	s.login()
	bare := archive(r, "image.img.bmap.sig", "image.img.bmap", "image.img")
	for _, c := range []struct {
		name, words string
		body        []byte
	}{
		{"a foreign signature", "the key is not in the keyring", archive(r, "foreign.bmap.asc", "foreign.bmap", "image.img")},
		{"no signature", "not signed", archive(r, "image.img.bmap", "image.img")},
		{"a map of another image", "", archive(r, "image.img.bmap.sig", "image.img.bmap", "config.toml")},
		{"another document behind the signature", "expected image.img.bmap behind its signature", archive(r, "image.img.bmap.sig", "foreign.bmap", "image.img")},
		{"documents alone", "image", archive(r, "image.img.bmap.sig", "image.img.bmap")},
		{"an image first", "expected release.toml as the first member", archive(r, "image.img", "image.img.bmap.sig", "image.img.bmap")},
		{"no archive", "is no tar archive", r.Read("image.img")},
		{"nothing", "ends before", nil},
		{"truncated in the image", "unexpected EOF", bare[:len(bare)/2]},
	} {
		status, text := s.do("POST", "/upload", bytes.NewReader(c.body))
		if status != 422 || !strings.Contains(text, c.words) || !strings.Contains(text, "a hint") {
			t.Errorf("%s: %d %s; want 422 and %q", c.name, status, text, c.words)
		}
		if r.Next() != "A" {
			t.Fatalf("%s: slot %q boots next", c.name, r.Next())
		}
	}
	s.breakOff(bare)
	s.want(200, "restarts", "POST", "/upload", string(bare))
	if r.Next() != "B" {
		t.Errorf("after a good upload slot %q boots next", r.Next())
	}
	s.want(200, "restarts", "POST", "/upload", string(bare)) // nothing to do
	s.want(200, "restarts", "POST", "/upload", string(archive(r, "release.toml", "release.toml.asc", "up.img.bmap", "up.img")))
	if r.Next() != "A" {
		t.Errorf("after a release slot %q boots next", r.Next())
	}
	var status device.Status
	if _, text := s.do("GET", "/status", nil); json.Unmarshal([]byte(text), &status) != nil || status.Primary != "A" || status.Slots[0].Version != "8" {
		t.Errorf("the status is %s", text)
	}
	s.want(200, "restarts", "POST", "/boot", `{"slot":"B"}`)
	if r.Next() != "B" {
		t.Errorf("slot B was chosen, slot %q boots next", r.Next())
	}
	s.want(422, "", "POST", "/boot", `{"slot":"../etc"}`)
	s.want(200, "restarts", "POST", "/restart", `{}`)
}

// breakOff sends half of an upload and closes the connection; the event stream reports to another client why it ended.
func (s *served) breakOff(body []byte) {
	s.t.Helper()
	q, err := http.NewRequest("GET", s.url+"/events", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	answer, err := s.client.Do(q)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "data: ") { // the result before
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		s.t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST /upload HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: %s\r\nContent-Length: %d\r\n\r\n", answer.Request.Header.Get("Cookie"), len(body))
	_, _ = conn.Write(body[:len(body)/2])
	conn.Close()
	for lines.Scan() {
		if strings.Contains(lines.Text(), `"code":1`) {
			return
		}
	}
	s.t.Errorf("the event stream ends without a result: %v", lines.Err())
}

// idle is a device that is asked for nothing but an upload, which it reads to its end.
type idle struct{ begun chan struct{} }

func (idle) InstallURL(context.Context, string) error { return nil }
func (idle) BootOnce(context.Context, string) error   { return nil }
func (idle) Current(context.Context) (any, error)     { return struct{}{}, nil }
func (idle) WebCode() (string, error)                 { return "", nil }
func (i idle) InstallStream(_ context.Context, body io.Reader) error {
	if i.begun != nil {
		close(i.begun)
	}
	_, err := io.Copy(io.Discard, body)
	return err
}

// TestSession: nothing but the page is there without the code, and codes cannot be tried fast.
func TestSession(t *testing.T) {
	s := serve(t, idle{})
	s.carryOut()
	s.want(200, "<!doctype html>", "GET", "/", "")
	s.want(200, "use strict", "GET", "/page.js", "")
	for _, what := range []string{"GET /status", "GET /events", "GET /log", "POST /upload", "POST /address", "POST /boot", "POST /restart"} {
		method, path, _ := strings.Cut(what, " ")
		s.want(401, "enter the code", method, path, `{}`)
		s.want(401, "enter the code", method, path, `{}`, "Cookie", "updater-recovery=AAAA")
	}
	s.want(404, "", "GET", "/../../etc/passwd", "")
	s.want(404, "", "PUT", "/upload", "")
	s.want(400, "", "POST", "/code", `{"code":`)
	s.want(400, "", "POST", "/code", `{"code":"`+strings.Repeat("A", 1<<20)+`"}`)
	now := time.Now()
	s.server.Clock(func() time.Time { return now })
	for range 5 {
		s.want(403, "not the code", "POST", "/code", `{"code":"ABCD-2346"}`)
	}
	for range 3 {
		s.want(429, "try again in", "POST", "/code", `{"code":"`+code+`"}`)
	}
	now = now.Add(time.Second)
	s.want(403, "not the code", "POST", "/code", `{}`)
	s.want(429, "try again in", "POST", "/code", `{"code":"`+code+`"}`)
	now = now.Add(time.Second)
	s.login()
	s.want(200, "{}", "GET", "/status", "")
	s.want(400, "expected an address", "POST", "/address", `{"address":"file:///etc/passwd"}`)
	s.want(200, "restarts", "POST", "/address", `{"address":"http://127.0.0.1/i.img"}`)
}

// TestConfiguredCode: web_code is the code of the page, unless the file is missing, has a code that is easy to guess, or is not a file with a code.
func TestConfiguredCode(t *testing.T) {
	r, d := newDevice(t)
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	node := strings.TrimSpace(r.Sh("losetup -f --show disk.img"))
	t.Cleanup(func() { r.Sh("partx -d $0; losetup -d $0", node) })
	r.Sh("mkdir identity; partx -a $0; mke2fs -q -F -t ext4 $0p3", node)
	d.Config.Disk.Path = node
	d.Config.Recovery.WebCode = "PARTLABEL=rootfs_b:/web-code"
	place := func(content string) {
		r.Write("identity/web-code", []byte(content))
		r.Sh("mke2fs -q -F -t ext4 -d identity $0p3", node)
	}
	var logged string
	o := web.Options{Device: d, Log: func(format string, a ...any) { logged = fmt.Sprintf(format, a...) }}
	replaced := func(name, reason string) {
		t.Helper()
		logged = ""
		first, shown := o.Code()
		second, _ := o.Code()
		if len(first) != 9 || first == second || shown != "code "+first || !strings.Contains(logged, reason) {
			t.Errorf("%s: the codes %q, shown as %q, and %q; logged %q, want %q", name, first, shown, second, logged, reason)
		}
	}
	replaced("no file", "web-code")
	place("AB-12 cd!\n")
	replaced("a short code", "has 6 letters and digits, expected 8 or more")
	place(strings.Repeat("A", 257))
	replaced("a large file", "257 bytes")
	d.Config.Recovery.WebCode = "/data:/web-code"
	replaced("a file below a mount point", "below a mount point")
	d.Config.Recovery.WebCode = ""
	replaced("none", "")

	d.Config.Recovery.WebCode = "PARTLABEL=rootfs_b:/web-code"
	place("serial-4711\n")
	logged = ""
	own, shown := o.Code()
	if own != "serial-4711" || strings.Contains(shown, own) || logged != "" {
		t.Fatalf("the code is %q, shown as %q; logged %q", own, shown, logged)
	}
	s := serveWith(t, d, own)
	now := time.Now()
	s.server.Clock(func() time.Time { return now })
	s.want(401, "enter the code", "GET", "/status", "")
	for range 5 {
		s.want(403, "not the code", "POST", "/code", `{"code":"serial-4712"}`)
	}
	s.want(429, "try again in", "POST", "/code", `{"code":"SERIAL 4711"}`)
	s.want(401, "enter the code", "GET", "/status", "")
	now = now.Add(time.Second)
	s.want(200, "", "POST", "/code", `{"code":"SERIAL 4711"}`)
	s.want(200, `"slots"`, "GET", "/status", "")
}

// TestForeign: requests that another page causes are refused, also those that a changed DNS answer leads here.
func TestForeign(t *testing.T) {
	s := serve(t, idle{})
	s.carryOut()
	s.login()
	own := strings.TrimPrefix(s.url, "http://")
	for _, c := range []struct {
		status  int
		headers []string
	}{
		{200, []string{"Origin", s.url}},
		{200, []string{"Origin", s.url, "Sec-Fetch-Site", "same-origin"}},
		{401, []string{"Host", "192.0.2.7"}}, // another address has no session
		{401, []string{"Host", "[2001:db8::7]:80"}},
		{403, []string{"Origin", "http://evil.example"}},
		{403, []string{"Origin", "null"}},
		{403, []string{"Origin", "https://" + own}},
		{403, []string{"Sec-Fetch-Site", "cross-site"}},
		{403, []string{"Sec-Fetch-Site", "same-site"}},
		{421, []string{"Host", "evil.example"}},
		{421, []string{"Host", "evil.example", "Origin", "http://evil.example", "Sec-Fetch-Site", "same-origin"}},
		{421, []string{"Host", "127.0.0.1.evil.example:80"}},
	} {
		s.want(c.status, "", "POST", "/restart", `{}`, c.headers...)
	}
}

// TestTwoClients: while one uploads, another one is refused, and the first one is not disturbed.
func TestTwoClients(t *testing.T) {
	d := idle{make(chan struct{})}
	s := serve(t, d)
	s.carryOut()
	s.login()
	body, send := io.Pipe()
	first := make(chan int)
	go func() {
		status, _ := s.do("POST", "/upload", body)
		first <- status
	}()
	_, _ = send.Write([]byte("first"))
	<-d.begun
	s.want(409, "busy", "POST", "/upload", "second")
	s.want(200, "{}", "GET", "/status", "")
	send.Close()
	if status := <-first; status != 200 {
		t.Errorf("the first upload: %d", status)
	}
}

// TestSlowClients: clients that send their headers or an upload too slowly are cut off; the page answers others meanwhile.
func TestSlowClients(t *testing.T) {
	s := serve(t, idle{})
	s.carryOut()
	s.login()
	s.server.Patience(300 * time.Millisecond)
	var slow []net.Conn
	for range 20 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-")
		slow = append(slow, conn)
	}
	s.want(200, "{}", "GET", "/status", "")
	body, send := io.Pipe()
	go func() {
		for { // one byte at a time, forever
			if _, err := send.Write([]byte("x")); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	status, text := s.do("POST", "/upload", body)
	if status != 422 || !strings.Contains(text, "less than 64 KiB") {
		t.Errorf("a slow upload: %d %s", status, text)
	}
	body.Close()
	for _, conn := range slow {
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("a connection with slow headers: %v", err)
		}
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nX: %s", strings.Repeat("a", 16<<10))
	if line, _ := bufio.NewReader(conn).ReadString('\n'); !strings.Contains(line, " 431 ") {
		t.Errorf("16 KiB of headers: %q", line)
	}
}
