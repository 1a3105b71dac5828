package initramfs

import (
	"fmt"
	"slices"
	"strings"
)

// The modes of an initramfs.
const (
	ModeInstall   = "install"   // one update, from a URL or removable media, then the end; a recovery when no slot is bootable
	ModeRecover   = "recover"   // look for an update everywhere, again and again
	ModeStatus    = "status"    // show the slots, then the end
	ModeProvision = "provision" // factory
)

var modes = []string{ModeInstall, ModeRecover, ModeStatus, ModeProvision}

// ValidMode reports whether s is a mode; "" is not.
func ValidMode(s string) bool { return slices.Contains(modes, s) }

// Params are the updater.* parameters of the kernel command line, and ip= and nameserver= beside them. They
// are untrusted: they choose the mode, the source and what happens after the run, and nothing of what is
// trusted.
type Params struct {
	Mode        string   // "" is as configured
	URL         string   // the source to install from; "" is as configured
	OnDone      string   // reboot (default) | poweroff | halt
	IP          []string // ip=, as the kernel documents it (Documentation/admin-guide/nfs/nfsroot.rst)
	Nameservers []string
	Unknown     []string // updater.* parameters that were not understood, with their value
}

// ParseCmdline reads the parameters; the last of a name counts. What is not understood is reported in
// Unknown and has no effect.
func ParseCmdline(cmdline string) Params {
	p := Params{OnDone: "reboot"}
	for word := range strings.FieldsSeq(cmdline) {
		key, value, _ := strings.Cut(word, "=")
		switch {
		case key == "updater.on_done" && (value == "reboot" || value == "poweroff" || value == "halt"):
			p.OnDone = value
		case key == "updater.mode" && ValidMode(value):
			p.Mode = value
		case key == "updater.url" && (strings.HasPrefix(value, "http://") || strings.HasPrefix(value, "https://")):
			p.URL = value
		case key == "updater.slot":
			// the running slot is boot.Booted's matter
		case key == "ip":
			p.IP = append(p.IP, value)
		case key == "nameserver":
			p.Nameservers = append(p.Nameservers, value)
		case strings.HasPrefix(key, "updater."):
			p.Unknown = append(p.Unknown, fmt.Sprintf("%.80q", word))
		}
	}
	return p
}
