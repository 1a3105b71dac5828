package blockdev_test

import (
	"bytes"
	"cmp"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"updater/blockdev"
)

// badSector is a disk with a sector of 512 bytes that cannot be read until all of it is written. main goes through a page cache,
// which reads the rest of a page before it writes a part of it.
type badSector struct {
	data []byte
	bad  int64 // where the sector begins, -1 once it was written
	err  error // of a direct read
}

func (b *badSector) Pread(p []byte, off int64) (int, error) {
	if b.bad >= 0 && off < b.bad+512 && off+int64(len(p)) > b.bad {
		return 0, cmp.Or(b.err, error(unix.EIO))
	}
	return copy(p, b.data[off:]), nil
}

func (b *badSector) Pwrite(p []byte, off int64) (int, error) {
	if off <= b.bad && off+int64(len(p)) >= b.bad+512 {
		b.bad = -1
	}
	return copy(b.data[off:], p), nil
}

func (b *badSector) SyncRange(int64, int64, blockdev.SyncFlags) error { return nil }
func (b *badSector) Datasync() error                                  { return nil }
func (b *badSector) DropCache(int64, int64)                           {}
func (b *badSector) ZeroOut(int64, int64) error                       { return unix.EOPNOTSUPP }
func (b *badSector) Discard(int64, int64) error                       { return nil }
func (b *badSector) Close() error                                     { return nil }

type cached struct{ *badSector }

func (c cached) Pwrite(p []byte, off int64) (int, error) {
	first, end := off&^4095, (off+int64(len(p))+4095)&^4095
	page := make([]byte, end-first)
	for at := first; at < end; at += 4096 {
		if at < off || at+4096 > off+int64(len(p)) {
			if _, err := c.Pread(page[at-first:][:4096], at); err != nil {
				return 0, unix.EIO // for any error of the drive (mm/filemap.c)
			}
		}
	}
	copy(page[off-first:], p)
	return c.badSector.Pwrite(page, first)
}

// TestBadSectorIsRewritten writes small areas over a sector that cannot be read, as a power cut leaves them: the write must not
// read it first, and a read beside it must not cover it.
func TestBadSectorIsRewritten(t *testing.T) {
	const size = 64 << 10
	for _, base := range []int64{0, 512, 1536} {
		for _, length := range []int64{512, 1024, 4096, 17408} {
			for bad := base; bad < base+length; bad += 512 {
				disk := &badSector{data: bytes.Repeat([]byte{0xa5}, size), bad: bad}
				d := blockdev.New("area", blockdev.Files{Main: cached{disk}, Sentinel: disk, Direct: disk, Align: 512, Base: base, Size: size - base})
				got := make([]byte, 512)
				for _, off := range []int64{bad - 512 - base, bad + 512 - base} {
					if off < 0 {
						continue
					}
					if _, err := d.ReadBackAt(got, off); err != nil {
						t.Errorf("reading at %d, beside the bad sector at %d: %v", off, bad, err)
					}
				}
				want := bytes.Repeat([]byte{7}, int(length))
				if _, err := d.WriteAt(want, 0); err != nil {
					t.Fatalf("writing %d bytes at %d over the bad sector at %d: %v", length, base, bad, err)
				}
				got = make([]byte, length)
				if _, err := d.ReadBackAt(got, 0); err != nil || !bytes.Equal(got, want) {
					t.Errorf("reading %d bytes at %d back: %v", length, base, err)
				}
				if i := bytes.IndexByte(disk.data[base+length:], 7); i >= 0 || base > 0 && disk.data[base-1] != 0xa5 {
					t.Errorf("writing %d bytes at %d changed bytes beside them", length, base)
				}
			}
		}
	}
}

// TestBadBlock writes a part of a logical block that cannot be read. An image may fill it; a small area leaves it as it is, since the
// drive may answer again, and the block may hold another copy.
func TestBadBlock(t *testing.T) {
	for _, align := range []int64{512, 4096} {
		for _, length := range []int64{100, 700, 5000} {
			for bad := int64(0); bad < length; bad += 512 {
				size := (length + align - 1) / align * align // of the device, which ends with the last block
				open := func() (*badSector, *blockdev.Device) {
					disk := &badSector{data: bytes.Repeat([]byte{0xa5}, 64<<10), bad: bad, err: unix.ENODATA}
					return disk, blockdev.New("slot", blockdev.Files{Main: cached{disk}, Sentinel: disk, Direct: disk, Align: align, Size: size})
				}
				want := bytes.Repeat([]byte{7}, int(length))
				part := bad/align*align+align > length // the block is not all written
				disk, d := open()
				if _, err := d.NewWriter(blockdev.WriterOptions{}); err != nil {
					t.Fatal(err)
				}
				filled := disk.data[length:size]
				if _, err := d.WriteAt(want, 0); err != nil || !bytes.Equal(disk.data[:length], want) || part && !bytes.Equal(filled, make([]byte, len(filled))) {
					t.Errorf("writing %d bytes of an image over the bad sector at %d: %v", length, bad, err)
				}
				disk, d = open()
				if _, err := d.WriteAt(want, 0); part && !errors.Is(err, unix.EIO) || bytes.IndexByte(disk.data, 0) >= 0 {
					t.Errorf("writing a small area of %d bytes over the bad sector at %d: %v; want EIO, and nothing filled", length, bad, err)
				}
			}
		}
	}
}

