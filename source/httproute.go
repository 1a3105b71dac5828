package source

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"
)

// maxRedirects bounds the redirects of one request.
const maxRedirects = 5

// router sends each request over one of three transports, which share no connections: to the host of the first address, and, for
// redirects to other hosts, one without client certificate and one that refuses local addresses as well.
type router struct {
	own, other, guarded *http.Transport
}

func newRouter(o HTTPOptions, config *tls.Config, proxy *url.URL) *router {
	transport := func(config *tls.Config, control func(network, address string, c syscall.RawConn) error) *http.Transport {
		t := &http.Transport{
			DialContext:            (&net.Dialer{Timeout: o.Stall, KeepAlive: 15 * time.Second, Control: control}).DialContext,
			TLSClientConfig:        config,
			TLSHandshakeTimeout:    o.Stall,
			DisableCompression:     true, // ranges and sizes refer to the bytes of the file
			MaxResponseHeaderBytes: 64 << 10,
			ReadBufferSize:         64 << 10,
			MaxIdleConnsPerHost:    4,
			IdleConnTimeout:        o.Stall,
		}
		if proxy != nil {
			t.Proxy = http.ProxyURL(proxy)
		}
		return t
	}
	anonymous := config.Clone()
	anonymous.Certificates = nil
	guard := refuseLocal
	if proxy != nil {
		guard = nil // the address is the proxy's
	}
	return &router{own: transport(config, nil), other: transport(anonymous, nil), guarded: transport(anonymous, guard)}
}

// RoundTrip implements http.RoundTripper.
func (r *router) RoundTrip(req *http.Request) (*http.Response, error) {
	o, _ := req.Context().Value(originKey{}).(*origin)
	switch {
	case o == nil || req.Response == nil || o.owns(req.URL):
		return r.own.RoundTrip(req)
	case o.local:
		return r.other.RoundTrip(req)
	}
	return r.guarded.RoundTrip(req)
}

// CloseIdleConnections is called by the method of http.Client.
func (r *router) CloseIdleConnections() {
	for _, t := range []*http.Transport{r.own, r.other, r.guarded} {
		t.CloseIdleConnections()
	}
}

// owns reports whether u is on the first host: the same port, or https in place of http.
func (o *origin) owns(u *url.URL) bool {
	host := hostPort(u)
	name, port, _ := net.SplitHostPort(o.host)
	return host == o.host || port == "80" && u.Scheme == "https" && host == net.JoinHostPort(name, "443")
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// redirect judges a redirect and removes the headers that could carry secrets of the old host.
func (c *Client) redirect(req *http.Request, via []*http.Request) error {
	from := via[len(via)-1].URL
	o, _ := req.Context().Value(originKey{}).(*origin)
	switch {
	case len(via) > maxRedirects:
		return refusef("more than %d redirects", maxRedirects)
	case req.URL.Scheme != "http" && req.URL.Scheme != "https":
		return refusef("redirect to the scheme %.20q, expected http or https", req.URL.Scheme)
	case from.Scheme == "https" && req.URL.Scheme != "https":
		return refusef("redirect from https to http")
	case o != nil && !o.local && !o.owns(req.URL) && isLocalName(req.URL.Hostname()):
		return refusef("redirect to the local address %.80q", req.URL.Hostname())
	}
	for _, secret := range []string{"Authorization", "Cookie", "Referer"} {
		req.Header.Del(secret)
	}
	c.authorize(req)
	return nil
}

// refuseLocal is a net.Dialer.Control that refuses addresses no server on the network may point to.
func refuseLocal(_, address string, _ syscall.RawConn) error {
	addr, err := netip.ParseAddrPort(address)
	if err != nil || isLocal(addr.Addr()) {
		return refusef("redirect to the local address %s", address)
	}
	return nil
}

// metadata are addresses of cloud metadata services outside the link-local ranges.
var metadata = []netip.Addr{netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("100.100.100.200"), netip.MustParseAddr("192.0.0.192")}

// isLocal reports whether an address is loopback, link-local, unspecified or a metadata service, also when embedded in IPv6.
func isLocal(a netip.Addr) bool {
	a = a.WithZone("").Unmap()
	if nat64 := netip.MustParsePrefix("64:ff9b::/96"); nat64.Contains(a) {
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	return slices.Contains(metadata, a) || a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.Is4() && a.As4()[0] == 0
}

// isLocalName reports whether a host name or address literal is local without asking a resolver.
func isLocalName(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return isLocal(a)
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}
