// Package units runs the units of the package, and the examples for other inits, in QEMU: real systemd, BusyBox init and OpenRC as the first process
// of the slots of a device that follows a channel. The tests have the build tag vm.
package units
