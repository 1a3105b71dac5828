package initramfs

import (
	"fmt"
	"slices"
	"strings"
)

// Modes of the initramfs.
const (
	ModeInstall   = "install"   // install one update from a URL or removable media, then restart; recover if no slot is bootable
	ModeRecover   = "recover"   // look for an update in every source until one is installed
	ModeStatus    = "status"    // print the slots, then restart
	ModeProvision = "provision" // provision blank disks in the factory
)

var modes = []string{ModeInstall, ModeRecover, ModeStatus, ModeProvision}

// ValidMode reports whether s names a mode; "" does not.
func ValidMode(s string) bool { return slices.Contains(modes, s) }

// Params are the updater.*, ip= and nameserver= parameters of the kernel command line. They are untrusted: they choose the
// mode, the source and what happens after the run, and cannot change keys, policy or slots.
type Params struct {
	Mode        string   // "" selects the configured mode
	URL         string   // source to install from; "" selects the configured one
	OnDone      string   // reboot (default), poweroff or halt
	IP          []string // values of ip= (kernel, Documentation/admin-guide/nfs/nfsroot.rst)
	Nameservers []string
	Unknown     []string // quoted updater.* parameters with an unknown name or an invalid value
}

// ParseCmdline parses the kernel command line. The last parameter of a name takes precedence. Unknown and invalid updater.*
// parameters are ignored and listed in Unknown.
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
			// read by boot.Booted
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
