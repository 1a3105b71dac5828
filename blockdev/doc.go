// Package blockdev opens disks, partitions and windows of disk image files, and writes them durably.
//
// What it guarantees:
//
//   - A [Device] opened for writing is held exclusively: a block device with O_EXCL, so that a mounted
//     or claimed one is refused by name ([BusyError]); a window of a disk image file with a lock on
//     exactly its bytes.
//   - [Device.Sync] returns nil only when everything written before is on stable storage and the
//     drive's cache was flushed. The flush runs on a sentinel descriptor that was opened before the
//     first write, because sync_file_range advances the error cursor of the descriptor it is called on
//     and a later fdatasync there would report nothing (mm/filemap.c, file_check_and_advance_wb_err).
//   - After any error of a write, a flush or a zeroing the device is poisoned: every later write and
//     flush returns that first error. Nothing is retried, since Linux reports a lost page only once.
//   - [Device.ReadBackAt] reads past the page cache, with O_DIRECT where the file system has it.
//
// What it does not: [SyncRange] is pacing and early error detection, never durability. A drive that
// lies about its cache is not found out here, only by the read-back after a power cycle.
//
// All offsets and sizes are int64 bytes. The partition node and the whole-disk node have separate page
// caches (block/bdev.c); a partition is therefore read and written through its own node only.
package blockdev
