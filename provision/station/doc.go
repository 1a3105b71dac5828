// Package station runs a factory line on this machine: it reads a plan, decides whether to trust it, finds the disks and the signed
// images, and wires them to package line.
//
// A plan is trusted for one of two reasons: it is a file that the operator named on this machine, or it is signed by the configured
// keyring. A plan from an address, one with a configuration, and any plan of a sealed program must be signed; its local paths must be
// absolute, since a file beside it would be as good as signed.
//
// Every target is opened exclusively and locked, after a check that it is still the disk that was selected. The boot state that is set
// up is that of the target, never that of the station.
package station
