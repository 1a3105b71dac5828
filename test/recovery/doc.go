// Package recovery tests the initramfs in QEMU: the recovery, its media and network, provisioning, the health checks and the
// A/B round trip around them. It has tests only, behind the build tag vm.
package recovery
