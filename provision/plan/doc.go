// Package plan parses the plan of a factory line: the content of a device, its disks and its identity.
//
// A plan is strict TOML. [Parse] accepts only a complete and consistent plan, so that every error of the plan is found before
// a disk is opened. [Plan.Place] lays its partitions out on a disk of a given size, or refuses the disk with numbers.
// docs/factory.md lists every key.
package plan
