package bmap_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"updater/bmap"
)

const kib, mib = 1 << 10, 1 << 20

// span is short for the tables.
func span(offset, length int64) bmap.Span { return bmap.Span{Offset: offset, Length: length} }

// tmpfsDir returns a directory on tmpfs, which has no FIEMAP.
func tmpfsDir(t *testing.T) string {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		t.Skip("/dev/shm is not a tmpfs")
	}
	dir, err := os.MkdirTemp("/dev/shm", "bmap")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// TestCreate makes maps on the test directory's file system (FIEMAP on ext4, xfs, btrfs) and on tmpfs (SEEK_DATA).
func TestCreate(t *testing.T) {
	tests := []struct {
		name  string
		size  int64
		data  []bmap.Span
		o     bmap.CreateOptions
		want  string
		bytes int64
	}{
		{"one hole", 5 * mib, []bmap.Span{span(28*kib, 12*kib)}, bmap.CreateOptions{}, "7-9", 12 * kib},
		{"no data", mib, nil, bmap.CreateOptions{}, "", 0},
		{"one byte", 1, []bmap.Span{span(0, 1)}, bmap.CreateOptions{}, "0", 1},
		{"one byte sparse", 1, nil, bmap.CreateOptions{}, "", 0},
		{"all data", 64 * kib, []bmap.Span{span(0, 64*kib)}, bmap.CreateOptions{}, "0-15", 64 * kib},
		{"partial last block", 16000, []bmap.Span{span(12288, 3712)}, bmap.CreateOptions{}, "3", 3712},
		{"partial last block unmapped", 16000, []bmap.Span{span(0, 4096)}, bmap.CreateOptions{}, "0", 4096},
		{"one byte in a block maps it", 64 * kib, []bmap.Span{span(5000, 1)}, bmap.CreateOptions{}, "1", 4096},
		{"cut at the default", 3 * mib, []bmap.Span{span(0, 3*mib)}, bmap.CreateOptions{}, "0-127 128-255 256-383 384-511 512-639 640-767", 3 * mib},
		{"cut at multiples", 64 * kib, []bmap.Span{span(12*kib, 24*kib)}, bmap.CreateOptions{MaxRange: 16 * kib}, "3 4-7 8", 24 * kib},
		{"not cut", 3 * mib, []bmap.Span{span(0, 3*mib)}, bmap.CreateOptions{MaxRange: -1}, "0-767", 3 * mib},
		{"large blocks round outwards", 256 * kib, []bmap.Span{span(68*kib, 4*kib)}, bmap.CreateOptions{BlockSize: 65536}, "1", 64 * kib},
		{"large blocks, partial last", 70 * kib, []bmap.Span{span(68*kib, 2*kib)}, bmap.CreateOptions{BlockSize: 65536}, "1", 6 * kib},
		{"small blocks", 64 * kib, []bmap.Span{span(4*kib, 4*kib)}, bmap.CreateOptions{BlockSize: 512}, "8-15", 4 * kib},
		{"other hash", 64 * kib, []bmap.Span{span(4*kib, 4*kib)}, bmap.CreateOptions{ChecksumType: "sha512"}, "1", 4 * kib},
	}
	for _, where := range []string{"disk", "tmpfs"} {
		for _, tt := range tests {
			t.Run(where+"/"+tt.name, func(t *testing.T) {
				dir := t.TempDir()
				if where == "tmpfs" {
					dir = tmpfsDir(t)
				}
				path := sparseImage(t, dir, tt.size, tt.data...)
				m := create(t, path, tt.o)
				if got := rangeTexts(m); got != tt.want {
					t.Errorf("ranges are %q; want %q", got, tt.want)
				}
				if m.MappedBytes() != tt.bytes || m.ImageSize() != tt.size {
					t.Errorf("%d of %d bytes mapped; want %d of %d", m.MappedBytes(), m.ImageSize(), tt.bytes, tt.size)
				}
				wantSound(t, m, path)
			})
		}
	}
}

