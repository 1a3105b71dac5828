// Package config reads and checks the configuration of a device, /etc/updater/config.toml.
//
// What it guarantees: [Load] is strict. An unknown key, a value out of its range, a slot without a partition or two slots that share one
// are errors that name the file and the key. Relative paths count from the folder of the file. A program that was sealed with its
// configuration takes no other one, and refuses its own when anything below /etc/updater differs from the seal.
//
// What it does not do: it opens no disk and no keyring. Whether the configured partitions, keys and programs exist is known when
// package device, [Config.Policy] or device/doctor look at them.
package config
