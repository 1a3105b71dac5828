package source

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// HTTPOptions say how images come from http:// and https:// addresses. The zero value is the default. The
// environment is never asked for anything.
type HTTPOptions struct {
	Proxy      string        // address of an HTTP proxy; "" is none
	CA         string        // PEM file of the only roots to trust; "" is the system's
	ClientCert string        // PEM file of a client certificate and its chain; "" is none
	ClientKey  string        // PEM file of its key
	TokenFile  string        // file with a bearer token; "" is none
	TokenHost  string        // the only host (and port, unless 443) that gets the token, over https only
	Stall      time.Duration // a server silent for so long is given up, and asked anew; 0 is 30 s
	GiveUp     time.Duration // ends a download that has got no byte for so long; 0 is 5 min
	Timeout    time.Duration // ends a download in all; 0 is 24 h
	RetryDelay time.Duration // before the first new request, doubled for every other up to 30 s; 0 is 1 s
	MaxSize    int64         // refuses a larger file; bytes, 0 is 64 GiB

	Now  func() time.Time              // judges certificates; nil is the system's clock
	Warn func(format string, a ...any) // is told of every new request; nil tells nobody
}

// maxRedirects bounds the redirects of one request.
const maxRedirects = 5

// maxToken bounds the token file, in bytes.
const maxToken = 16 << 10

func (o HTTPOptions) withDefaults() HTTPOptions {
	for d, value := range map[*time.Duration]time.Duration{
		&o.Stall: 30 * time.Second, &o.GiveUp: 5 * time.Minute, &o.Timeout: 24 * time.Hour, &o.RetryDelay: time.Second,
	} {
		if *d == 0 {
			*d = value
		}
	}
	if o.MaxSize == 0 {
		o.MaxSize = 64 << 30
	}
	if o.Warn == nil {
		o.Warn = func(string, ...any) {}
	}
	return o
}

// A Client fetches over HTTP/1.1. It is safe for concurrent use. The caller closes it after all that it opened.
type Client struct {
	o     HTTPOptions
	http  *http.Client
	token string
}

// headers sets what every request of the client carries.
func (c *Client) headers(req *http.Request) {
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "updater")
	c.authorize(req)
}

// NewClient reads the files that the options name.
func NewClient(o HTTPOptions) (*Client, error) {
	c := &Client{o: o.withDefaults()}
	config := &tls.Config{MinVersion: tls.VersionTLS12, Time: o.Now}
	transport := &http.Transport{
		DialContext:            (&net.Dialer{Timeout: c.o.Stall, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    c.o.Stall,
		DisableCompression:     true, // the bytes are the file's, for ranges and for the size
		MaxResponseHeaderBytes: 64 << 10,
		ReadBufferSize:         64 << 10,
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        c.o.Stall,
	}
	c.http = &http.Client{Transport: transport, CheckRedirect: c.redirect}
	var err error
	if o.Proxy != "" {
		proxy, err := url.Parse(o.Proxy)
		if err != nil || proxy.Host == "" || proxy.Scheme != "http" && proxy.Scheme != "https" {
			return nil, errors.New("the proxy is no address such as http://proxy.example.com:3128")
		}
		transport.Proxy = http.ProxyURL(proxy)
	}
	if o.CA != "" {
		if config.RootCAs, err = readRoots(o.CA); err != nil {
			return nil, err
		}
	}
	if (o.ClientCert == "") != (o.ClientKey == "") {
		return nil, errors.New("a client certificate and its key need each other")
	}
	if o.ClientCert != "" {
		pair, err := tls.LoadX509KeyPair(o.ClientCert, o.ClientKey)
		if err != nil {
			return nil, fmt.Errorf("client certificate %s: %w", o.ClientCert, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	if o.TokenFile != "" {
		if c.token, err = readToken(o.TokenFile, o.TokenHost); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Close closes idle connections.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

func readRoots(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate in PEM", path)
	}
	return pool, nil
}

// readToken reads a bearer token (RFC 6750, section 2.1): one line of b64token characters.
func readToken(path, host string) (string, error) {
	if host == "" {
		return "", fmt.Errorf("the token of %s is for no host; it may only be sent to one that is named", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(data))
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/="
	if token == "" || len(token) > maxToken || strings.Trim(token, alphabet) != "" {
		return "", fmt.Errorf("%s is no bearer token: expected one line of up to %d letters, digits and -._~+/=", path, maxToken)
	}
	return token, nil
}

// request makes a GET of an address, with the token where it may go.
func (c *Client) request(ctx context.Context, u *url.URL) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	c.headers(req)
	return req, nil
}

// authorize sends the token to its host only, and never in the clear.
func (c *Client) authorize(req *http.Request) {
	if c.token != "" && req.URL.Scheme == "https" && (req.URL.Host == c.o.TokenHost || req.URL.Host == c.o.TokenHost+":443") {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
}

// redirect judges one redirect. Whatever the library has carried over that could tell the new host a secret
// of the old one is taken away.
func (c *Client) redirect(req *http.Request, via []*http.Request) error {
	from := via[len(via)-1].URL
	switch {
	case len(via) > maxRedirects:
		return refusef("it redirects more than %d times", maxRedirects)
	case req.URL.Scheme != "http" && req.URL.Scheme != "https":
		return refusef("it redirects to %s, which is neither http nor https", req.URL.Redacted())
	case from.Scheme == "https" && req.URL.Scheme != "https":
		return refusef("it redirects from https to %s", req.URL.Redacted())
	}
	for _, secret := range []string{"Authorization", "Cookie", "Referer"} {
		req.Header.Del(secret)
	}
	c.authorize(req)
	return nil
}

// ParseURL tells an address from a path: ok is whether name begins with http:// or https://. An address
// without a host is an error.
func ParseURL(name string) (u *url.URL, ok bool, err error) {
	lower := strings.ToLower(name)
	if !strings.HasPrefix(lower, "http://") && !strings.HasPrefix(lower, "https://") {
		return nil, false, nil
	}
	u, err = url.Parse(name)
	if err != nil || u.Host == "" {
		return nil, true, fmt.Errorf("%.200q is no address such as https://updates.example.com/image.img.zst", name)
	}
	u.Fragment = ""
	return u, true, nil
}
