// Package network brings the network of an initramfs up: by DHCP on IPv4 and IPv6, or as ip= on the kernel
// command line says, on every interface that has a carrier.
//
// Everything that it learns is untrusted and chooses only the way to a server. The time of an NTP server is
// a hint for TLS; it never reaches the clock that signatures and documents are judged by.
package network
