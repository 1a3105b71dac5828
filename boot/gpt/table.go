package gpt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"updater/boot"
)

// The layout of a header (UEFI specification 2.10, 5.3.2) and of an entry (5.3.3). Only tables of the usual
// 128 entries of 128 bytes, directly behind the primary header and before the backup header, are taken:
// these are what every tool makes.
const (
	entryCount, entrySize = 128, 128
	entriesSize           = entryCount * entrySize
	offHeaderSize         = 12
	offHeaderCRC          = 16
	offMyLBA              = 24
	offOtherLBA           = 32
	offEntriesLBA         = 72
	offEntryCount         = 80
	offEntrySize          = 84
	offEntriesCRC         = 88
	offAttributes         = 48 // in an entry
)

var signature = []byte("EFI PART\x00\x00\x01\x00")

// PrimarySize and BackupSize are the bytes of the areas of a disk with sectors of the given size: the
// primary one from the disk's start, the backup one up to its end.
func PrimarySize(sector int) int64 { return int64(2*sector + entriesSize) }

// BackupSize is described at [PrimarySize].
func BackupSize(sector int) int64 { return int64(entriesSize + sector) }

// table is one of the two copies.
type table struct {
	area    boot.Area
	sector  int
	header  []byte // one sector
	entries []byte
	primary bool
}

func (t *table) headerAt() int64 {
	if t.primary {
		return int64(t.sector)
	}
	return entriesSize
}

func (t *table) entriesAt() int64 {
	if t.primary {
		return int64(2 * t.sector)
	}
	return 0
}

func (t *table) String() string {
	return map[bool]string{true: "primary", false: "backup"}[t.primary] + " partition table " + t.area.String()
}

var errBad = errors.New("damaged")

// read fills the copy from the medium. errBad says that it is not whole; other errors are the medium's.
func (t *table) read() error {
	data, err := boot.ReadAll(t.area)
	if err != nil {
		return err
	}
	t.header = data[t.headerAt() : t.headerAt()+int64(t.sector)]
	t.entries = data[t.entriesAt() : t.entriesAt()+entriesSize]
	le, h := binary.LittleEndian, t.header
	size := le.Uint32(h[offHeaderSize:])
	if !bytes.HasPrefix(h, signature) || size < 92 || int(size) > t.sector {
		return fmt.Errorf("%w: %s has no header", errBad, t)
	}
	if n, each := le.Uint32(h[offEntryCount:]), le.Uint32(h[offEntrySize:]); n != entryCount || each != entrySize {
		return fmt.Errorf("%w: %s has %d entries of %d bytes; only %d of %d are understood", boot.ErrState, t, n, each, entryCount, entrySize)
	}
	if want, got := le.Uint32(h[offHeaderCRC:]), headerCRC(h); want != got {
		return fmt.Errorf("%w: %s has header checksum %08x, expected %08x", errBad, t, want, got)
	}
	if want, got := le.Uint32(h[offEntriesCRC:]), crc32.ChecksumIEEE(t.entries); want != got {
		return fmt.Errorf("%w: %s has entries checksum %08x, expected %08x", errBad, t, want, got)
	}
	at, my := le.Uint64(h[offEntriesLBA:]), le.Uint64(h[offMyLBA:])
	if t.primary && (my != 1 || at != 2) || !t.primary && at != my-uint64(entriesSize/t.sector) {
		return fmt.Errorf("%w: %s has its entries at sector %d, which is not where they are looked for", boot.ErrState, t, at)
	}
	return nil
}

func headerCRC(h []byte) uint32 {
	c := bytes.Clone(h[:binary.LittleEndian.Uint32(h[offHeaderSize:])])
	clear(c[offHeaderCRC : offHeaderCRC+4])
	return crc32.ChecksumIEEE(c)
}

// write makes the copy hold entries: first they, then the header, each durable and read back. Until the
// header is written the copy is not whole, and readers take the other one.
func (t *table) write(entries, header []byte) error {
	old := bytes.Clone(t.entries)
	if err := boot.WriteChanged(offset{t.area, t.entriesAt(), entriesSize}, old, entries); err != nil {
		return err
	}
	h := bytes.Clone(header)
	le := binary.LittleEndian
	le.PutUint32(h[offEntriesCRC:], crc32.ChecksumIEEE(entries))
	le.PutUint32(h[offHeaderCRC:], headerCRC(h))
	if err := boot.WriteVerified(t.area, h, t.headerAt()); err != nil {
		return err
	}
	t.entries, t.header = bytes.Clone(entries), h
	return nil
}

// copyOf is the header that t has when it is made anew from the other copy.
func (t *table) copyOf(o *table) []byte {
	h, le := bytes.Clone(o.header), binary.LittleEndian
	my := le.Uint64(o.header[offOtherLBA:])
	le.PutUint64(h[offMyLBA:], my)
	le.PutUint64(h[offOtherLBA:], le.Uint64(o.header[offMyLBA:]))
	at := uint64(2)
	if !t.primary {
		at = my - uint64(entriesSize/t.sector)
	}
	le.PutUint64(h[offEntriesLBA:], at)
	return h
}

// offset is a window of an area.
type offset struct {
	boot.Area
	off, size int64
}

func (o offset) Size() int64 { return o.size }
func (o offset) ReadAt(p []byte, off int64) (int, error) {
	return o.Area.ReadAt(p, o.off+off)
}
func (o offset) WriteAt(p []byte, off int64) (int, error)    { return o.Area.WriteAt(p, o.off+off) }
func (o offset) ReadBackAt(p []byte, off int64) (int, error) { return o.Area.ReadBackAt(p, o.off+off) }
