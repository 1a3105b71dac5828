// Package medium writes, compares and repairs one disk of a factory line: partition table, images, file systems.
//
// It guarantees that every operation of the disk is watched, so that a disk that does not answer can be given up, and that a disk
// that was given up is not touched again. Writes are durable and read back where its methods say so; memory is bounded for
// each disk, whatever the images are.
//
// It knows neither identities nor records: package line decides what becomes of a unit.
package medium
