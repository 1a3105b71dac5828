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

// The times that it allows. A switch with spanning tree takes 30 s to forward after the carrier is there.
const (
	carrierTimeout = 15 * time.Second
	dhcpTimeout    = 45 * time.Second
	dhcpTry        = 3 * time.Second
	entropyTimeout = 30 * time.Second
)

// Options are what Up needs.
type Options struct {
	Settings    []Setting
	Nameservers []netip.Addr                  // before those that are learned
	ResolvConf  string                        // "" is where Go's resolver looks, again every five seconds
	Log         func(format string, a ...any) // one line for people, without newline
}

// State is what was reached.
type State struct {
	Valid time.Time    // until when the shortest lease holds; zero is for ever
	NTP   []netip.Addr // time servers that were named
}

// learned is what one way of configuring gave.
type learned struct {
	address    netip.Prefix
	gateway    netip.Addr
	dns, ntp   []netip.Addr
	validFor   time.Duration // 0 is for ever
	how, iface string
}

// Up waits for carriers and configures every interface that has one. It returns once all have an answer or
// none is expected any more; without any address it is an error that says per interface why. It may be called
// again, when leases are about to end.
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

// seeded waits until the kernel's random numbers are. DHCP's library polls for them in a way that never
// starts the kernel's own seeding, and would spin for ever; TLS has to wait in any case.
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
		// The transaction number of DHCP need not be secret.
		return errors.Join(fmt.Errorf("the kernel has no randomness after %s; HTTPS has to wait for it", entropyTimeout), os.Setenv("UROOT_NOHWRNG", "1"))
	}
}

// linkTypes are the interfaces that lead outside; tunnels and the like are made by nobody here.
var linkTypes = []string{"device", "veth"}

// carriers sets every interface up and waits until at least one has a carrier, and a little for the others.
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
				return nil, errors.New("no network: there is no network interface that a packed module drives")
			}
			return nil, fmt.Errorf("no network: no carrier on %s within %s; is the cable in?", strings.Join(names, ", "), carrierTimeout)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// configure does what a setting says for an interface. Of both families one is enough.
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
			soon, stop := context.WithTimeout(ctx, dhcpTry) // the other family is not waited for as long
			defer stop()
			patience = soon.Done()
		case <-patience:
			return got, errors.Join(errs...)
		}
	}
	return got, errors.Join(errs...)
}

// apply sets address and route. Interfaces that come first are preferred.
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
		route.Flags = int(netlink.FLAG_ONLINK) // as some providers have it
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("setting the gateway %s: %w", l.gateway, err)
	}
	return nil
}

// finish writes resolv.conf and tells people what there is.
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
		if !slices.Contains(seen, a) && len(seen) < 3 { // the resolver takes three
			seen = append(seen, a)
			fmt.Fprintf(&b, "nameserver %s\n", a)
		}
	}
	if len(seen) == 0 {
		return st, nil // a URL with an address in it needs none
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
