// Package state is the device's memory of its slots: what was installed into each and how that went, the floor of the
// rollback index, and the last trusted time. It lies in two copies on a small fixed-size [Area].
//
// What it guarantees:
//
//   - A change is old or new. It is written to the older copy, flushed, and read back from the medium before
//     [Store.Update] returns nil; the newer copy is never touched by it. A power cut in the middle leaves the old state.
//   - A change of the floor goes into both copies, one after the other, so that the loss of either later does not lower it.
//   - A torn, damaged or missing copy is noticed by its checksum, the other one counts, and the next change (or
//     [Store.Heal]) writes over the bad one.
//   - When both are lost [Open] still gives a usable store, with the state that the caller falls back to, and
//     [Store.Lost] says so. The device must go on booting and updating.
//   - A copy in a later format than this package knows is never written over: [Open] refuses it.
//
// What it does not: the checksum is a CRC32C. It finds damage, not forgery; whoever can write the medium as root can
// write what they like. The floor is as safe as the medium is.
//
// # Format
//
// One copy lies at the start of the area, the other at half of its size, rounded down to 4096 bytes. All numbers are
// little-endian.
//
//	 0  8  magic "UPDSTATE"
//	 8  4  format, 1; a later one keeps this header
//	12  4  CRC32C (Castagnoli) of bytes 0-11 and of those from 16 to the end of the payload
//	16  8  generation; the copy with the higher one counts
//	24  4  length of the payload in bytes
//	28  4  zero
//	32     payload, JSON; members that are not known are kept
package state
