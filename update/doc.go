// Package update installs one image into one inactive slot so that no power cut, I/O error or wrong input can leave a device without
// a complete, verified image to boot.
//
// # The order
//
// [Install] runs these steps, and no other order is safe:
//
//  1. Read the boot state; the disk is locked. Accept the signed document: check its signature on the very bytes that are parsed, then
//     product, role, expiry and rollback index. A release that runs, or is installed and boots next, ends here with [NothingError]. A
//     release that another slot holds by the state is read back and activated: steps 6 and 7.
//  2. Choose the inactive slot, never the booted one, and accept every block map and size. Nothing has been opened for writing; every
//     refusal up to here changes nothing.
//  3. Open the slot exclusively, allocate the files of roles that are files, compare the slot with the image, and fetch and check the first missing
//     range, up to 64 MiB. Record the release in the device's state, and mark the slot bad in the boot state, durably. From here on the boot loader
//     cannot choose the slot, whatever is in it.
//  4. Write: in each part of the image the holes are zeroed, then the ranges are written. Every range is hashed, and a range of at
//     most 4 MiB is compared with its signed checksum before its first byte is written. Ranges that the slot already holds are
//     skipped: they are read from the medium, which is also how an interrupted install resumes.
//  5. Flush: all data leaves the page cache, then the drive's cache.
//  6. Read back every mapped byte from the medium, past the page cache, against the signed checksums, and every hole against zero.
//     Ranges and holes that differ are written again from the source, flushed and read back, once. If the target counts its barriers,
//     step 6 begins during step 4 with the bytes that two barriers have covered.
//  7. Give the files of the slot their names, durably; record that the slot holds the release; then activate it: one atomic, durable
//     change of the boot state, which is read back. If that fails, mark the slot bad again.
//
// # Guarantees
//
//   - An error or a cancelled context before step 7 leaves the old choice in place and the new slot unbootable.
//   - Step 7 is not interrupted. The result is a success only after it; no path from an error or a cancelled context leads to one.
//   - Any write or flush error ends the install. A flush is never retried.
//   - Memory is bounded, whatever the image and the bmap say: about 10 MiB of buffers besides the map and the decoder.
//   - An install never raises the floor of the rollback index: mark-good does, once the new system runs.
//
// [Copy] runs steps 4 to 6 for a target outside of the slots, and [ReadBack] step 6 for an image anywhere on a medium.
//
// # Limits
//
// The package does not judge whether the new system is healthy: the boot loader's tries and mark-good do. It cannot notice a drive
// that lies about its cache.
package update
