// Package crashdisk simulates a disk with a volatile write cache, for tests: the writes that the drive may lose when its
// power fails, and the errors that Linux reports to the writer.
//
// A [Disk] executes commands (write, flush, read, zero, discard). A write is volatile until a flush that was issued after
// its completion has completed. [Disk.Open] and [Disk.OpenDirect] add the kernel's page cache: one mapping for all
// descriptors; only clean pages are dropped; a write-out error is reported once per descriptor for the whole mapping and
// leaves the pages clean (mm/filemap.c, file_check_and_advance_wb_err; lib/errseq.c); a failed flush is reported to its
// caller only. [Disk.Device] opens a real [blockdev.Device] on it.
//
// Every write and flush is recorded. [Disk.Crashes] enumerates the states that a power cut may leave: at every step of the
// record, all flushed writes and a selection of the others, whole or torn.
//
// With [Options.Damage] a power cut or a failed write also leaves sectors unreadable until they are rewritten. The package does not damage
// data outside of a write, and it reorders writes across a confirmed flush only with [LyingFlush] and [EmptyFlush].
package crashdisk
