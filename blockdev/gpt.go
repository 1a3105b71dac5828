package blockdev

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// GPTOptions say what [FitGPT] does besides moving the backup table.
type GPTOptions struct {
	// SectorSize is the disk's logical sector in bytes, see [SectorSize]; 0 takes the one that the table was made for.
	SectorSize int64
	// GrowLast lets the last partition reach to the end of the disk, in whole MiB. Its file system does not grow.
	GrowLast bool
}

// GPTFit says what [FitGPT] found and did.
type GPTFit struct {
	Found          bool  // the disk has a GUID partition table
	Moved          bool  // the backup table was written to the end of the disk
	OldLBA, NewLBA int64 // sector of the backup header, as the primary one named it, and now
	Grown          int   // number of the partition that grew, 0 for none
	GrownFrom      int64 // its size before and after, in bytes
	GrownTo        int64
}

// A GPTError says why a partition table cannot be fitted. Nothing was written.
type GPTError struct {
	Disk string
	Err  error
}

func (e *GPTError) Error() string { return fmt.Sprintf("partition table of %s: %v", e.Disk, e.Err) }

// Unwrap returns the cause.
func (e *GPTError) Unwrap() error { return e.Err }

// FitGPT makes the GUID partition table of a disk fit its size, after an image that was made for a smaller disk was
// written to it: the backup table moves to the last sectors, the last usable sector follows, both headers and the
// protective MBR name the new places, and all checksums are right (UEFI 2.10, 5.3). A disk without a table is left alone,
// and so is one whose tables fit already. A table that cannot be fitted, such as a damaged primary one, is a [GPTError].
//
// The backup is written and flushed before the primary, so that a power cut leaves one valid table. Everything is durable
// and read back when it returns nil. What lies at the old place of the backup stays there; no header names it any more.
// d is the whole disk, opened exclusively.
func FitGPT(d *Device, o GPTOptions) (GPTFit, error) {
	t, err := readPrimary(d, o.SectorSize)
	if err != nil {
		return GPTFit{}, &GPTError{d.String(), err}
	}
	if t == nil {
		return GPTFit{}, nil
	}
	fit, err := t.fit(d.Size()/t.sector, o.GrowLast)
	if err != nil {
		return fit, &GPTError{d.String(), err}
	}
	if !fit.Moved && fit.Grown == 0 && t.backupIsGood(d) {
		return fit, nil
	}
	fit.Moved = true
	return fit, t.write(d)
}

// fit changes the table in memory for a disk of so many sectors.
func (t *gptTable) fit(sectors int64, grow bool) (GPTFit, error) {
	fit := GPTFit{Found: true, OldLBA: t.get(gptAlternate), NewLBA: sectors - 1}
	end := sectors - 1 - t.entrySectors() // of what partitions may use
	last, number, lastLBA := t.lastPartition()
	if lastLBA >= end {
		return fit, fmt.Errorf("partition %d ends at sector %d, the disk of %d sectors has room up to %d", number, lastLBA, sectors, end-1)
	}
	if first := t.get(gptFirstUsable); first < 2 || first > end {
		return fit, fmt.Errorf("first usable sector is %d, expected 2 to %d", first, end)
	}
	fit.Moved = fit.OldLBA != fit.NewLBA
	if fit.Moved || t.get(gptLastUsable) >= end {
		t.put(gptLastUsable, end-1)
	}
	t.put(gptAlternate, sectors-1)
	t.fitMBR(sectors)
	const mib = 1 << 20
	if newEnd := (t.get(gptLastUsable) + 1) * t.sector / mib * mib / t.sector; grow && last != nil && newEnd-1 > lastLBA {
		first := int64(binary.LittleEndian.Uint64(last[32:]))
		fit.Grown, fit.GrownFrom, fit.GrownTo = number, (lastLBA+1-first)*t.sector, (newEnd-first)*t.sector
		binary.LittleEndian.PutUint64(last[40:], uint64(newEnd-1))
	}
	binary.LittleEndian.PutUint32(t.header[gptEntriesCRC:], crc32.ChecksumIEEE(t.entries))
	return fit, nil
}

func (t *gptTable) put(at int, v int64) { binary.LittleEndian.PutUint64(t.header[at:], uint64(v)) }

