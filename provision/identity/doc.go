// Package identity gives a device of a factory line its identity: serial, private key, certificate and files, in a FAT32 partition
// that updates never touch.
//
// It guarantees that no two units get one serial, also after a power cut and with several stations on one list; that a private
// key is made on the device's own disk and goes nowhere else; that a key is on stable storage before it is certified; and that an
// interrupted run finds serial, key and certificate again and keeps them. Everything is read back from the medium.
//
// The package does not decide which units may be provisioned, and does not know the rest of the disk.
package identity
