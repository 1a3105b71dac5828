// Package medium writes, compares and repairs one disk of a factory line: partition table, images, file systems.
//
// It guarantees that every operation of the disk is watched, so that a disk that does not answer can be given up, and that a disk
// that was given up is not touched again. Writes are durable and read back where the methods promise it; memory is bounded for
// each disk, whatever the images are.
//
// The package does not know identities or records: package line decides what becomes of a unit.
package medium
