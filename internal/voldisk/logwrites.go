package voldisk

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

// Replay carries out a log on the disk, as one command for each entry, and returns how many there were. An entry is
// logged when it completes, so that a write which completes while a flush is under way counts as flushed: that is what
// the log knows. Trailing entries that the super block does not count yet are taken too.
func (d *Disk) Replay(log []byte) (entries int, err error) {
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
		if err := d.entry(log[min(at, int64(len(log))):], where*sector, count*sector, flags); err != nil {
			return entries, fmt.Errorf("entry %d: %w", entries, err)
		}
		if flags&(logDiscard|logMark) == 0 {
			at += count * sector
		}
	}
	return entries, nil
}

func (d *Disk) entry(data []byte, off, length int64, flags uint64) error {
	if flags&logMark != 0 {
		return nil
	}
	if flags&logFlush != 0 {
		if err := d.FlushCommand(); err != nil {
			return err
		}
	}
	switch {
	case length == 0:
		return nil
	case flags&logDiscard != 0:
		return d.ZeroCommand(off, length)
	case int64(len(data)) < length:
		return errors.New("its data is cut off")
	}
	if err := d.WriteCommand(data[:length], off); err != nil || flags&logFUA == 0 {
		return err
	}
	return d.FlushCommand()
}
