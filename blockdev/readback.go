package blockdev

import (
	"fmt"
	"io"
	"unsafe"
)

// ReadBackAt reads len(p) bytes at off from the medium, past the page cache: with O_DIRECT, or, if the file system does not support
// it (see ReadBackDirect), through the page cache after dropping clean pages. Call it after [Device.Sync]; otherwise the data
// may come from pages that never reached the medium. It may still come from the drive's cache, which the flush made durable.
//
// It reads whole logical blocks and no more, so a bad sector beside them does not matter. If p and off are page-aligned, no
// copy is made.
//
// The error of a bad sector is ENODATA or EIO (block/blk-core.c, blk_errors).
func (d *Device) ReadBackAt(p []byte, off int64) (int, error) {
	if off < 0 || off > d.size {
		return 0, fmt.Errorf("reading back %s: offset %d is outside its %d bytes", d.name, off, d.size)
	}
	want := min(int64(len(p)), d.size-off)
	var n int64
	for n < want {
		got, err := d.readBackChunk(p[n:want], off+n)
		n += int64(got)
		if err != nil {
			return int(n), fmt.Errorf("reading back %s at %d: %w", d.name, off+n, err)
		}
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// ReadBackDirect reports whether read-back uses O_DIRECT.
func (d *Device) ReadBackDirect() bool { return d.direct != nil }

func (d *Device) readBackChunk(p []byte, off int64) (int, error) {
	abs := d.base + off
	if d.direct == nil {
		d.dropCache(off, int64(len(p)))
		n, err := d.f.Pread(p[:min(len(p), d.chunk)], abs)
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		return n, err
	}
	if n := min(len(p), d.chunk) &^ (directAlign - 1); n > 0 && abs%directAlign == 0 && aligned(p) {
		got, err := d.direct.Pread(p[:n], abs)
		if err != nil {
			return 0, fmt.Errorf("direct read of %d bytes at %d: %w", n, abs, err)
		}
		if got == 0 {
			return 0, io.ErrUnexpectedEOF
		}
		return got, nil
	}
	buf := d.bounce.Get().(*[]byte)
	defer d.bounce.Put(buf)
	start := abs &^ (d.align - 1)
	skip := int(abs - start)
	length := min((int64(skip+len(p))+d.align-1)&^(d.align-1), int64(d.chunk))
	got, err := d.direct.Pread((*buf)[:length], start)
	if err != nil {
		return 0, fmt.Errorf("direct read of %d bytes at %d: %w", length, start, err)
	}
	if got <= skip {
		return 0, io.ErrUnexpectedEOF
	}
	return copy(p, (*buf)[skip:got]), nil
}

// aligned reports whether O_DIRECT accepts the memory of p. Slices of several pages from make are aligned.
func aligned(p []byte) bool { return uintptr(unsafe.Pointer(&p[0]))%directAlign == 0 }

// alignedBuffer returns n bytes whose address is a multiple of directAlign, as O_DIRECT requires.
func alignedBuffer(n int) *[]byte {
	raw := make([]byte, n+directAlign)
	shift := (directAlign - int(uintptr(unsafe.Pointer(&raw[0]))%directAlign)) % directAlign
	buf := raw[shift : shift+n : shift+n]
	return &buf
}
