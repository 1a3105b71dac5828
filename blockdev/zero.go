package blockdev

import (
	"errors"
	"fmt"
)

// Zero makes length bytes at off read as zero: by BLKZEROOUT on a block device (the kernel writes zeros if the drive has no command
// for it), by a punched hole in a regular file, and by written zeros for unaligned edges or if neither is supported. It never
// discards: discarded blocks may read as anything. Durable after [Device.Sync]. BLKZEROOUT drops cached pages of the range,
// even dirty ones (block/ioctl.c), so zero a gap before writing the data beside it, or flush in between. An error poisons the
// device.
func (d *Device) Zero(off, length int64) error {
	if err := d.check("zeroing", off, length); err != nil {
		return err
	}
	for length > 0 {
		n := min(length, d.zeroing)
		if err := d.zeroChunk(off, n); err != nil {
			return d.poison(fmt.Errorf("zeroing %s at %d: %w", d.name, off, err))
		}
		off, length = off+n, length-n
	}
	return nil
}

// Discard discards the whole pages of length bytes at off: by BLKDISCARD, or by a punched hole in a file. Afterwards they read as
// anything, so it cannot replace Zero. It does nothing on a device that cannot discard. An error poisons the device.
func (d *Device) Discard(off, length int64) error {
	if err := d.check("discarding", off, length); err != nil {
		return err
	}
	first := (d.base + off + directAlign - 1) &^ (directAlign - 1)
	end := (d.base + off + length) &^ (directAlign - 1)
	for ; first < end; first += d.zeroing {
		err := d.f.Discard(first, min(d.zeroing, end-first))
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
	// Whole pages, so that no dirty page straddles the border.
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
