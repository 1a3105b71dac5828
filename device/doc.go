// Package device is the configured device: its disk with the slots, the boot loader's state, and the state store. Package update,
// the recovery, the factory and the commands share this one view of them.
//
// # Locks
//
// There are two locks, always taken in this order:
//
//   - The install lock, for as long as an install takes. It is an flock on the disk itself, so that two installs never run at once and
//     udev keeps away (systemd.io/BLOCK_DEVICE_LOCKING). It ends with the process.
//   - The boot lock, for one change of the boot state and the state store, and never across network or image I/O. Every change first reads
//     the state store again, so that the changes of several processes add up.
//
// So status, mark and rollback answer while an install waits or writes. Before an install invalidates its slot and before it
// activates it, it compares the device with what it saw at its start: a higher floor, another booted or next slot, or another record
// of its slot ends it without a switch.
//
// # Backends
//
// One table lists the boot loaders ([Backends]): a new one is a row there and a package below boot.
package device
