// Package update installs one image into one inactive slot so that no power cut, I/O error or wrong input
// can leave a device without a complete, verified image to boot.
//
// The order that is safe, in [Install]:
//
//  1. Identify the inactive slot; the disk is locked. The booted slot is never a target.
//  2. Accept the bmap: check its signature on the very bytes that are then parsed, then product, role,
//     freshness, rollback index and size. Nothing was opened for writing yet; every refusal up to here
//     changes nothing.
//  3. Open the slot exclusively, note in the device's state what is about to be written, and mark the slot
//     bad in the boot state, durably. From here on the boot loader cannot choose it, whatever is in it.
//  4. Write: unmapped blocks of a span are zeroed, then its ranges written. Every range is hashed, and where
//     it fits the window compared with the signed checksum before its first byte is written. What the slot
//     holds already is left out: that is read from the medium, and is how an interrupted install goes on.
//  5. Flush: all data out of the page cache, then out of the drive's cache.
//  6. Read back every mapped byte from the medium, past the page cache, against the signed checksums, and
//     every unmapped byte against zero. What differs is written again from the source, flushed and read
//     back, once.
//  7. Note that the slot holds the image; then activate: one atomic, durable change of the boot state, and
//     read the choice back.
//
// An error or a cancelled context before step 7 leaves the old choice and the new slot unbootable. Step 7
// is not interrupted. Only after it is the result a success; no path from an error or a cancelled context
// leads to one.
//
// An install never raises the floor of the rollback index: that is for mark-good, once the new system runs.
//
// What this does not do: it never retries a flush, it does not judge whether the new system is healthy
// (the boot loader's tries and mark-good do), and it cannot notice a drive that lies about its cache.
package update
