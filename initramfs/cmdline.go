package initramfs

import (
	"fmt"
	"strings"
)

// Params are the updater.* parameters of the kernel command line. They are untrusted: they choose what
// happens after the run, and nothing of what is trusted.
type Params struct {
	OnDone  string   // reboot (default) | poweroff | halt
	Unknown []string // updater.* parameters that were not understood, with their value
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
		case key == "updater.slot", key == "updater.mode" && value == "install":
			// the running slot is boot.Booted's matter; installing is the one mode there is
		case strings.HasPrefix(key, "updater."):
			p.Unknown = append(p.Unknown, fmt.Sprintf("%.80q", word))
		}
	}
	return p
}
