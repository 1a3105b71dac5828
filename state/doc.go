// Package state stores the installed image of each slot with its result, the floor of the rollback index, and the last trusted
// time. The store has two copies in a small fixed-size [Area].
//
// The package guarantees:
//
//   - A change is old or new. It is written to the older copy, flushed, and read back from the medium before
//     [Store.Update] returns nil; the newer copy is not written. A power cut leaves the old state or the new one.
//   - A change of the floor is written to both copies in turn, so that the later loss of either does not lower it.
//   - A torn, damaged, unreadable or missing copy is bad; the other one counts, and the next change (or [Store.Heal]) rewrites
//     the bad one.
//   - If both are lost, [Open] returns a usable store with the fallback state of the caller, and [Store.Lost] reports it: the
//     device must continue to boot and update.
//   - A copy in a later format is never overwritten: [Open] refuses it.
//
// The package does not detect forgery: the checksum is a CRC32C, which detects damage. A program with root access can rewrite the
// store; the floor is as safe as the medium.
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
//	32     payload, JSON; unknown members are kept
package state
