// Package gpt reads and writes GUID partition tables (UEFI specification 2.10, section 5.3).
//
// The package guarantees:
//
//   - It accepts any legal table: any number and place of entries, entry sizes of 128 bytes and its doublings, headers up to a
//     sector, logical sectors of 512 and 4096 bytes. Unknown parts of a header are kept.
//   - Input is hostile. A number from a header is bounded before it decides about memory or offsets; a copy costs at most
//     [MaxEntryBytes] and a sector.
//   - A copy that cannot be read (EIO), is torn, or has a wrong checksum is a bad copy, and the other one serves.
//   - [Write] writes the backup, flushes, reads it back, and does the same with the primary, so that a power cut leaves one whole copy.
//
// The package does not open devices or inform the kernel. Offsets are bytes of the disk, LBAs count logical sectors. Nothing here
// is safe for concurrent use.
package gpt

// Reader reads from the medium, past the page cache.
type Reader interface {
	// ReadBackAt reads len(p) bytes at off as io.ReaderAt does.
	ReadBackAt(p []byte, off int64) (n int, err error)
}
