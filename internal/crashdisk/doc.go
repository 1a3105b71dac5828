// Package crashdisk is a disk with a volatile write cache in pure Go, for tests: what a drive may lose when its
// power fails, and what Linux tells whoever wrote to it.
//
// A [Disk] answers commands (write, flush, read, zero, discard). What was written is volatile until a flush
// that was issued after the write had completed has completed itself. [Disk.Open] and [Disk.OpenDirect] put the
// kernel's page cache in front: one mapping for all descriptors, pages that are dropped only when clean, an
// error of the write-out that is reported once per descriptor for the whole mapping and leaves pages that look
// written (mm/filemap.c, file_check_and_advance_wb_err; lib/errseq.c), a failed flush that only its caller sees.
// [Disk.Device] opens a real [blockdev.Device] on that.
//
// Every write and flush is recorded. [Disk.Crashes] goes through the states that a power cut may leave: at every
// step of the record, what was flushed, with a selection of what was not, in whole writes and in torn ones.
//
// What it does not model: a drive that damages data which nobody was writing (that is what two copies of the
// boot state in different blocks are for), and the reordering of writes across a confirmed flush, except
// where [LyingFlush] asks for it.
package crashdisk
