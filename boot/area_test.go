package boot_test

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"updater/blockdev"
	"updater/boot"
	"updater/boot/boottest"
	"updater/internal/crashdisk"
)

// badFile is a descriptor on a medium with an unreadable sector. As in Linux, a buffered write reads the rest of its page
// first, and a write that covers the sector makes it readable.
type badFile struct {
	blockdev.File
	direct bool
	off    int64
	healed *bool
}

func (f badFile) hit(off, n int64) bool {
	return !*f.healed && off < f.off+boot.Sector && off+n > f.off
}

func (f badFile) Pread(p []byte, off int64) (int, error) {
	if f.hit(off, int64(len(p))) {
		return 0, unix.EIO
	}
	return f.File.Pread(p, off)
}

func (f badFile) Pwrite(p []byte, off int64) (int, error) {
	const page = 4096
	end := off + int64(len(p))
	if partial := off%page != 0 || end%page != 0; !f.direct && partial && f.hit(off-off%page, (end+page-1)/page*page-(off-off%page)) {
		return 0, unix.EIO
	}
	*f.healed = *f.healed || f.hit(off, int64(len(p)))
	return f.File.Pwrite(p, off)
}

// badDevice is a device of 8 KiB at 4 KiB of a disk, with an unreadable sector at off.
func badDevice(t *testing.T, off int64) *blockdev.Device {
	t.Helper()
	files := crashdisk.New(make([]byte, 16<<10), crashdisk.Options{}).Files(4096, 8192)
	healed := false
	files.Main = badFile{files.Main, false, 4096 + off, &healed}
	files.Direct = badFile{files.Direct, true, 4096 + off, &healed}
	return blockdev.New("medium", files)
}

// An unreadable sector is repaired by a write that covers it, and does not affect the sectors beside it.
func TestWriteVerifiedRepairs(t *testing.T) {
	for _, c := range []struct{ bad, off, n int64 }{{512, 512, 512}, {512, 0, 1024}, {512, 1024, 512}, {4096, 512, 512}, {0, 0, 8192}} {
		d := badDevice(t, c.bad)
		want := bytes.Repeat([]byte{7}, int(c.n))
		if err := boot.WriteVerified(d, want, c.off); err != nil {
			t.Errorf("bad sector at %d: WriteVerified(%d bytes at %d) = %v", c.bad, c.n, c.off, err)
		}
	}
}

// ReadSectors reports the unreadable sectors and reads all others.
func TestReadSectors(t *testing.T) {
	d := badDevice(t, 1536)
	if err := boot.WriteVerified(d, bytes.Repeat([]byte{7}, 512), 4096); err != nil {
		t.Fatal(err)
	}
	data, bad := boot.ReadSectors(d)
	if len(bad) != 1 || bad[0] != 1536 || data[4096] != 7 || data[1536] != 0 {
		t.Errorf("ReadSectors = bad %v, data[4096] = %d; want 1536 and 7", bad, data[4096])
	}
	if _, err := boot.ReadAll(d); !errors.Is(err, unix.EIO) || !errors.Is(err, boot.ErrState) {
		t.Errorf("ReadAll = %v; want EIO and ErrState", err)
	}
}

// TestWriteVerifiedFails: a write, a flush or a read-back that fails is an error, and so is a write that the medium does not hold, whatever the
// page cache shows.
func TestWriteVerifiedFails(t *testing.T) {
	for _, kind := range []crashdisk.Kind{crashdisk.EIO, crashdisk.LostWrite, crashdisk.LyingFlush} {
		for n := 1; ; n++ {
			disk := crashdisk.New(make([]byte, 16<<10), crashdisk.Options{NoDirect: true})
			d := disk.Device("medium", 4096, 8192)
			disk.Inject(crashdisk.Fault{N: n, Kind: kind})
			err := boot.WriteVerified(d, bytes.Repeat([]byte{7}, 512), 1024)
			if disk.Fired() > 0 && !errors.Is(err, boot.ErrState) || disk.Fired() == 0 && err != nil {
				t.Errorf("%v at operation %d, %d times: WriteVerified = %v", kind, n, disk.Fired(), err)
			}
			if disk.Operations() < n {
				break
			}
		}
	}
}

