package blockdev

import (
	"errors"
	"fmt"
)

// zeroChunk bounds one BLKZEROOUT or fallocate call, which cannot be interrupted.
const zeroChunk = 64 << 20

// Zero makes length bytes at off read as zero: BLKZEROOUT on a block device (the kernel falls back to
// writing zeros where the drive has no command for it), a punched hole in a regular file, and written
// zeros for what is not aligned or where neither works. Discard is never used: discarded blocks may
// read as anything. Durable after [Device.Sync]. BLKZEROOUT drops cached pages of the range, also
// dirty ones (block/ioctl.c), so zero a gap before the data beside it is written, or flush in between.
func (d *Device) Zero(off, length int64) error {
	if err := d.check("zeroing", off, length); err != nil {
		return err
	}
	for length > 0 {
		n := min(length, zeroChunk)
		if err := d.zeroChunk(off, n); err != nil {
			return d.poison(fmt.Errorf("zeroing %s at %d: %w", d.name, off, err))
		}
		off, length = off+n, length-n
	}
	return nil
}

// Discard tells the drive that length bytes at off hold nothing of use: BLKDISCARD, or a punched hole in a file,
// for the whole pages of the range. They read as anything afterwards, so this never stands for zeroing. A
// device that cannot discard leaves them alone, and that is no error.
func (d *Device) Discard(off, length int64) error {
	if err := d.check("discarding", off, length); err != nil {
		return err
	}
	first := (d.base + off + directAlign - 1) &^ (directAlign - 1)
	end := (d.base + off + length) &^ (directAlign - 1)
	for ; first < end; first += zeroChunk {
		err := d.f.Discard(first, min(zeroChunk, end-first))
		if errors.Is(err, errors.ErrUnsupported) {
			return nil
		}
		if err != nil {
			return d.poison(fmt.Errorf("discarding %s at %d: %w", d.name, first-d.base, err))
		}
	}
	return nil
}

func (d *Device) zeroChunk(off, length int64) error {
	// Page-aligned, so that no dirty page straddles the border.
	first := (d.base + off + directAlign - 1) &^ (directAlign - 1)
	end := (d.base + off + length) &^ (directAlign - 1)
	if first >= end {
		return d.writeZeros(off, length)
	}
	err := d.f.ZeroOut(first, end-first)
	if errors.Is(err, errors.ErrUnsupported) {
		return d.writeZeros(off, length)
	}
	if err != nil {
		return err
	}
	if err := d.writeZeros(off, first-d.base-off); err != nil {
		return err
	}
	return d.writeZeros(end-d.base, d.base+off+length-end)
}

func (d *Device) writeZeros(off, length int64) error {
	zeros := make([]byte, min(length, 256<<10))
	for length > 0 {
		n, err := d.write(zeros[:min(length, int64(len(zeros)))], d.base+off)
		if err != nil {
			return err
		}
		off, length = off+int64(n), length-int64(n)
	}
	return nil
}
