// Package provision makes devices out of blank media on a factory line, one or many at a time, and leaves a
// record of each that can be audited.
//
// The order for every target, in [Run]:
//
//  1. Select: a target is named by the operator, by path or by the port it hangs on. The system disk, and what
//     is mounted, held, swapped on, read-only or not listed is refused by name. Nothing was opened for writing.
//  2. Fit: the plan is laid out on the size of this disk; a disk that is too small is refused with numbers.
//  3. Latch: a device that was provisioned before is refused without a token that a factory key signed.
//  4. Reserve: the unit gets its serial, bound to the hardware, in a reservation that survives a power cut.
//  5. Table: the partition table is written, backup first, flushed, read back.
//  6. Write: the images are read, decoded and compared with their signed checksums once, and fanned out to all
//     targets. A target that lags or fails leaves the fan; the others go on.
//  7. Read back: every mapped byte, and zero in between, from every medium past the page cache.
//  8. Identity: key, certificate request and certificate, files; read back.
//  9. Kernel: the partition table is read again by the kernel and compared; the boot state gets its first slot.
//  10. Latch, record, commit: the latch goes onto the device, the signed record into the spool, and only then is
//     the serial spent.
//
// A unit that ends before step 10 is not provisioned, whatever is on it: its record says so, its serial goes back,
// and a new run begins again and keeps the identity that it finds. A partial success is never a pass.
//
// What this does not do: it does not load a first-stage boot ROM over USB, and it does not lock fuses.
package provision
