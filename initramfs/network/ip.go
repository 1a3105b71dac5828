package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Setting is one ip= parameter (kernel, Documentation/admin-guide/nfs/nfsroot.rst):
//
//	ip=CLIENT:SERVER:GATEWAY:NETMASK:HOSTNAME:DEVICE:AUTOCONF:DNS0:DNS1:NTP0
//	ip=AUTOCONF
//
// Server address and host name are ignored. NETMASK may be a prefix length. IPv6 addresses are enclosed in brackets.
type Setting struct {
	Device  string // "" applies to every interface with a carrier
	Method  string // static, dhcp, dhcp6, any (dhcp and dhcp6) or off
	Address netip.Prefix
	Gateway netip.Addr // the zero Addr is none
	DNS     []netip.Addr
	NTP     []netip.Addr
}

// methods maps the words of the kernel and, for IPv6, of dracut to Setting.Method.
var methods = map[string]string{
	"on": "any", "any": "any", "dhcp": "dhcp", "both": "dhcp", "dhcp6": "dhcp6", "auto6": "dhcp6", "off": "off", "none": "off",
}

// ParseIP parses the value of an ip= parameter.
func ParseIP(s string) (Setting, error) {
	set, err := parseIP(s)
	if err != nil {
		return Setting{}, fmt.Errorf("ip=%.100s: %w", s, err)
	}
	return set, nil
}

func parseIP(s string) (set Setting, err error) {
	fields := splitFields(s)
	if len(fields) == 1 {
		var ok bool
		if set.Method, ok = methods[fields[0]]; !ok {
			return set, errors.New("expected dhcp, dhcp6, any, off, or an address with a netmask")
		}
		return set, nil
	}
	if len(fields) > 10 {
		return set, fmt.Errorf("found %d fields, expected at most 10", len(fields))
	}
	fields = append(fields, make([]string, 10-len(fields))...)
	set.Device = fields[5]
	if fields[0] == "" {
		word := fields[6]
		if word == "" {
			word = "any"
		}
		var ok bool
		if set.Method, ok = methods[word]; !ok {
			return set, fmt.Errorf("unknown method %q", word)
		}
	} else if err := set.static(fields); err != nil {
		return set, err
	}
	if set.DNS, err = parseAddrs(fields[7], fields[8]); err != nil {
		return set, err
	}
	set.NTP, err = parseAddrs(fields[9])
	return set, err
}

// parseAddrs parses addresses; "" is skipped.
func parseAddrs(list ...string) (addrs []netip.Addr, err error) {
	for _, s := range list {
		if s == "" {
			continue
		}
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

func (set *Setting) static(fields []string) error {
	set.Method = "static"
	addr, err := netip.ParseAddr(fields[0])
	if err != nil {
		return err
	}
	bits := -1
	switch mask := net.ParseIP(fields[3]).To4(); {
	case mask != nil:
		if ones, size := net.IPMask(mask).Size(); size == 32 {
			bits = ones
		}
	case fields[3] != "" && strings.Trim(fields[3], "0123456789") == "" && len(fields[3]) <= 3:
		_, _ = fmt.Sscan(fields[3], &bits)
	}
	if bits < 0 || bits > addr.BitLen() {
		return fmt.Errorf("invalid netmask %q for %s", fields[3], addr)
	}
	set.Address = netip.PrefixFrom(addr, bits)
	if fields[2] == "" {
		return nil
	}
	if set.Gateway, err = netip.ParseAddr(fields[2]); err == nil && set.Gateway.Is4() != addr.Is4() {
		err = fmt.Errorf("gateway %s and address %s belong to different families", set.Gateway, addr)
	}
	return err
}

// splitFields splits at colons outside brackets and removes the brackets.
func splitFields(s string) []string {
	var fields []string
	for field, depth, i := "", 0, 0; i <= len(s); i++ {
		switch {
		case i == len(s) || s[i] == ':' && depth == 0:
			fields = append(fields, field)
			field = ""
		case s[i] == '[' && depth == 0:
			depth = 1
		case s[i] == ']' && depth == 1:
			depth = 0
		default:
			field += s[i : i+1]
		}
	}
	return fields
}

// pick returns the settings for an interface: those that name it, else those that name none. Without any setting at all, it
// returns DHCP for both families.
func pick(all []Setting, device string) []Setting {
	if len(all) == 0 {
		return []Setting{{Method: "any"}}
	}
	own := slices.DeleteFunc(slices.Clone(all), func(s Setting) bool { return s.Device != device })
	if len(own) > 0 {
		return own
	}
	return slices.DeleteFunc(slices.Clone(all), func(s Setting) bool { return s.Device != "" })
}