// wantSound checks a map made from the image at path: it verifies, and survives being written and read.
func wantSound(t *testing.T, m *bmap.Map, path string) {
	t.Helper()
	image := readFile(t, path)
	if err := bmap.Verify(t.Context(), m, bytes.NewReader(image), nil); err != nil {
		t.Errorf("Verify = %v", err)
	}
	for gap := range m.Gaps() {
		if len(bytes.Trim(image[gap.Offset:gap.Offset+gap.Length], "\x00")) != 0 {
			t.Errorf("data is lost in the gap of %d bytes at byte %d", gap.Length, gap.Offset)
		}
	}
	again := mustParse(t, m.Encode())
	if !bytes.Equal(again.Encode(), m.Encode()) {
		t.Errorf("encoding twice differs")
	}
	for i, r := range again.Ranges() {
		if diff := cmp.Diff(m.Range(i), r); diff != "" {
			t.Errorf("range %d after a round trip (-want +got):\n%s", i, diff)
		}
	}
}

// TestCreateAllocation covers what fallocate(2) can do to a file. It needs a file system with FIEMAP.
func TestCreateAllocation(t *testing.T) {
	path := sparseImage(t, t.TempDir(), mib)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	steps := []struct {
		mode           uint32
		offset, length int64
	}{
		{0, 64 * kib, 128 * kib}, // preallocated: blocks 16-47
		{unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, 32 << 12, 4 * kib}, // block 32 is a hole again
		{unix.FALLOC_FL_KEEP_SIZE, mib, mib},                                      // extents past the end
	}
	for _, s := range steps {
		if err := unix.Fallocate(int(f.Fd()), s.mode, s.offset, s.length); err != nil {
			t.Skipf("fallocate: %v", err)
		}
	}
	// Dirty data over a preallocated extent, which only a synced FIEMAP shows.
	if _, err := f.WriteAt([]byte("dirty"), 20<<12); err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil || st.Type != unix.EXT4_SUPER_MAGIC {
		t.Skip("the extents of other file systems differ")
	}
	tests := []struct {
		name   string
		asHole bool
		want   string
	}{
		{"unwritten is data", false, "16-31 33-47"},
		{"unwritten is a hole", true, "20"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := create(t, path, bmap.CreateOptions{UnwrittenAsHole: tt.asHole})
			if got := rangeTexts(m); got != tt.want {
				t.Errorf("ranges are %s; want %s", got, tt.want)
			}
			wantSound(t, m, path)
		})
	}
}

// TestCreateManyExtents has more extents than one FIEMAP call returns.
func TestCreateManyExtents(t *testing.T) {
	const n = 2500
	var data []bmap.Span
	for i := range int64(n) {
		data = append(data, span(i*8*kib, 4*kib))
	}
	for _, where := range []string{"disk", "tmpfs"} {
		t.Run(where, func(t *testing.T) {
			dir := t.TempDir()
			if where == "tmpfs" {
				dir = tmpfsDir(t)
			}
			path := sparseImage(t, dir, n*8*kib, data...)
			m := create(t, path, bmap.CreateOptions{})
			if m.Len() != n || m.MappedBlocks() != n {
				t.Errorf("got %d ranges, %d blocks; want %d of each", m.Len(), m.MappedBlocks(), n)
			}
			for i, r := range m.Ranges() {
				if r.First != int64(2*i) || r.Last != r.First {
					t.Fatalf("range %d is %v; want block %d", i, r, 2*i)
				}
			}
			wantSound(t, m, path)
		})
	}
}

