package source

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"time"
)

// HTTPOptions configure a [Client]. The zero value is the default. The environment is ignored.
type HTTPOptions struct {
	Proxy      string        // URL of an HTTP proxy; "" means none
	CA         string        // PEM file of the only roots to trust; "" is the system's
	ClientCert string        // PEM file of a client certificate and its chain; "" means none
	ClientKey  string        // PEM file of its key
	TokenFile  string        // file with a token; "" means none
	TokenType  string        // of the Authorization header; "" is Bearer
	TokenHost  string        // the only host (and port, unless 443) to receive the token, over https only
	Stall      time.Duration // abandons a request without a byte for so long, and retries; 0 is 30 s
	GiveUp     time.Duration // ends a download without a byte for so long; 0 is 5 min
	MaxRate    int64         // of all downloads together; bytes per second, 0 is no limit
	MinRate    int64         // ends a download slower than this on average over GiveUp; bytes per second, 0 is 1 KiB/s, negative is no limit
	Timeout    time.Duration // bounds a download as a whole; 0 is 24 h
	RetryDelay time.Duration // before the first retry; it doubles up to 30 s; 0 is 1 s
	MaxSize    int64         // refuses larger files; bytes, 0 is 64 GiB

	Now  func() time.Time              // time for judging certificates; nil is the system clock
	Warn func(format string, a ...any) // receives retries and oddities of the server; nil discards them
}

// Limits of files, in bytes.
const (
	maxToken = 16 << 10
	maxRoots = 4 << 20
)

func (o HTTPOptions) withDefaults() HTTPOptions {
	setDefault(&o.Stall, 30*time.Second)
	setDefault(&o.GiveUp, 5*time.Minute)
	setDefault(&o.Timeout, 24*time.Hour)
	setDefault(&o.RetryDelay, time.Second)
	setDefault(&o.MinRate, 1<<10)
	setDefault(&o.MaxSize, 64<<30)
	if o.Warn == nil {
		o.Warn = func(string, ...any) {}
	}
	return o
}

func setDefault[T ~int64](option *T, value T) {
	if *option == 0 {
		*option = value
	}
}

// A Client downloads files and posts messages over HTTP/1.1. It is safe for concurrent use. Close it after the images it opened.
//
// A download survives broken connections, busy servers and servers that implement ranges badly: it asks for parts, then for the
// rest without If-Range, then for the whole file, of which it drops the bytes that it has. It therefore may combine bytes of two
// versions of a file of the same size; a signed map detects that. Redirects are followed within limits: never from https to http,
// and to loopback and link-local addresses only from one of those. Token and client certificate are sent to the first host only.
type Client struct {
	o     HTTPOptions
	http  *http.Client
	token string
	pace  Pace
}

// NewClient returns a client with the options. It reads the files they name.
func NewClient(o HTTPOptions) (*Client, error) {
	c := &Client{o: o.withDefaults(), pace: Pace{Rate: o.MaxRate}}
	var proxy *url.URL
	var err error
	if o.Proxy != "" {
		proxy, err = url.Parse(o.Proxy)
		if err != nil || proxy.Host == "" || proxy.Scheme != "http" && proxy.Scheme != "https" {
			return nil, errors.New("invalid proxy, expected a URL such as http://proxy.example.com:3128")
		}
	}
	config, err := tlsConfig(o)
	if err != nil {
		return nil, err
	}
	if o.TokenFile != "" {
		if c.token, err = readToken(o.TokenFile, o.TokenHost); err != nil {
			return nil, err
		}
	}
	c.http = &http.Client{Transport: newRouter(c.o, config, proxy), CheckRedirect: c.redirect}
	return c, nil
}

// Close closes idle connections.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

func tlsConfig(o HTTPOptions) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, Time: o.Now}
	if o.CA != "" {
		pem, err := ReadFile(o.CA, maxRoots)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: no PEM certificate found", o.CA)
		}
	}
	if (o.ClientCert == "") != (o.ClientKey == "") {
		return nil, errors.New("a client certificate needs its key, and a key its certificate")
	}
	if o.ClientCert != "" {
		pair, err := tls.LoadX509KeyPair(o.ClientCert, o.ClientKey)
		if err != nil {
			return nil, fmt.Errorf("client certificate %s: %w", o.ClientCert, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// readToken reads a bearer token: one line of b64token characters (RFC 6750, section 2.1).
func readToken(path, host string) (string, error) {
	if host == "" {
		return "", fmt.Errorf("token %s: no host to send it to", path)
	}
	data, err := ReadFile(path, maxToken)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(data))
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/="
	if token == "" || strings.Trim(token, alphabet) != "" {
		return "", fmt.Errorf("%s: invalid bearer token, expected one line of letters, digits and -._~+/=", path)
	}
	return token, nil
}

// request returns a request for an address, with the headers every request carries.
func (c *Client) request(ctx context.Context, method string, u *url.URL) (*http.Request, error) {
	req, err := http.NewRequestWithContext(withOrigin(ctx, u, c.o.Proxy != ""), method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "updater")
	c.authorize(req)
	return req, nil
}

// authorize adds the token if the request goes to its host over https.
func (c *Client) authorize(req *http.Request) {
	if c.token != "" && req.URL.Scheme == "https" && (req.URL.Host == c.o.TokenHost || req.URL.Host == c.o.TokenHost+":443") {
		req.Header.Set("Authorization", cmp.Or(c.o.TokenType, "Bearer")+" "+c.token)
	}
}

// origin is the basis for judging redirects of a request.
type origin struct {
	host  string // of the first address, with port
	local bool   // whether it is a loopback or link-local address
}

type originKey struct{}

func withOrigin(ctx context.Context, u *url.URL, proxied bool) context.Context {
	o := &origin{host: hostPort(u), local: isLocalName(u.Hostname())}
	ctx = context.WithValue(ctx, originKey{}, o)
	if proxied { // the connection leads to the proxy
		return ctx
	}
	first := true
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if addr, ok := info.Conn.RemoteAddr().(*net.TCPAddr); first && ok {
			o.local = isLocal(addr.AddrPort().Addr())
		}
		first = false
	}})
}
