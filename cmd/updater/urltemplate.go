package main

import (
	"context"
	"net"
	"net/url"
	"strings"

	"updater/provision"
)

// deviceURL puts what the device is into a configured address: {serial}, as its device tree or DMI table has it, and
// {mac}, that of its first interface with a link, such as 02-00-5e-10-00-01. What is not known leaves nothing.
func deviceURL(ctx context.Context, address string) string {
	if !strings.Contains(address, "{serial}") && !strings.Contains(address, "{mac}") {
		return address
	}
	serial := ""
	for _, kind := range []string{"device-tree", "dmi"} {
		if got, err := provision.Firmware("/", kind).Reserve(ctx, provision.Claim{}); err == nil && serial == "" {
			serial = got.Serial
		}
	}
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