// TestReadsTheMedium: boot state is read from the medium, which a boot loader may have changed behind the page cache.
func TestReadsTheMedium(t *testing.T) {
	for _, noDirect := range []bool{false, true} {
		disk := crashdisk.New(make([]byte, 16<<10), crashdisk.Options{NoDirect: noDirect, Damage: func(int64) bool { return true }})
		d := disk.Device("medium", 4096, 8192)
		if _, err := d.ReadAt(make([]byte, 8192), 0); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(disk.WriteCommand(bytes.Repeat([]byte{7}, 512), 8192), disk.WriteCommand(crashdisk.Unreadable[:512], 4096)); err != nil {
			t.Fatal(err)
		}
		data, bad := boot.ReadSectors(d)
		if len(bad) == 0 || bad[0] != 0 || data[4096] != 7 || data[0] != 0 {
			t.Errorf("ReadSectors = sectors %v are bad, %d and %d; want 0, 0 and 7", bad, data[0], data[4096])
		}
		if err := disk.WriteCommand(make([]byte, 512), 4096); err != nil {
			t.Fatal(err)
		}
		if data, err := boot.ReadAll(d); err != nil || data[4096] != 7 {
			t.Errorf("ReadAll = %d, %v; want 7", data[4096], err)
		}
	}
}

// short is an area whose medium ends early.
type short struct{ boot.Area }

func (s short) ReadBackAt(p []byte, off int64) (int, error) {
	n, err := s.Area.ReadBackAt(p, off)
	return max(0, n-1), cmp.Or(err, io.EOF)
}

// TestReadAllOfShortMedium: a medium that ends inside the area is an error, and its sectors count as unreadable: they are zero, whatever was read.
func TestReadAllOfShortMedium(t *testing.T) {
	a := short{boottest.NewMedium(bytes.Repeat([]byte{7}, 2*boot.Sector)).Areas()[0]}
	if _, err := boot.ReadAll(a); !errors.Is(err, boot.ErrState) {
		t.Errorf("ReadAll = %v; want ErrState", err)
	}
	if data, bad := boot.ReadSectors(a); !slices.Equal(bad, []int64{0, boot.Sector}) || !bytes.Equal(data, make([]byte, 2*boot.Sector)) {
		t.Errorf("ReadSectors = sectors %v are bad, %x; want both, as zeros", bad, data)
	}
}

// TestWriteChanged: one write covers all sectors that differ, and nothing is written where none does.
func TestWriteChanged(t *testing.T) {
	for _, c := range []struct {
		at   []int
		want [][2]int64
	}{
		{nil, nil}, {[]int{0}, [][2]int64{{0, 512}}}, {[]int{513, 1600}, [][2]int64{{512, 2048}}}, {[]int{2099}, [][2]int64{{2048, 2100}}},
		{[]int{0, 700, 2099}, [][2]int64{{0, 2100}}},
	} {
		old := make([]byte, 2100)
		data := bytes.Clone(old)
		for _, at := range c.at {
			data[at] = 1
		}
		m := boottest.NewMedium(old)
		var spans [][2]int64
		err := boot.WriteChanged(spanned{m.Areas()[0], &spans}, old, data)
		if err != nil || !slices.Equal(spans, c.want) || !bytes.Equal(m.Snapshot()[0], data) {
			t.Errorf("changes at %v: WriteChanged = %v and wrote %v; want %v", c.at, err, spans, c.want)
		}
	}
}

// spanned is an area that records its writes.
type spanned struct {
	boot.Area
	spans *[][2]int64
}

func (s spanned) WriteAt(p []byte, off int64) (int, error) {
	*s.spans = append(*s.spans, [2]int64{off, off + int64(len(p))})
	return s.Area.WriteAt(p, off)
}
