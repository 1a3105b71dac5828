package crashdisk

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The log of QEMU's blklogwrites and of the kernel's dm-log-writes (drivers/md/dm-log-writes.c), little endian: a
// super block, then entries, each in whole sectors, followed by its data.
const (
	logMagic   = 0x6a736677736872
	logFlush   = 1
	logFUA     = 2
	logDiscard = 4
	logMark    = 8
)

// LogEntry is one entry of a log: a flush, or a write (or a discard, without Data) that is or is not FUA, or both.
type LogEntry struct {
	Off, Len int64
	Data     []byte
	Flush    bool // before the write
	FUA      bool
	Discard  bool
}

// ReadLog calls visit with the entries of a log in order, without the marks, and returns their number. It includes trailing
// entries that the super block does not count yet.
func ReadLog(log []byte, visit func(LogEntry) error) (entries int, err error) {
	le := binary.LittleEndian
	if len(log) < 512 || le.Uint64(log) != logMagic {
		return 0, errors.New("this is no log of writes")
	}
	sector := int64(le.Uint32(log[24:]))
	if sector < 512 || sector > 4096 {
		return 0, fmt.Errorf("the log has sectors of %d bytes", sector)
	}
	for at := sector; at+sector <= int64(len(log)); entries++ {
		head := log[at:]
		where, count, flags := int64(le.Uint64(head)), int64(le.Uint64(head[8:])), le.Uint64(head[16:])
		if where == 0 && count == 0 && flags == 0 && le.Uint64(head[24:]) == 0 {
			break
		}
		at += sector
		e := LogEntry{Off: where * sector, Len: count * sector, Flush: flags&logFlush != 0, FUA: flags&logFUA != 0, Discard: flags&logDiscard != 0}
		if flags&logMark != 0 {
			continue
		}
		if !e.Discard {
			if int64(len(log))-at < e.Len {
				return entries, fmt.Errorf("entry %d: its data is cut off", entries)
			}
			e.Data = log[at : at+e.Len]
			at += e.Len
		}
		if err := visit(e); err != nil {
			return entries, fmt.Errorf("entry %d: %w", entries, err)
		}
	}
	return entries, nil
}

// Replay executes a log on the disk, one command per entry, and returns their number. An entry is logged when it completes,
// so that a write which completes during a flush counts as flushed; the log has no more detail.
func (d *Disk) Replay(log []byte) (entries int, err error) { return ReadLog(log, d.entry) }

func (d *Disk) entry(e LogEntry) error {
	if e.Flush {
		if err := d.FlushCommand(); err != nil {
			return err
		}
	}
	switch {
	case e.Len == 0:
		return nil
	case e.Discard:
		return d.ZeroCommand(e.Off, e.Len)
	}
	if err := d.WriteCommand(e.Data, e.Off); err != nil || !e.FUA {
		return err
	}
	return d.FlushCommand()
}
