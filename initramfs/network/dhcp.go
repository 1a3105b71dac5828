package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/dhcpv6/nclient6"
	"github.com/vishvananda/netlink"
)

// dhcp4 requests an IPv4 lease (RFC 2131).
func dhcp4(ctx context.Context, link netlink.Link) (learned, error) {
	client, err := nclient4.New(link.Attrs().Name, nclient4.WithTimeout(dhcpTry), nclient4.WithRetry(int(dhcpTimeout/dhcpTry)))
	if err != nil {
		return learned{}, fmt.Errorf("DHCP: %w", err)
	}
	defer client.Close() //nolint:errcheck // only the lease matters
	lease, err := client.Request(ctx, dhcpv4.WithRequestedOptions(
		dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionNTPServers))
	if err != nil {
		return learned{}, fmt.Errorf("DHCP: %w", err)
	}
	return fromLease(lease.ACK)
}

func fromLease(ack *dhcpv4.DHCPv4) (learned, error) {
	addr, ok := netip.AddrFromSlice(ack.YourIPAddr.To4())
	if !ok || addr.IsUnspecified() || addr.IsLoopback() || addr.IsMulticast() {
		return learned{}, fmt.Errorf("DHCP: the server offers %s, expected a unicast address", ack.YourIPAddr)
	}
	bits, size := ack.SubnetMask().Size()
	if size != 32 {
		bits, _ = ack.YourIPAddr.DefaultMask().Size()
	}
	l := learned{
		address: netip.PrefixFrom(addr, bits), dns: addrs(ack.DNS()), ntp: addrs(ack.NTPServers()),
		validFor: ack.IPAddressLeaseTime(time.Hour), how: "DHCP",
	}
	if routers := addrs(ack.Router()); len(routers) > 0 {
		l.gateway = routers[0]
	}
	return l, nil
}

// dhcp6 requests an IPv6 lease and name servers (RFC 8415). Without an answer it uses the address the kernel configured from
// router advertisements.
func dhcp6(ctx context.Context, link netlink.Link) (learned, error) {
	if err := linkLocal(ctx, link); err != nil {
		return learned{}, err
	}
	client, err := nclient6.New(link.Attrs().Name, nclient6.WithTimeout(dhcpTry), nclient6.WithRetry(2))
	if err != nil {
		return learned{}, fmt.Errorf("DHCPv6: %w", err)
	}
	defer client.Close() //nolint:errcheck // only the lease matters
	reply, err := client.RapidSolicit(ctx, dhcpv6.WithRequestedOptions(dhcpv6.OptionDNSRecursiveNameServer, dhcpv6.OptionNTPServer))
	if err != nil {
		if a, ok := advertised(link); ok {
			return learned{address: a, how: "router advertisement"}, nil
		}
		return learned{}, fmt.Errorf("DHCPv6: %w", err)
	}
	return fromReply(reply)
}

func fromReply(reply *dhcpv6.Message) (learned, error) {
	l := learned{dns: addrs(reply.Options.DNS()), how: "DHCPv6"}
	for _, ia := range reply.Options.IANA() {
		for _, a := range ia.Options.Addresses() {
			if addr, ok := netip.AddrFromSlice(a.IPv6Addr); ok && addr.Is6() && addr.IsGlobalUnicast() {
				l.address, l.validFor = netip.PrefixFrom(addr, 128), a.ValidLifetime
			}
		}
	}
	if !l.address.IsValid() {
		return learned{}, errors.New("DHCPv6: the reply has no global address")
	}
	return l, nil
}

// linkLocal waits for a link-local address that has passed duplicate address detection.
func linkLocal(ctx context.Context, link netlink.Link) error {
	disabled, err := os.ReadFile(filepath.Join("/proc/sys/net/ipv6/conf", link.Attrs().Name, "disable_ipv6"))
	if err != nil || strings.TrimSpace(string(disabled)) != "0" {
		return errors.New("IPv6: disabled on this interface")
	}
	for {
		list, err := netlink.AddrList(link, netlink.FAMILY_V6)
		if err != nil {
			return fmt.Errorf("IPv6: %w", err)
		}
		for _, a := range list {
			const tentative = 0x40 // IFA_F_TENTATIVE
			if a.IP.IsLinkLocalUnicast() && a.Flags&tentative == 0 {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return errors.New("IPv6: no link-local address")
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// advertised returns the global address the kernel configured from router advertisements.
func advertised(link netlink.Link) (netip.Prefix, bool) {
	list, err := netlink.AddrList(link, netlink.FAMILY_V6)
	if err != nil {
		return netip.Prefix{}, false
	}
	for _, a := range list {
		addr, ok := netip.AddrFromSlice(a.IP)
		if ok && addr.IsGlobalUnicast() {
			ones, _ := a.Mask.Size()
			return netip.PrefixFrom(addr, ones), true
		}
	}
	return netip.Prefix{}, false
}

func addrs(list []net.IP) []netip.Addr {
	var out []netip.Addr
	for _, ip := range list {
		if a, ok := netip.AddrFromSlice(ip); ok {
			out = append(out, a.Unmap())
		}
	}
	return out
}
