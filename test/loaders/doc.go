// Package loaders tests the boot backends with the real boot loaders in QEMU: GRUB, systemd-boot, U-Boot and OVMF's boot
// manager boot from the state that a backend has written to a disk image, and the backend reads the state that they write. The
// guest prints the chosen slot and ends. Power cuts after every sector that a loader writes are replayed from QEMU's log of its writes.
//
// The tests have the build tag vm. Only the test with ext4 needs root.
package loaders
