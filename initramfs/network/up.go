package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Timeouts. A switch with spanning tree starts forwarding 30 s after the carrier appears.
const (
	carrierTimeout = 15 * time.Second
	dhcpTimeout    = 45 * time.Second
	dhcpTry        = 3 * time.Second
	entropyTimeout = 30 * time.Second
)

// Options configure [Up].
type Options struct {
	Settings    []Setting
	Nameservers []netip.Addr                  // take precedence over learned ones
	ResolvConf  string                        // "" is /etc/resolv.conf, which Go's resolver rereads every five seconds
	Log         func(format string, a ...any) // prints one line; the format has no newline
}

// State is the result of [Up].
type State struct {
	Valid time.Time    // end of the shortest lease; zero if no lease ends
	NTP   []netip.Addr // time servers, from settings and leases
}

// learned is the result of one method.
type learned struct {
	address    netip.Prefix
	gateway    netip.Addr
	dns, ntp   []netip.Addr
	validFor   time.Duration // 0 is forever
	how, iface string
}

// Up configures every interface with a carrier and writes resolv.conf. It waits up to 15 seconds for a carrier and up to 45
// seconds for DHCP. If no interface gets an address, the error lists the cause for each. Call it again before State.Valid to
// renew leases.
func Up(ctx context.Context, o Options) (State, error) {
	if err := seeded(ctx, o); err != nil {
		o.Log("network: %v", err)
	}
	links, err := carriers(ctx)
	if err != nil {
		return State{}, err
	}
	var mu sync.Mutex
	var got []learned
	var errs []error
	var wg sync.WaitGroup
	for i, link := range links {
		for _, set := range pick(o.Settings, link.Attrs().Name) {
			wg.Go(func() {
				list, err := configure(ctx, link, set, 100*(i+1))
				mu.Lock()
				defer mu.Unlock()
				got = append(got, list...)
				if err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", link.Attrs().Name, err))
				}
			})
		}
	}
	wg.Wait()
	if len(got) == 0 {
		return State{}, fmt.Errorf("no network: %w", errors.Join(errs...))
	}
	for _, e := range errs {
		o.Log("network: %v", e)
	}
	return finish(o, got)
}

// seeded waits until the kernel's random number generator is seeded. The DHCP library polls without blocking, which never
// starts the seeding by the kernel itself and would spin forever.
func seeded(ctx context.Context, o Options) error {
	done := make(chan struct{})
	go func() {
		var b [16]byte
		_, _ = unix.Getrandom(b[:], 0)
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(entropyTimeout):
		// Transaction IDs of DHCP need not be secret.
		return errors.Join(fmt.Errorf("random number generator not seeded after %s; HTTPS waits for it", entropyTimeout), os.Setenv("UROOT_NOHWRNG", "1"))
	}
}

// linkTypes are the types of interfaces to configure; an initramfs has no tunnels or bridges.
var linkTypes = []string{"device", "veth"}

