package network

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Setting is one ip= of the kernel command line (Documentation/admin-guide/nfs/nfsroot.rst):
//
//	ip=CLIENT:SERVER:GATEWAY:NETMASK:HOSTNAME:DEVICE:AUTOCONF:DNS0:DNS1:NTP0
//	ip=AUTOCONF
//
// The server address and the host name are not used. The netmask may be a prefix length; IPv6 addresses stand
// in brackets.
type Setting struct {
	Device  string // "" is every interface with a carrier
	Method  string // static | dhcp | dhcp6 | any (both) | off
	Address netip.Prefix
	Gateway netip.Addr // invalid is none
	DNS     []netip.Addr
	NTP     []netip.Addr
}

// methods are the words for the ways of configuring: the kernel's, and dracut's for IPv6.
var methods = map[string]string{
	"on": "any", "any": "any", "dhcp": "dhcp", "both": "dhcp", "dhcp6": "dhcp6", "auto6": "dhcp6", "off": "off", "none": "off",
}

// ParseIP reads one value of ip=. An unknown word is an error.
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
			return set, fmt.Errorf("expected dhcp, dhcp6, any, off, or an address with its netmask")
		}
		return set, nil
	}
	if len(fields) > 10 {
		return set, fmt.Errorf("has %d fields, at most 10 are known", len(fields))
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
			return set, fmt.Errorf("%q is no method of configuring", word)
		}
	} else if err := set.static(fields); err != nil {
		return set, err
	}
	for i, list := range []*[]netip.Addr{&set.DNS, &set.DNS, &set.NTP} {
		if f := fields[7+i]; f != "" {
			a, err := netip.ParseAddr(f)
			if err != nil {
				return set, err
			}
			*list = append(*list, a)
		}
	}
	return set, nil
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
		return fmt.Errorf("%q is no netmask for %s", fields[3], addr)
	}
	set.Address = netip.PrefixFrom(addr, bits)
	if fields[2] == "" {
		return nil
	}
	if set.Gateway, err = netip.ParseAddr(fields[2]); err == nil && set.Gateway.Is4() != addr.Is4() {
		err = fmt.Errorf("gateway %s is of another family than %s", set.Gateway, addr)
	}
	return err
}

// splitFields splits at colons that are not inside brackets, and takes the brackets off.
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

// pick returns what applies to an interface: its own settings, else those for every interface; without any it
// is DHCP for both families.
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