func TestCreateUpdate(t *testing.T) {
	path := sparseImage(t, t.TempDir(), 64*kib, span(0, 4*kib))
	zone := time.FixedZone("", 3600)
	u := &bmap.Update{
		Product: "acme-gw", Version: "2026.11.1 <none>", RollbackIndex: 17, Role: "rootfs", Unmapped: bmap.UnmappedKeep,
		Created: time.Date(2026, 1, 31, 13, 0, 0, 0, zone), Expires: time.Date(2027, 1, 31, 13, 0, 0, 5000, zone),
		ImageChecksum: strings.ToUpper(digestA),
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := bmap.Create(t.Context(), f, bmap.CreateOptions{Update: u}); err == nil || !strings.Contains(err.Error(), "update field Version") {
		t.Errorf("Create with markup in Version = %v", err)
	}
	u.Version = "2026.11.1"
	m := create(t, path, bmap.CreateOptions{Update: u})
	want := *u
	want.Created, want.Expires, want.ImageChecksum = u.Created.UTC(), u.Expires.UTC(), digestA
	if diff := cmp.Diff(&want, mustParse(t, m.Encode()).Update()); diff != "" {
		t.Errorf("update after a round trip (-want +got):\n%s", diff)
	}
}

func TestCreateRefuses(t *testing.T) {
	dir := t.TempDir()
	image := sparseImage(t, dir, 64*kib, span(0, 4*kib))
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, path string
		o          bmap.CreateOptions
		want       string
	}{
		{"empty image", empty, bmap.CreateOptions{}, "image has 0 bytes"},
		{"folder", dir, bmap.CreateOptions{}, "neither a regular file nor a block device"},
		{"character device", "/dev/zero", bmap.CreateOptions{}, "neither a regular file nor a block device"},
		{"range not in blocks", image, bmap.CreateOptions{MaxRange: 5000}, "multiple of the block size 4096"},
		{"range below a block", image, bmap.CreateOptions{MaxRange: 512}, "multiple of the block size 4096"},
		{"block not a power of two", image, bmap.CreateOptions{BlockSize: 3000}, "power of two"},
		{"negative block", image, bmap.CreateOptions{BlockSize: -1}, "power of two"},
		{"unknown hash", image, bmap.CreateOptions{ChecksumType: "crc32"}, "expected sha256"},
		{"negative rollback index", image, bmap.CreateOptions{Update: &bmap.Update{RollbackIndex: -1}}, "update field RollbackIndex"},
		{"image checksum of another hash", image, bmap.CreateOptions{Update: &bmap.Update{ImageChecksum: "abcd"}}, "update field ImageChecksum"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := os.Open(tt.path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if m, err := bmap.Create(t.Context(), f, tt.o); err == nil || m != nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Create = %v, %v; want an error with %q", m, err, tt.want)
			}
		})
	}
}

// TestCreateChanged changes the image from the progress function, while Create reads it.
func TestCreateChanged(t *testing.T) {
	tests := []struct {
		name   string
		change func(path string) error
	}{
		{"written", func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt([]byte("x"), 4096)
			return err
		}},
		{"written, mtime put back", func(path string) error {
			st, err := os.Stat(path)
			if err != nil {
				return err
			}
			return os.Chtimes(path, st.ModTime(), st.ModTime())
		}},
		{"cut", func(path string) error { return os.Truncate(path, 4096) }},
		{"grown", func(path string) error { return os.Truncate(path, 64*mib) }},
		{"replaced", func(path string) error {
			if err := os.WriteFile(path+".new", []byte("new"), 0o644); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := sparseImage(t, t.TempDir(), 8*mib, span(0, 2*mib), span(4*mib, mib))
			time.Sleep(20 * time.Millisecond) // past the clock tick of older kernels' timestamps
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			changed := false
			m, err := bmap.Create(t.Context(), f, bmap.CreateOptions{Progress: func(int64, int64) {
				if !changed {
					changed = true
					if err := tt.change(path); err != nil {
						t.Error(err)
					}
				}
			}})
			if !errors.Is(err, bmap.ErrChanged) || m != nil {
				t.Errorf("Create = %v, %v; want ErrChanged", m, err)
			}
		})
	}
}

func TestCreateProgressAndCancel(t *testing.T) {
	path := sparseImage(t, t.TempDir(), 4*mib+5, span(0, 2*mib), span(3*mib, mib))
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Seek(77, 0); err != nil {
		t.Fatal(err)
	}
	var steps, last int64
	_, err = bmap.Create(t.Context(), f, bmap.CreateOptions{Progress: func(done, total int64) {
		if done <= last || done > total || total != 4*mib+5 {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		steps, last = steps+1, done
	}})
	if err != nil || last != 4*mib+5 {
		t.Errorf("Create = %v; progress ended at %d", err, last)
	}
	if offset, _ := f.Seek(0, 1); offset != 77 {
		t.Errorf("file offset is %d; want it back at 77", offset)
	}
	for at := range steps + 1 {
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := errors.New("stopped")
		seen := int64(0)
		if at == 0 {
			cancel(stop)
		}
		m, err := bmap.Create(ctx, f, bmap.CreateOptions{Progress: func(int64, int64) {
			if seen++; seen == at {
				cancel(stop)
			}
		}})
		if !errors.Is(err, stop) || m != nil {
			t.Errorf("cancelled at step %d: Create = %v, %v", at, m, err)
		}
		cancel(nil)
	}
}
