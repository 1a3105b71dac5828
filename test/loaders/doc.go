// Package loaders tests the boot backends with the real boot loaders in QEMU: GRUB, systemd-boot, U-Boot and OVMF's boot
// manager boot what a backend has written to a disk image, and the backend reads what they write. The guest prints the slot
// that was chosen and ends. Power cuts after every sector that a loader writes are replayed from QEMU's log of its writes.
//
// The tests have the build tag vm. Only the test with ext4 needs root.
package loaders
