// Package blockdev opens disks, partitions and windows of disk image files, and writes them durably.
//
// The package guarantees:
//
//   - A [Device] opened with [Exclusive] has no other user: a block device is opened with O_EXCL, so that a mounted or claimed one
//     is a [BusyError]; in a disk image file exactly the bytes of the window are locked.
//   - [Device.Sync] returns nil only if all data written before is on stable storage and the drive's cache was flushed. It flushes a
//     sentinel descriptor that was opened before the first write: sync_file_range advances the error cursor of its own
//     descriptor, on which a later fdatasync would report nothing (mm/filemap.c, file_check_and_advance_wb_err).
//   - Any error of a write, a flush or a zeroing poisons the device: every later write and flush returns that first error.
//     Nothing is retried, because Linux reports a lost page only once.
//   - [Device.ReadBackAt] reads past the page cache, with O_DIRECT if the file system supports it.
//   - A sector that cannot be read is rewritten by a write that covers it, and never read for the sake of its neighbours.
//   - Partition tables and file systems are hostile input: reading them takes bounded memory and time.
//
// The package does not make data durable by [SyncRange], which paces writes and detects errors early. A drive that lies about its
// cache is detected only by a read-back after a power cycle.
//
// All offsets and sizes are int64 bytes. The nodes of a partition and of its whole disk have separate page caches
// (block/bdev.c), so a partition is read and written through its own node only.
//
// Package gpt is the codec of GUID partition tables, mbr reads MBR partition tables, fat finds files in FAT file systems.
package blockdev