func (t *gptTable) entrySectors() int64 {
	return (int64(len(t.entries)) + t.sector - 1) / t.sector
}

// lastPartition finds the partition that ends last: its entry, its number from 1, and its last sector. Without
// partitions these are nil, 0 and 0. A sector number past int64 counts as past any disk.
func (t *gptTable) lastPartition() (entry []byte, number int, lastLBA int64) {
	width := int(binary.LittleEndian.Uint32(t.header[84:]))
	var unused [16]byte
	for i := 0; i*width < len(t.entries); i++ {
		e := t.entries[i*width : (i+1)*width]
		last := int64(min(binary.LittleEndian.Uint64(e[40:]), 1<<62))
		if !bytes.Equal(e[:16], unused[:]) && last > lastLBA {
			entry, number, lastLBA = e, i+1, last
		}
	}
	return entry, number, lastLBA
}

// fitMBR lets a protective MBR span the disk. A hybrid one, with more entries, stays as it is.
func (t *gptTable) fitMBR(sectors int64) {
	if t.mbr[510] != 0x55 || t.mbr[511] != 0xaa {
		return
	}
	var protective []byte
	for i := range 4 {
		e := t.mbr[446+16*i:][:16]
		switch {
		case e[4] == 0:
		case e[4] == 0xee && protective == nil && binary.LittleEndian.Uint32(e[8:]) == 1:
			protective = e
		default:
			return
		}
	}
	if protective != nil {
		binary.LittleEndian.PutUint32(protective[12:], uint32(min(sectors-1, 0xffffffff)))
	}
}

// backupIsGood reports whether the backup at the end of the disk says what the primary says.
func (t *gptTable) backupIsGood(d *Device) bool {
	lba := t.get(gptAlternate)
	raw := make([]byte, t.sector)
	if _, err := d.ReadBackAt(raw, lba*t.sector); err != nil || !bytes.HasPrefix(raw, []byte("EFI PART")) {
		return false
	}
	b := &gptTable{sector: t.sector}
	if err := b.load(d, raw, lba); err != nil {
		return false
	}
	return bytes.Equal(b.entries, t.entries) && bytes.Equal(b.header, t.backupHeader())
}

// backupHeader is the header that belongs to the backup.
func (t *gptTable) backupHeader() []byte {
	b := &gptTable{sector: t.sector, header: bytes.Clone(t.header), entries: t.entries}
	lba := t.get(gptAlternate)
	b.put(gptMyLBA, lba)
	b.put(gptAlternate, 1)
	b.put(gptEntriesLBA, lba-t.entrySectors())
	return sealHeader(b.header)
}

func sealHeader(header []byte) []byte {
	h := bytes.Clone(header)
	binary.LittleEndian.PutUint32(h[gptCRC:], headerCRC(h))
	return h
}

// piece is what is written somewhere, padded to whole sectors.
type piece struct {
	lba  int64
	data []byte
}

// write writes the backup, flushes, writes the primary, flushes, and reads everything back.
func (t *gptTable) write(d *Device) error {
	sector0 := make([]byte, t.sector)
	if _, err := d.ReadBackAt(sector0, 0); err != nil {
		return err
	}
	copy(sector0, t.mbr)
	end := t.get(gptAlternate)
	backup := []piece{{end - t.entrySectors(), t.entries}, {end, t.backupHeader()}}
	primary := []piece{{t.get(gptEntriesLBA), t.entries}, {0, sector0}, {1, sealHeader(t.header)}}
	for _, pieces := range [][]piece{backup, primary} {
		for _, p := range pieces {
			if _, err := d.WriteAt(t.padded(p.data), p.lba*t.sector); err != nil {
				return err
			}
		}
		if err := d.Sync(); err != nil {
			return err
		}
	}
	for _, p := range append(backup, primary...) {
		want := t.padded(p.data)
		got := make([]byte, len(want))
		if _, err := d.ReadBackAt(got, p.lba*t.sector); err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("reading back the partition table of %s at sector %d: %w", d, p.lba, errNotWritten)
		}
	}
	return nil
}

var errNotWritten = errors.New("it is not what was written")

func (t *gptTable) padded(data []byte) []byte {
	out := make([]byte, (int64(len(data))+t.sector-1)/t.sector*t.sector)
	copy(out, data)
	return out
}
