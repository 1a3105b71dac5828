// Package initramfs is what runs inside the initramfs: it brings up mounts, modules and disks, finds an
// update, has it installed, and reboots. u-root's init starts it as /bin/uinit; it never returns to init,
// which would have nothing left to run and take the kernel down with it.
//
// It trusts nothing that it finds: the kernel command line and a stick choose what is looked at, never
// what is trusted. Packing the initramfs is package build, on the host.
package initramfs
