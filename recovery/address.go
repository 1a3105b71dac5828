package recovery

import (
	"net"
	"net/url"
	"strings"

	"updater/device"
)

// deviceURL fills the device into a configured address: {serial}, as its device tree or DMI table has it, and {mac}, that of its first
// interface with a link, such as 02-00-5e-10-00-01. An unknown value becomes empty.
func deviceURL(address string) string {
	if !strings.Contains(address, "{serial}") && !strings.Contains(address, "{mac}") {
		return address
	}
	serial, _ := device.MachineSerial("/", "")
	return expandURL(address, serial, firstMAC())
}

func expandURL(address, serial, mac string) string {
	return strings.NewReplacer("{serial}", url.PathEscape(serial), "{mac}", strings.ReplaceAll(mac, ":", "-")).Replace(address)
}

func firstMAC() string {
	all, _ := net.Interfaces()
	for _, i := range all {
		if i.Flags&net.FlagLoopback == 0 && i.Flags&net.FlagRunning != 0 && len(i.HardwareAddr) > 0 {
			return i.HardwareAddr.String()
		}
	}
	return ""
}
