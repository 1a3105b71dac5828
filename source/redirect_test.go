package source_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"updater/source"
)

// A client certificate is sent to the host of the first address, and to no host that it redirects to.
func TestRedirectKeepsClientCertificate(t *testing.T) {
	noLeak(t)
	cert, key, pair := selfSigned(t, t.TempDir(), "127.0.0.1")
	var mu sync.Mutex
	shown := map[string]int{}
	server := func(name string, handler http.HandlerFunc) *httptest.Server {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			shown[name] += len(r.TLS.PeerCertificates)
			mu.Unlock()
			handler(w, r)
		}))
		pool := x509.NewCertPool()
		pool.AddCert(pair.Leaf)
		s.TLS = &tls.Config{ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool}
		s.StartTLS()
		t.Cleanup(s.Close)
		return s
	}
	var own *httptest.Server
	other := server("other", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/back" {
			http.Redirect(w, r, own.URL+"/x", http.StatusFound)
			return
		}
		_, _ = io.WriteString(w, "other")
	})
	own = server("own", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/away", "/back":
			http.Redirect(w, r, other.URL+r.URL.Path, http.StatusTemporaryRedirect)
		default:
			_, _ = io.WriteString(w, "own")
		}
	})
	c := client(t, source.HTTPOptions{CA: trust(t, own), ClientCert: cert, ClientKey: key})
	for path, want := range map[string]string{"/x": "own", "/away": "other", "/back": "own"} {
		for range 2 { // also with connections that are open
			if got, err := c.Fetch(t.Context(), own.URL+path, 100); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v", path, got, err)
			}
		}
	}
	if shown["own"] != 8 || shown["other"] != 0 {
		t.Errorf("the certificate was shown to its host %d times, to the other %d times; want 8 and 0", shown["own"], shown["other"])
	}
}

// A server on the network cannot point at addresses of the device itself.
func TestRedirectToLocalAddress(t *testing.T) {
	noLeak(t)
	data := []byte("metadata")
	target := serve(t, data, nil)
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(target.URL, "http://"))
	var location string
	remote := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/image" {
			w.Header().Set("Location", location)
			w.WriteHeader(http.StatusFound)
			return
		}
		_, _ = w.Write(data)
	})
	proxy := httptest.NewServer(remote) // stands for every server
	defer proxy.Close()
	proxied := client(t, source.HTTPOptions{Proxy: proxy.URL})
	for _, location = range []string{
		"http://127.0.0.1:" + port + "/x", "http://localhost:" + port + "/x", "http://a.localhost./x", "http://[::1]/x",
		"http://[::ffff:127.0.0.1]/x", "http://0.0.0.0/x",
		"http://169.254.169.254/latest/meta-data", "http://[fe80::1%25eth0]/x", "http://[fd00:ec2::254]/x", "http://100.100.100.200/x", "http://[64:ff9b::7f00:1]/x",
	} {
		_, err := proxied.Fetch(t.Context(), "http://updates.example.com/image?sig=secret", 100)
		if _, ok := errors.AsType[*source.FetchError](err); !ok || !strings.Contains(err.Error(), "local address") || strings.Contains(err.Error(), "secret") {
			t.Errorf("redirect to %s: %v; want a FetchError", location, err)
		}
	}
	for _, location = range []string{"http://updates.example.com/x", "http://cdn.example.net/x", "http://192.0.2.1/x"} {
		if _, err := proxied.Fetch(t.Context(), "http://updates.example.com/image", 100); err != nil {
			t.Errorf("redirect to %s: %v", location, err)
		}
	}
	location = target.URL + "/x"
	near := httptest.NewServer(remote)
	defer near.Close()
	c := client(t, source.HTTPOptions{})
	for _, host := range []string{"127.0.0.1", "localhost"} {
		first := strings.Replace(near.URL, "127.0.0.1", host, 1) + "/image"
		if got, err := c.Fetch(t.Context(), first, 100); err != nil || string(got) != "metadata" {
			t.Errorf("from the local %s: %q, %v", first, got, err)
		}
	}
	far := ownAddress(t)
	l, err := net.Listen("tcp", net.JoinHostPort(far, "0"))
	if err != nil {
		t.Skip(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: remote}}
	s.Start()
	defer s.Close()
	for _, location = range []string{target.URL + "/x", "http://localhost:" + port + "/x"} {
		if _, err := c.Fetch(t.Context(), s.URL+"/image", 100); err == nil || !strings.Contains(err.Error(), "local address") {
			t.Errorf("from %s to %s: %v", s.URL, location, err)
		}
	}
	location = s.URL + "/x"
	if _, err := c.Fetch(t.Context(), s.URL+"/image", 100); err != nil {
		t.Errorf("from %s to itself: %v", s.URL, err)
	}
}

// ownAddress is an address of this machine that is not local in the sense of redirects.
func ownAddress(t *testing.T) string {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Skip(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	t.Skip("this machine has no address on a network")
	return ""
}
