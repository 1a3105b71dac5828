// Package config reads and checks the configuration of a device, /etc/updater/config.toml.
//
// [Load] is strict. An unknown key, a value out of its range, a slot without a partition or two slots that share one are errors that
// name the file and the key. Relative paths count from the folder of the file. A program that was sealed with its configuration accepts
// no other, and refuses its own when anything below /etc/updater differs from the seal.
//
// The package does not open a disk or a keyring. Only package device, [Config.Policy] and device/doctor check whether the
// configured partitions, keys and programs exist.
package config
