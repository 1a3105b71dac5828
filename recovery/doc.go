// Package recovery is what this program does inside the initramfs: it installs from media and addresses, makes a slot bootable again that
// still holds what was signed for it, boots a slot once, and starts a fresh slot by kexec. Package initramfs drives it.
//
// The kernel command line is untrusted: it chooses the mode and the source, and nothing of what is trusted.
package recovery
