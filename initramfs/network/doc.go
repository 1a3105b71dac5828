// Package network configures the network interfaces of an initramfs: by DHCP for IPv4 and IPv6 or by the ip= parameters of the
// kernel command line, on every interface with a carrier.
//
// Everything it learns is unauthenticated and decides only how a server is reached. The time of an NTP server is a hint for
// TLS; signatures and documents are never judged by it.
package network
