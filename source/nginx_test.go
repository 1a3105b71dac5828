package source_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"updater/source"
)

// nginx starts the real server on a folder, with TLS, and returns its https address and the certificate to trust.
func nginx(t *testing.T, dir, extra string) (address, ca string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = l.Addr().String()
	l.Close()
	return nginxAt(t, address, dir, extra)
}

// nginxAt starts it at an address, through a program such as ip netns exec.
func nginxAt(t *testing.T, address, dir, extra string, through ...string) (url, ca string) {
	t.Helper()
	path, err := exec.LookPath("nginx")
	if err != nil {
		if path = "/usr/sbin/nginx"; !exists(path) {
			t.Skip("nginx is not installed")
		}
	}
	work := t.TempDir()
	host, _, _ := net.SplitHostPort(address)
	cert, key, _ := selfSigned(t, work, host)
	user := ""
	if os.Getuid() == 0 {
		user = "user root;"
	}
	conf := fmt.Sprintf(`%s worker_processes 1; pid %s/pid; error_log %s/error.log;
events { worker_connections 64; }
http {
	access_log %s/access.log; types { } default_type application/octet-stream; sendfile on;
	client_body_temp_path %[2]s; proxy_temp_path %[2]s; fastcgi_temp_path %[2]s; uwsgi_temp_path %[2]s; scgi_temp_path %[2]s;
	gzip on; gzip_types *; gzip_min_length 0;
	server { listen %[5]s ssl; ssl_certificate %[6]s; ssl_certificate_key %[7]s; root %[8]s; %[9]s }
}`, user, work, work, work, address, cert, key, dir, extra)
	file := filepath.Join(work, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append(through, path, "-p", work, "-c", file, "-e", filepath.Join(work, "error.log"), "-g", "daemon off; master_process off;")
	cmd := exec.Command(args[0], args[1:]...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for range 200 {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return "https://" + address, cert
		}
		time.Sleep(25 * time.Millisecond)
	}
	log, _ := os.ReadFile(filepath.Join(work, "error.log"))
	t.Fatalf("nginx does not come up: %s%s", errs.String(), log)
	return "", ""
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

// link is a bad link to a server: each connection lets some bytes through, and then breaks or goes dead.
type link struct {
	net.Listener
	target string
	bytes  atomic.Int64 // that a connection lets through
	dead   atomic.Bool  // whether it goes dead instead of breaking
	made   atomic.Int64 // connections
	wait   sync.WaitGroup
	done   chan struct{}
}

func badLink(t *testing.T, target string) *link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &link{Listener: l, target: target, done: make(chan struct{})}
	k.wait.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			k.made.Add(1)
			k.wait.Go(func() { k.carry(in) })
		}
	})
	t.Cleanup(func() { close(k.done); l.Close(); k.wait.Wait() })
	return k
}

func (k *link) carry(in net.Conn) {
	defer in.Close()
	out, err := net.Dial("tcp", k.target)
	if err != nil {
		return
	}
	defer out.Close()
	go func() { _, _ = io.Copy(out, in) }()
	n, err := io.CopyN(in, out, k.bytes.Load())
	if err == nil && n > 0 && k.dead.Load() {
		<-k.done // neither bytes nor an end
	}
}

// A real server, throttled, over a link that breaks and goes dead: every codec comes through whole.
func TestNginx(t *testing.T) {
	noLeak(t)
	data := sample(2 << 20)
	dir := t.TempDir()
	for _, codec := range []string{"cat", "gzip", "zstd", "xz", "lz4", "bzip2"} {
		packed := data
		if codec != "cat" {
			packed = compress(t, data, codec, "-c")
		}
		if err := os.WriteFile(filepath.Join(dir, "image."+codec), packed, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	address, ca := nginx(t, dir, "limit_rate_after 64k; limit_rate 8m; location /none { max_ranges 0; alias "+dir+"/; } location /away { return 302 /image.gzip; }")
	k := badLink(t, strings.TrimPrefix(address, "https://"))
	c := client(t, source.HTTPOptions{CA: ca, Stall: 400 * time.Millisecond, GiveUp: 3 * time.Second, Warn: t.Logf})
	bad := "https://" + k.Addr().String()
	for i, name := range []string{"image.cat", "image.gzip", "image.zstd", "image.xz", "image.lz4", "image.bzip2"} {
		k.bytes.Store(300_000)
		k.dead.Store(i%3 == 0)
		before := k.made.Load()
		got, err := get(t, c, bad+"/"+name)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(data))
		}
		if k.made.Load() < before+2 {
			t.Errorf("%s: %d connections; the link did not break", name, k.made.Load()-before)
		}
	}
	k.bytes.Store(1 << 30)
	if got, err := get(t, c, bad+"/away"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("redirected: %d bytes, %v", len(got), err)
	}
	k.bytes.Store(300_000)
	k.dead.Store(false)
	c.Close() // the connection that does not break
	if _, err := get(t, c, bad+"/none/image.cat"); err == nil || !strings.Contains(err.Error(), "serves no ranges") {
		t.Errorf("a server without ranges, cut: %v", err)
	}
	_, err := get(t, c, address+"/missing")
	if e, ok := errors.AsType[*source.FetchError](err); !ok || e.Status != 404 {
		t.Errorf("missing: %v; want status 404", err)
	}
}

// The device gets another address in the middle of a transfer, as a modem does: the old connection is not closed, but silent for ever.
func TestAddressChange(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	noLeak(t)
	ns, near := fmt.Sprintf("updater-%d", os.Getpid()), fmt.Sprintf("upd%d", os.Getpid()%100000)
	ip := func(args ...string) error {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %v: %w: %s", args, err, out)
		}
		return nil
	}
	if err := ip("netns", "add", ns); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = ip("link", "del", near); _ = ip("netns", "del", ns) })
	for _, args := range [][]string{
		{"link", "add", near, "type", "veth", "peer", "name", "far", "netns", ns},
		{"addr", "add", "198.18.77.1/24", "dev", near}, {"link", "set", near, "up"},
		{"-n", ns, "addr", "add", "198.18.77.2/24", "dev", "far"}, {"-n", ns, "link", "set", "far", "up"},
	} {
		if err := ip(args...); err != nil {
			t.Skip(err)
		}
	}
	data := sample(3 << 20)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "image"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	address, ca := nginxAt(t, "198.18.77.2:8443", dir, "limit_rate 4m;", "ip", "netns", "exec", ns)
	var told atomic.Int64
	c := client(t, source.HTTPOptions{CA: ca, Stall: time.Second, Warn: func(f string, a ...any) { told.Add(1); t.Logf(f, a...) }})
	img, err := c.Open(t.Context(), address+"/image", source.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	got := make([]byte, len(data))
	if _, err := io.ReadFull(img, got[:1<<20]); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"addr", "del", "198.18.77.1/24", "dev", near}, {"addr", "add", "198.18.77.9/24", "dev", near}} {
		if err := ip(args...); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.ReadFull(img, got[1<<20:]); err != nil || !bytes.Equal(got, data) {
		t.Errorf("after the change: %v", err)
	}
	if err := img.End(); err != nil {
		t.Error(err)
	}
	if told.Load() == 0 {
		t.Error("the old connection went on")
	}
}
