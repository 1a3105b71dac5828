package blockdev

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"updater/blockdev/fat"
	"updater/blockdev/gpt"
	"updater/blockdev/mbr"
)

// GPTOptions are the options of [FitGPT] and [CheckImage].
type GPTOptions struct {
	// SectorSize is the disk's logical sector in bytes, see [SectorSize]; 0 is the one that the table was made for.
	SectorSize int64
	// GrowLast lets the last partition reach to the end of the disk, in whole MiB. Its file system does not grow. A disk
	// without a GPT is then an error.
	GrowLast bool
}

// GPTFit is the result of [FitGPT].
type GPTFit struct {
	Found          bool  // the disk has a GUID partition table
	Moved          bool  // the backup table was written to the end of the disk
	OldLBA, NewLBA int64 // sector of the backup header, as the primary one named it, and now
	Grown          int   // number of the partition that grew, 0 for none
	GrownFrom      int64 // its size before and after, in bytes
	GrownTo        int64
}

// A GPTError is the reason why a partition table cannot be fitted. Nothing was written.
type GPTError struct {
	Disk string // or the image
	Err  error
}

func (e *GPTError) Error() string { return fmt.Sprintf("partition table of %s: %v", e.Disk, e.Err) }

// Unwrap returns the cause.
func (e *GPTError) Unwrap() error { return e.Err }

// A SectorSizeError reports a partition table, or a file system, that is made for other sectors than those of the disk. Linux ignores it there.
type SectorSizeError struct {
	Table, Disk int64 // bytes of a sector
}

func (e *SectorSizeError) Error() string {
	return fmt.Sprintf("made for sectors of %d bytes, the disk has %d", e.Table, e.Disk)
}

// FitGPT makes the GUID partition table of a disk fit its size, after an image that was made for a smaller disk was written to
// it: the backup table moves to the last sectors, the last usable sector follows, both headers and the protective MBR name the
// new places, and all checksums are updated (UEFI 2.10, 5.3). A disk without a GPT is left alone, and so is one whose tables fit
// already. A table that cannot be fitted, such as a damaged primary one, is a [GPTError].
//
// The backup is written and flushed before the primary, so that a power cut leaves one valid table. Everything is durable and
// read back when it returns nil. The bytes at the old place of the backup stay there; no header names them any more. d is the
// whole disk, opened exclusively. [CheckImage] finds the same errors in an image, before it is written.
func FitGPT(d *Device, o GPTOptions) (GPTFit, error) {
	t, err := primaryFor(d, d.Size(), o)
	if err != nil {
		return GPTFit{}, &GPTError{d.String(), err}
	}
	if t == nil {
		return GPTFit{}, nil
	}
	sectors := d.Size() / t.SectorSize()
	f, err := t.Fit(sectors, o.GrowLast)
	fit := GPTFit{Found: true, Moved: f.OldLBA != f.NewLBA, OldLBA: f.OldLBA, NewLBA: f.NewLBA, Grown: f.Grown, GrownFrom: f.GrownFrom,
		GrownTo: f.GrownTo}
	if err != nil {
		return fit, &GPTError{d.String(), err}
	}
	if !fit.Moved && fit.Grown == 0 && holds(d, t.Mirror().Pieces()) {
		return fit, nil
	}
	mbr := make([]byte, 512)
	if _, err := d.ReadBackAt(mbr, 0); err != nil {
		return fit, err
	}
	fit.Moved = true
	if err := gpt.Write(d, t, gpt.FitMBR(mbr, sectors)); err != nil {
		return fit, fmt.Errorf("writing the partition table of %s: %w", d, err)
	}
	return fit, nil
}

// holds reports whether the medium has the pieces.
func holds(d *Device, pieces []gpt.Piece) bool {
	for _, p := range pieces {
		got := make([]byte, len(p.Data))
		if _, err := d.ReadBackAt(got, p.Offset); err != nil || !bytes.Equal(got, p.Data) {
			return false
		}
	}
	return true
}