// carriers sets every interface up and waits for the first carrier, then two seconds for the others.
func carriers(ctx context.Context) ([]netlink.Link, error) {
	var with []netlink.Link
	for deadline, seen := time.Now().Add(carrierTimeout), false; ; {
		links, err := netlink.LinkList()
		if err != nil {
			return nil, fmt.Errorf("listing the network interfaces: %w", err)
		}
		links = slices.DeleteFunc(links, func(l netlink.Link) bool {
			return l.Attrs().Flags&net.FlagLoopback != 0 || !slices.Contains(linkTypes, l.Type())
		})
		with = with[:0]
		var names []string
		for _, l := range links {
			a := l.Attrs()
			names = append(names, a.Name)
			if a.Flags&net.FlagUp == 0 {
				_ = netlink.LinkSetUp(l)
			}
			if a.RawFlags&unix.IFF_LOWER_UP != 0 {
				with = append(with, l)
			}
		}
		if len(with) == len(links) && len(with) > 0 || seen && time.Now().After(deadline) {
			return with, nil
		}
		if len(with) > 0 && !seen {
			seen, deadline = true, time.Now().Add(2*time.Second)
		}
		if time.Now().After(deadline) {
			if len(names) == 0 {
				return nil, errors.New("no network: no network interface found; does the initramfs contain its module?")
			}
			return nil, fmt.Errorf("no network: no carrier on %s within %s; is the cable plugged in?", strings.Join(names, ", "), carrierTimeout)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// configure applies a setting to an interface. For the method any, one family is enough.
func configure(ctx context.Context, link netlink.Link, set Setting, metric int) ([]learned, error) {
	ctx, cancel := context.WithTimeout(ctx, dhcpTimeout)
	defer cancel()
	var ways []func(context.Context, netlink.Link) (learned, error)
	switch set.Method {
	case "off":
		return nil, nil
	case "static":
		ways = append(ways, func(context.Context, netlink.Link) (learned, error) {
			return learned{address: set.Address, gateway: set.Gateway, how: "static"}, nil
		})
	case "dhcp":
		ways = append(ways, dhcp4)
	case "dhcp6":
		ways = append(ways, dhcp6)
	default:
		ways = append(ways, dhcp4, dhcp6)
	}
	type result struct {
		learned
		err error
	}
	results := make(chan result, len(ways))
	for _, way := range ways {
		go func() {
			l, err := way(ctx, link)
			results <- result{l, err}
		}()
	}
	var got []learned
	var errs []error
	patience := ctx.Done()
	for range ways {
		select {
		case r := <-results:
			if r.err == nil {
				r.iface = link.Attrs().Name
				r.dns, r.ntp = append(slices.Clone(set.DNS), r.dns...), append(slices.Clone(set.NTP), r.ntp...)
				r.err = apply(link, r.learned, metric)
			}
			if r.err != nil {
				errs = append(errs, r.err)
				continue
			}
			got = append(got, r.learned)
			soon, stop := context.WithTimeout(ctx, dhcpTry) // the other family gets less time
			defer stop()
			patience = soon.Done()
		case <-patience:
			return got, errors.Join(errs...)
		}
	}
	return got, errors.Join(errs...)
}

// apply sets address and default route. A lower metric takes precedence.
func apply(link netlink.Link, l learned, metric int) error {
	if l.address.IsValid() {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: l.address.Addr().AsSlice(), Mask: net.CIDRMask(l.address.Bits(), l.address.Addr().BitLen())}}
		if err := netlink.AddrReplace(link, addr); err != nil {
			return fmt.Errorf("setting address %s: %w", l.address, err)
		}
	}
	if !l.gateway.IsValid() {
		return nil
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: l.gateway.AsSlice(), Priority: metric}
	if !l.address.Contains(l.gateway) {
		route.Flags = int(netlink.FLAG_ONLINK) // gateways outside the subnet, as used by some hosting providers
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("setting the gateway %s: %w", l.gateway, err)
	}
	return nil
}

// finish logs the configuration and writes resolv.conf.
func finish(o Options, got []learned) (State, error) {
	var st State
	dns := slices.Clone(o.Nameservers)
	for _, l := range got {
		dns = append(dns, l.dns...)
		st.NTP = append(st.NTP, l.ntp...)
		if l.validFor > 0 {
			if until := time.Now().Add(l.validFor); st.Valid.IsZero() || until.Before(st.Valid) {
				st.Valid = until
			}
		}
		o.Log("network: %s has %s, gateway %s (%s)", l.iface, text(l.address.IsValid(), l.address), text(l.gateway.IsValid(), l.gateway), l.how)
	}
	var b strings.Builder
	var seen []netip.Addr
	for _, a := range dns {
		if !slices.Contains(seen, a) && len(seen) < 3 { // the resolver uses three at most
			seen = append(seen, a)
			fmt.Fprintf(&b, "nameserver %s\n", a)
		}
	}
	if len(seen) == 0 {
		return st, nil // enough for URLs with an IP address
	}
	if err := os.WriteFile(cmp.Or(o.ResolvConf, "/etc/resolv.conf"), []byte(b.String()), 0o644); err != nil {
		return st, fmt.Errorf("writing the name servers: %w", err)
	}
	return st, nil
}

func text(valid bool, v fmt.Stringer) string {
	if !valid {
		return "none"
	}
	return v.String()
}
