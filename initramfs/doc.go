// Package initramfs runs the updater inside an initramfs. It mounts the kernel file systems, loads modules, waits for the
// device's disk, finds an update, has the [Device] install it and restarts the machine.
//
// # Guarantees
//
//   - Everything it finds is untrusted. The kernel command line and removable media choose which update is tried; whether it is
//     installed depends on the sealed keyring and configuration alone ([CheckSeal]).
//   - Media are mounted read-only, without devices, programs and set-user-ID files. Only regular files are offered to the Device.
//   - [Run] always ends in a restart: after success, after failure, or, in a recovery, after an update was installed. It does not
//     change the boot state itself.
//   - [Supervisor] restarts the machine if the worker exits, panics or hangs.
//
// # Limits
//
// It verifies no signature and writes no slot; the Device does. Package build packs the archive on the host; package network
// configures interfaces.
//
// u-root's init starts the program as /bin/uinit. Run never returns to init: init would exit and the kernel would panic.
package initramfs