// primaryFor reads the primary copy that is to be fitted, nil where there is no GPT and none is needed.
func primaryFor(r gpt.Reader, size int64, o GPTOptions) (*gpt.Table, error) {
	if o.SectorSize != 0 && o.SectorSize != 512 && o.SectorSize != 4096 {
		return nil, fmt.Errorf("sectors of %d bytes, expected 512 or 4096", o.SectorSize)
	}
	for _, s := range sectorSizes(o.SectorSize) {
		if size < 2*s {
			continue
		}
		t, err := gpt.ReadCopy(r, size, s, 1)
		switch {
		case errors.Is(err, gpt.ErrNoSignature):
			continue
		case o.SectorSize != 0 && s != o.SectorSize:
			return nil, &SectorSizeError{Table: s, Disk: o.SectorSize}
		}
		return t, err
	}
	if !o.GrowLast {
		return nil, nil
	}
	if _, err := mbr.Read(r, size, 512); !errors.Is(err, mbr.ErrNone) {
		return nil, errors.New("MBR found, expected a GUID partition table to grow its last partition")
	}
	return nil, errors.New("no partition table found, expected a GUID partition table to grow its last partition")
}

// otherSectors is the sector in bytes that an image without a GPT was made for, 0 if that may be own: that of a file system with
// smaller sectors, or 512 for an MBR whose partitions lie inside the image only in sectors of that size.
func otherSectors(r gpt.Reader, size, own int64) int64 {
	if own <= 512 {
		return 0
	}
	if s := fileSystemSector(r, size); s != 0 && s < own {
		return s
	}
	_, err := mbr.Read(r, size, 512)
	fits := err == nil || errors.Is(err, errBeyond) // at the first logical partition
	if _, err := mbr.Read(r, size, own); fits && err != nil && !errors.Is(err, errBeyond) {
		return 512
	}
	return 0
}

// fileSystemSector is the sector of a FAT file system, or the block of an ext one, in bytes; 0 for anything else. Linux mounts neither on a
// disk with larger sectors (fs/fat/inode.c, fat_fill_super; fs/ext4/super.c, ext4_load_super).
func fileSystemSector(r gpt.Reader, size int64) int64 {
	super := make([]byte, 64) // ext4: fs/ext4/ext4.h, ext4_super_block
	if n, _ := r.ReadBackAt(super, 1024); n == len(super) && binary.LittleEndian.Uint16(super[56:]) == 0xef53 {
		if log := binary.LittleEndian.Uint32(super[24:]); log <= 6 {
			return 1024 << log
		}
	}
	if f, err := fat.Open(r, size); err == nil {
		return f.SectorSize()
	}
	return 0
}

// CheckImage returns a [SectorSizeError] for a file system that Linux does not mount on the device because its sectors are larger. head
// is the beginning of an image of size bytes.
func (w *Writer) CheckImage(head []byte, size int64) error {
	if w.d.node == "" || w.d.direct == nil { // a file has no sectors
		return nil
	}
	if s := fileSystemSector(headReader{bytes.NewReader(head)}, size); s != 0 && s < w.d.align {
		return &SectorSizeError{Table: s, Disk: w.d.align}
	}
	return nil
}

// CheckImage returns, before anything is written, the error of [FitGPT] for an image on a disk of diskSize bytes: a table for other
// sectors, one that is too large, or no partition that can grow. head is the first [TableBytes] of the image, or all of a shorter
// one, size its length in bytes; name stands for it in errors. A table that is not entirely in head is not judged. The error is a
// [GPTError].
func CheckImage(name string, head []byte, size, diskSize int64, o GPTOptions) error {
	r := headReader{bytes.NewReader(head)}
	t, err := primaryFor(r, size, o)
	if errors.Is(err, errBeyond) {
		return nil
	}
	if s := otherSectors(r, size, o.SectorSize); s != 0 && t == nil && err == nil {
		err = &SectorSizeError{Table: s, Disk: o.SectorSize}
	}
	if err == nil && t != nil {
		_, err = t.Fit(diskSize/t.SectorSize(), o.GrowLast)
	}
	if err != nil {
		return &GPTError{name, err}
	}
	return nil
}
