package gpt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// MaxEntryBytes bounds the entries of one copy: 4096 of 128 bytes. Usual tables have 128 of them.
const MaxEntryBytes = 512 << 10

// The header (UEFI 2.10, table 5.5).
const (
	minHeader     = 92
	offHeaderSize = 12
	offHeaderCRC  = 16
	offMyLBA      = 24
	offAlternate  = 32
	offFirst      = 40
	offLast       = 48
	offDiskGUID   = 56
	offEntriesLBA = 72
	offCount      = 80
	offWidth      = 84
	offEntriesCRC = 88
)

var signature = []byte("EFI PART")

// le is the byte order of everything in a table.
var le = binary.LittleEndian

// ErrNoSignature is wrapped by the error for an absent copy: its sector does not begin with "EFI PART".
var ErrNoSignature = errors.New(`no signature "EFI PART"`)

// Table is one copy of a partition table, the primary or the backup.
type Table struct {
	sector  int64
	header  []byte // as long as its own length field
	entries []byte
}

// ReadCopy reads and checks the copy whose header is in sector lba of a disk of size bytes. An error names the copy, and
// wraps that of the medium.
func ReadCopy(r Reader, size, sector, lba int64) (*Table, error) {
	t := &Table{sector: sector}
	if err := t.read(r, size/sector, lba); err != nil {
		return nil, fmt.Errorf("%s partition table at sector %d: %w", copyName(lba), lba, err)
	}
	return t, nil
}

func copyName(lba int64) string {
	if lba == primaryLBA {
		return "primary"
	}
	return "backup"
}

func (t *Table) read(r Reader, sectors, lba int64) error {
	if t.sector != 512 && t.sector != 4096 {
		return fmt.Errorf("sector size is %d bytes, expected 512 or 4096", t.sector)
	}
	if lba < primaryLBA || lba >= sectors {
		return fmt.Errorf("outside the disk of %d sectors", sectors)
	}
	raw := make([]byte, t.sector)
	if err := readFull(r, raw, lba*t.sector); err != nil {
		return err
	}
	if err := t.parseHeader(raw, lba); err != nil {
		return err
	}
	at, length := t.EntriesLBA(), int64(le.Uint32(t.header[offCount:]))*int64(le.Uint32(t.header[offWidth:]))
	if n := sectorsOf(length, t.sector); at <= primaryLBA || at > sectors-n || at <= lba && lba < at+n {
		return fmt.Errorf("entries are in %d sectors from %d, expected inside the disk of %d sectors and outside the headers", n, at, sectors)
	}
	t.entries = make([]byte, length)
	if err := readFull(r, t.entries, at*t.sector); err != nil {
		return err
	}
	if got, want := crc32.ChecksumIEEE(t.entries), le.Uint32(t.header[offEntriesCRC:]); got != want {
		return fmt.Errorf("checksum of the entries at sector %d is %08x, the header has %08x", at, got, want)
	}
	return nil
}

// parseHeader checks a header as Linux does (block/partitions/efi.c, is_gpt_valid), but accepts entries of every legal size.
func (t *Table) parseHeader(raw []byte, lba int64) error {
	if !bytes.HasPrefix(raw, signature) {
		return ErrNoSignature
	}
	size := le.Uint32(raw[offHeaderSize:])
	if size < minHeader || int64(size) > t.sector {
		return fmt.Errorf("header size is %d bytes, expected %d to %d", size, minHeader, t.sector)
	}
	t.header = raw[:size]
	if got, want := headerCRC(t.header), le.Uint32(raw[offHeaderCRC:]); got != want {
		return fmt.Errorf("checksum of the header is %08x, the header has %08x", got, want)
	}
	if got := t.HeaderLBA(); got != lba {
		return fmt.Errorf("header is made for sector %d", got)
	}
	count, width := int64(le.Uint32(raw[offCount:])), int64(le.Uint32(raw[offWidth:]))
	if width < minEntry || width > 4096 || width&(width-1) != 0 {
		return fmt.Errorf("entries have %d bytes, expected 128 and its doublings up to 4096", width)
	}
	if count < 1 || count*width > MaxEntryBytes {
		return fmt.Errorf("table has %d entries of %d bytes, expected 1 to %d", count, width, MaxEntryBytes/width)
	}
	return nil
}

// headerCRC is the checksum of a header with its own field zero.
func headerCRC(header []byte) uint32 {
	crc := crc32.ChecksumIEEE(header[:offHeaderCRC])
	crc = crc32.Update(crc, crc32.IEEETable, make([]byte, 4))
	return crc32.Update(crc, crc32.IEEETable, header[offHeaderCRC+4:])
}

func readFull(r Reader, p []byte, off int64) error {
	n, err := r.ReadBackAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func sectorsOf(length, sector int64) int64 { return (length + sector - 1) / sector }

// lbaAt is a sector number of the header. A number past int64 is past any disk.
func (t *Table) lbaAt(at int) int64 { return int64(min(le.Uint64(t.header[at:]), 1<<62)) }

func (t *Table) put(at int, lba int64) { le.PutUint64(t.header[at:], uint64(lba)) }

// SectorSize is the size in bytes of the sectors that the table counts in.
func (t *Table) SectorSize() int64 { return t.sector }

// HeaderLBA is the sector of the header, 1 for the primary copy.
func (t *Table) HeaderLBA() int64 { return t.lbaAt(offMyLBA) }

// AlternateLBA is the sector of the other copy's header.
func (t *Table) AlternateLBA() int64 { return t.lbaAt(offAlternate) }

// EntriesLBA is the first sector of the entries.
func (t *Table) EntriesLBA() int64 { return t.lbaAt(offEntriesLBA) }

// EntrySectors is how many sectors the entries occupy.
func (t *Table) EntrySectors() int64 { return sectorsOf(int64(len(t.entries)), t.sector) }

// DiskGUID identifies the disk.
func (t *Table) DiskGUID() GUID { return GUID(t.header[offDiskGUID:]) }

// At is the same table with its header in sector lba, its entries from sector entries, and the other copy in sector alternate.
func (t *Table) At(lba, alternate, entries int64) *Table {
	c := &Table{sector: t.sector, header: bytes.Clone(t.header), entries: bytes.Clone(t.entries)}
	c.put(offMyLBA, lba)
	c.put(offAlternate, alternate)
	c.put(offEntriesLBA, entries)
	return c
}

// Clone is a copy of the table that can be changed.
func (t *Table) Clone() *Table { return t.At(t.HeaderLBA(), t.AlternateLBA(), t.EntriesLBA()) }

// SameContent reports whether two copies differ in their places and checksums only.
func (t *Table) SameContent(o *Table) bool {
	a, b := t.At(1, 1, 1).Pieces(), o.At(1, 1, 1).Pieces()
	return bytes.Equal(a[0].Data, b[0].Data) && bytes.Equal(a[1].Data, b[1].Data)
}

// Piece is a run of whole sectors to write.
type Piece struct {
	Offset int64 // bytes
	Data   []byte
}

// Pieces are the sectors of a copy, with right checksums, in the order in which they are written: the entries, then the
// header. Between the two writes the copy is bad.
func (t *Table) Pieces() []Piece {
	h := make([]byte, t.sector)
	n := copy(h, t.header)
	le.PutUint32(h[offEntriesCRC:], crc32.ChecksumIEEE(t.entries))
	le.PutUint32(h[offHeaderCRC:], headerCRC(h[:n]))
	entries := make([]byte, t.EntrySectors()*t.sector)
	copy(entries, t.entries)
	return []Piece{{t.EntriesLBA() * t.sector, entries}, {t.HeaderLBA() * t.sector, h}}
}
