package blockdev

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// The limits on what a table may ask for; real ones have 128 entries of 128 bytes.
const (
	maxGPTEntries = 1 << 20 // bytes
	gptHeaderSize = 92
)

// gptTable is a primary table. The header is kept as raw bytes, so that what we do not know stays as it is.
type gptTable struct {
	sector  int64
	mbr     []byte // 512 bytes
	header  []byte // header-size bytes
	entries []byte
}

// Offsets in the header.
const (
	gptCRC, gptMyLBA, gptAlternate, gptFirstUsable, gptLastUsable, gptEntriesLBA = 16, 24, 32, 40, 48, 72
	gptEntriesCRC                                                                = 88
)

func (t *gptTable) get(at int) int64 { return int64(binary.LittleEndian.Uint64(t.header[at:])) }

// readPrimary reads and checks the primary table; nil is a disk without one.
func readPrimary(d *Device, sector int64) (*gptTable, error) {
	sizes := []int64{512, 4096}
	if sector != 0 && sector != 512 && sector != 4096 {
		return nil, fmt.Errorf("sectors of %d bytes, expected 512 or 4096", sector)
	}
	for _, s := range sizes {
		if d.Size() < 6*s {
			break
		}
		raw := make([]byte, s)
		if _, err := d.ReadBackAt(raw, s); err != nil {
			return nil, err
		}
		if !bytes.HasPrefix(raw, []byte("EFI PART")) {
			continue
		}
		if sector != 0 && s != sector {
			return nil, fmt.Errorf("made for sectors of %d bytes, the disk has %d", s, sector)
		}
		t := &gptTable{sector: s, mbr: make([]byte, 512)}
		if _, err := d.ReadBackAt(t.mbr, 0); err != nil {
			return nil, err
		}
		return t, t.load(d, raw, 1)
	}
	return nil, nil
}

// load checks the header in raw, found at sector lba, and reads its entries.
func (t *gptTable) load(d *Device, raw []byte, lba int64) error {
	size := binary.LittleEndian.Uint32(raw[12:])
	if size < gptHeaderSize || int64(size) > t.sector {
		return fmt.Errorf("header at sector %d says it has %d bytes, expected %d to %d", lba, size, gptHeaderSize, t.sector)
	}
	t.header = bytes.Clone(raw[:size])
	if got, want := headerCRC(t.header), binary.LittleEndian.Uint32(raw[gptCRC:]); got != want {
		return fmt.Errorf("header at sector %d has CRC %08x, it says %08x", lba, got, want)
	}
	if got := t.get(gptMyLBA); got != lba {
		return fmt.Errorf("header at sector %d says it is at %d", lba, got)
	}
	count, width := int64(binary.LittleEndian.Uint32(raw[80:])), int64(binary.LittleEndian.Uint32(raw[84:]))
	if width < 128 || width > 4096 || width&(width-1) != 0 || count < 1 || count*width > maxGPTEntries {
		return fmt.Errorf("header at sector %d says %d entries of %d bytes, expected up to %d bytes of them", lba, count, width, maxGPTEntries)
	}
	at := t.get(gptEntriesLBA)
	if at < 2 || at > d.Size()/t.sector-(count*width+t.sector-1)/t.sector {
		return fmt.Errorf("header at sector %d says that the entries are at sector %d, which is not inside the disk", lba, at)
	}
	t.entries = make([]byte, count*width)
	if _, err := d.ReadBackAt(t.entries, at*t.sector); err != nil {
		return err
	}
	if got, want := crc32.ChecksumIEEE(t.entries), binary.LittleEndian.Uint32(raw[gptEntriesCRC:]); got != want {
		return fmt.Errorf("entries at sector %d have CRC %08x, the header says %08x", at, got, want)
	}
	return nil
}

func headerCRC(header []byte) uint32 {
	h := bytes.Clone(header)
	clear(h[gptCRC : gptCRC+4])
	return crc32.ChecksumIEEE(h)
}