// TestBadBlockStays: a part of an unreadable block is an error, and nothing becomes zero, if the block reaches out of the window, if
// blocks cannot be written alone, and if they cannot be written, or cannot be read for another reason.
func TestBadBlockStays(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(f *blockdev.Files)
		off    int64
		bad    int64
	}{
		"before the window":  {func(f *blockdev.Files) { f.Base = 256 }, 0, 0},
		"behind the window":  {func(f *blockdev.Files) { f.Size = 700 }, 600, 512},
		"no O_DIRECT":        {func(f *blockdev.Files) { f.Direct = nil }, 0, 0},
		"blocks of 8192":     {func(f *blockdev.Files) { f.Align = 8192 }, 0, 0},
		"other read errors":  {func(f *blockdev.Files) { f.Direct = failing{f.Direct, unix.EPERM} }, 0, 0},
		"a short read":       {func(f *blockdev.Files) { f.Direct = short{f.Direct.(*badSector)} }, 0, 0},
		"a write that fails": {func(f *blockdev.Files) { f.Direct = refusing{f.Direct.(*badSector)} }, 0, 0},
	} {
		disk := &badSector{data: bytes.Repeat([]byte{0xa5}, 64<<10), bad: tt.bad}
		f := blockdev.Files{Main: cached{disk}, Sentinel: disk, Direct: disk, Align: 512, Size: 32 << 10}
		tt.change(&f)
		d := blockdev.New("slot", f)
		if _, err := d.NewWriter(blockdev.WriterOptions{Engine: blockdev.Paced}); err != nil {
			t.Fatal(err)
		}
		n, err := d.WriteAt(bytes.Repeat([]byte{7}, 100), tt.off)
		if err == nil || n != 0 || bytes.Count(disk.data, []byte{0xa5}) != len(disk.data) || d.Sync() == nil {
			t.Errorf("%s: WriteAt = %d, %v; want an error that is final, and nothing written", name, n, err)
		}
	}
}

// short is a descriptor that reads less than a block, as at the end of a file.
type short struct{ *badSector }

func (s short) Pread(p []byte, off int64) (int, error) {
	if len(p) > 512 {
		return s.badSector.Pread(p, off)
	}
	return copy(p[:100], s.data[off:]), nil
}

// TestBadSectorIsZeroed zeros a range whose first part of a page cannot be read.
func TestBadSectorIsZeroed(t *testing.T) {
	disk := &badSector{data: bytes.Repeat([]byte{0xa5}, 64<<10), bad: 1024}
	d := blockdev.New("slot", blockdev.Files{Main: cached{disk}, Sentinel: disk, Direct: disk, Align: 512, Base: 512, Size: 32 << 10})
	if _, err := d.NewWriter(blockdev.WriterOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := d.Zero(512, 16<<10); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 16<<10)
	if _, err := d.ReadBackAt(got, 512); err != nil || !bytes.Equal(got, make([]byte, len(got))) {
		t.Errorf("reading the zeros back: %v", err)
	}
}

// refusing is a descriptor on which O_DIRECT accepts no write.
type refusing struct{ *badSector }

func (refusing) Pwrite([]byte, int64) (int, error) { return 0, unix.EINVAL }

// TestDirectIsRefused writes through the page cache if the file system refuses a direct write.
func TestDirectIsRefused(t *testing.T) {
	disk := &badSector{data: make([]byte, 64<<10), bad: -1}
	d := blockdev.New("area", blockdev.Files{Main: cached{disk}, Sentinel: disk, Direct: refusing{disk}, Align: 512, Size: 64 << 10})
	if _, err := d.WriteAt(bytes.Repeat([]byte{7}, 512), 512); err != nil || bytes.Count(disk.data, []byte{7}) != 512 {
		t.Errorf("WriteAt = %v; want 512 bytes written", err)
	}
}
