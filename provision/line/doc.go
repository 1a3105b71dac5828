// Package line makes devices out of blank disks on a factory line, one or many at a time.
//
// The order for every target, in [Run]:
//
//  1. Fit: the plan is laid out on the size of this disk; a disk that is too small is refused with numbers.
//  2. Latch: a device that was provisioned before is refused without a token of the factory key.
//  3. Reserve: the unit gets its serial, bound to the hardware, in a reservation that survives a power cut.
//  4. Steps before: the programs of the plan that come before writing.
//  5. Table: the partition table is written, backup first, flushed, read back.
//  6. Write: the images are read, decoded and compared with their signed checksums once, and fanned out to all targets. A target
//     that falls behind or fails leaves the fan; the others go on.
//  7. Read back: every mapped byte, and zero in the holes, from every medium past the page cache. Ranges that differ are written again
//     and read back, once.
//  8. Identity: key, certificate request and certificate, files; read back.
//  9. Boot: the kernel reads the partition table again; the boot state gets its first slot.
//  10. Steps after: the other programs of the plan, such as a functional test.
//  11. Latch, record, commit: the latch is written to the device, the signed record to the spool, and only then is the serial spent.
//
// A unit that ends before step 11 is not provisioned, whatever is on it: its record names the step, its serial is free again, and a new run
// keeps the identity on the medium if the spool attests that this station made it for this unit. A program that fails ends only its unit,
// which is not quarantined. Each unit has one stage at a time, one verdict and one record. An error of the medium restarts a unit once, on a
// disk that is opened again; a second one quarantines it. A disk that does not answer is given up without harm to the others.
//
// The package does not choose targets, load a first-stage boot ROM over USB, or lock fuses.
package line
