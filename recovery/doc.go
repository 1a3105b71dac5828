// Package recovery does the work of this program inside the initramfs: it installs from media and addresses, makes a slot that still
// holds its signed content bootable again, boots a slot once, and starts a fresh slot by kexec. Package initramfs drives it.
//
// The kernel command line is untrusted: it chooses the mode and the source, and nothing that is trusted.
package recovery
