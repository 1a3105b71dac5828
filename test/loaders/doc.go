// Package loaders proves the boot backends on the real boot loaders, in QEMU: what a backend has written on a
// disk image is what GRUB, systemd-boot, U-Boot and OVMF's boot manager then do, and what they write is what
// the backend reads. A guest is only the loader's choice: it prints the slot and ends. The power is cut after
// every sector of what the loader writes, by replaying QEMU's log of the writes.
//
// The tests have the build tag vm. They need no root, except for the one of ext4.
package loaders
