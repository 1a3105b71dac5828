package bmap_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"updater/bmap"
)

// A fileSystem is one that the tests mount: on a loop device, or made of nothing.
type fileSystem struct {
	name  string
	mkfs  []string // "" arguments are none; the image file comes last
	mount []string // arguments of mount before source and target
}

func fileSystems() []fileSystem {
	return []fileSystem{
		{"ext4", []string{"mkfs.ext4", "-q", "-F"}, nil},
		{"ext4 1k", []string{"mkfs.ext4", "-q", "-F", "-b", "1024"}, nil},
		{"ext4 inline_data", []string{"mkfs.ext4", "-q", "-F", "-O", "inline_data", "-I", "256"}, nil},
		{"ext3 without extents", []string{"mkfs.ext4", "-q", "-F", "-O", "^extents,^64bit"}, nil},
		{"xfs", []string{"mkfs.xfs", "-q", "-f"}, nil},
		{"xfs 1k", []string{"mkfs.xfs", "-q", "-f", "-b", "size=1024"}, nil},
		{"xfs 64k", []string{"mkfs.xfs", "-q", "-f", "-b", "size=65536"}, nil},
		{"btrfs", []string{"mkfs.btrfs", "-q", "-f"}, nil},
		{"btrfs compressed", []string{"mkfs.btrfs", "-q", "-f"}, []string{"-o", "compress-force=zstd"}},
		{"tmpfs", nil, []string{"-t", "tmpfs", "tmpfs"}},
		{"overlay", []string{"mkfs.ext4", "-q", "-F"}, nil},
	}
}

// mountFS makes and mounts a file system, or skips with a reason.
func mountFS(t *testing.T, fs fileSystem) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	work := t.TempDir()
	if fs.mkfs != nil { // in memory, where a sync costs nothing
		work = tmpfsDir(t)
	}
	dir := filepath.Join(work, "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	mount := append([]string{}, fs.mount...)
	if fs.mkfs != nil {
		needTool(t, fs.mkfs[0])
		image := filepath.Join(work, "fs")
		if err := os.WriteFile(image, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(image, 400*mib); err != nil {
			t.Fatal(err)
		}
		run(t, fs.mkfs[0], append(fs.mkfs[1:], image)...)
		mount = append(mount, "-o", "loop", image)
	}
	mountOrSkip(t, fs.name, append(mount, dir)...)
	if fs.name != "overlay" {
		return dir
	}
	for _, sub := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	merged := filepath.Join(dir, "merged")
	mountOrSkip(t, fs.name, "-t", "overlay", "overlay", "-o",
		fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", dir, dir, dir), merged)
	return merged
}

func mountOrSkip(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
		t.Skipf("NOT TESTED on %s: this kernel does not mount it here: %s", name, strings.TrimSpace(string(out)))
	}
	dir := args[len(args)-1]
	t.Cleanup(func() { run(t, "umount", dir) })
}

// A shape fills an image of 8 MiB + 100 bytes. It returns false if the file system cannot do it.
type shape struct {
	name string
	make func(t *testing.T, f *os.File) bool
	data []bmap.Span // must be mapped with any options
	both bool        // compare with bmaptool, which is slow
}

const shapeSize = 8*mib + 100

func fallocate(t *testing.T, f *os.File, mode uint32, s bmap.Span) bool {
	t.Helper()
	err := unix.Fallocate(int(f.Fd()), mode, s.Offset, s.Length)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	return true
}

// write writes bytes that do not compress, or that do, and that are never zero.
func write(t *testing.T, f *os.File, compressible bool, spans ...bmap.Span) bool {
	t.Helper()
	for _, s := range spans {
		b := bytes.Repeat([]byte("abcdefgh"), int(s.Length/8+1))[:s.Length]
		if !compressible {
			imageFor(int(s.Length)).Read(b)
			for i := range b {
				b[i] |= 1
			}
		}
		if _, err := f.WriteAt(b, s.Offset); err != nil {
			t.Fatal(err)
		}
	}
	return true
}

func sync(t *testing.T, f *os.File) bool {
	t.Helper()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	return true
}

func fileShapes() []shape {
	const punch = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	ends := []bmap.Span{span(0, 4*kib), span(8*mib, 100)}
	var comb []bmap.Span
	for i := range int64(1500) { // more extents than one call of FIEMAP returns
		comb = append(comb, span(i*5*kib+1*kib, 1))
	}
	return []shape{
		{"nothing", func(*testing.T, *os.File) bool { return true }, nil, false},
		{"dirty", func(t *testing.T, f *os.File) bool { return write(t, f, false, ends...) }, ends, false},
		{"dirty over preallocated", func(t *testing.T, f *os.File) bool {
			return fallocate(t, f, 0, span(0, 4*mib)) && sync(t, f) && write(t, f, false, span(mib+7, 9))
		}, []bmap.Span{span(mib+7, 9)}, true},
		{"preallocated past the end", func(t *testing.T, f *os.File) bool {
			return fallocate(t, f, unix.FALLOC_FL_KEEP_SIZE, span(7*mib, 8*mib)) && write(t, f, false, span(7*mib, 1))
		}, []bmap.Span{span(7*mib, 1)}, false},
		{"punched", func(t *testing.T, f *os.File) bool {
			return write(t, f, false, span(0, 8*mib)) && sync(t, f) && fallocate(t, f, punch, span(mib+10, 2*mib)) && write(t, f, false, span(2*mib, 3))
		}, []bmap.Span{span(0, mib+10), span(2*mib, 3), span(3*mib+10, 5*mib-10)}, true},
		{"zero range", func(t *testing.T, f *os.File) bool {
			return write(t, f, false, span(0, mib)) && sync(t, f) && fallocate(t, f, unix.FALLOC_FL_ZERO_RANGE, span(4*kib, 64*kib))
		}, []bmap.Span{span(0, 4*kib), span(68*kib, 956*kib)}, false},
		{"compressible", func(t *testing.T, f *os.File) bool {
			return write(t, f, true, span(300*kib+1, 3*mib), span(8*mib, 100))
		},
			[]bmap.Span{span(300*kib+1, 3*mib), span(8*mib, 100)}, false},
		{"compressible, synced", func(t *testing.T, f *os.File) bool {
			return write(t, f, true, span(0, mib), span(5*mib, 77)) && sync(t, f)
		},
			[]bmap.Span{span(0, mib), span(5*mib, 77)}, true},
		{"comb", func(t *testing.T, f *os.File) bool { return write(t, f, false, comb...) }, comb, false},
		{"comb, synced", func(t *testing.T, f *os.File) bool { return write(t, f, false, comb...) && sync(t, f) }, comb, true},
		{"written zeros", func(t *testing.T, f *os.File) bool {
			_, err := f.WriteAt(make([]byte, mib), 2*mib)
			return err == nil && write(t, f, false, span(3*mib, 1))
		}, []bmap.Span{span(3*mib, 1)}, false},
		{"mapped memory", func(t *testing.T, f *os.File) bool {
			b, err := unix.Mmap(int(f.Fd()), 0, shapeSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err != nil {
				return false
			}
			b[5*mib+1], b[8*mib+99] = 'x', 'y'
			return unix.Munmap(b) == nil
		}, []bmap.Span{span(5*mib+1, 1), span(8*mib+99, 1)}, false},
		{"inline", func(t *testing.T, f *os.File) bool {
			return f.Truncate(0) == nil && write(t, f, true, span(0, 90)) && sync(t, f)
		}, []bmap.Span{span(0, 90)}, true},
		{"inline, sparse behind", func(t *testing.T, f *os.File) bool {
			return f.Truncate(0) == nil && write(t, f, true, span(0, 90)) && sync(t, f) && f.Truncate(shapeSize) == nil
		}, []bmap.Span{span(0, 90)}, false},
	}
}

// TestFileSystems makes maps of files in every state on real file systems: no byte of data may be lost, whatever the
// kernel reports, and bmaptool's map of the same file must agree.
func TestFileSystems(t *testing.T) {
	for _, fs := range fileSystems() {
		t.Run(fs.name, func(t *testing.T) {
			dir := mountFS(t, fs)
			for i, s := range fileShapes() {
				t.Run(s.name, func(t *testing.T) {
					path := filepath.Join(dir, fmt.Sprintf("image%d", i))
					f, err := os.Create(path)
					if err != nil {
						t.Fatal(err)
					}
					defer f.Close()
					if err := f.Truncate(shapeSize); err != nil {
						t.Fatal(err)
					}
					if !s.make(t, f) {
						t.Skipf("NOT TESTED: %s cannot do this", fs.name)
					}
					checkEveryMap(t, path, s)
				})
			}
		})
	}
}

// checkEveryMap makes the maps of one image in all ways. The first one meets the file as it is, dirty.
func checkEveryMap(t *testing.T, path string, s shape) {
	t.Helper()
	options := []bmap.CreateOptions{
		{UnwrittenAsHole: true}, {}, {ScanZeros: true}, {BlockSize: 512}, {BlockSize: 65536, ScanZeros: true},
	}
	var mapped []int64
	for _, o := range options {
		m := create(t, path, o)
		wantSound(t, m, path)
		wantMapped(t, m, s.data)
		mapped = append(mapped, m.MappedBlocks())
	}
	if mapped[0] > mapped[1] || mapped[2] > mapped[0] {
		t.Errorf("%d blocks are mapped with unwritten extents as holes, %d without, %d by content; want them to grow", mapped[0], mapped[1], mapped[2])
	}
	if s.both {
		wantMapped(t, bmaptoolCreate(t, path), s.data)
	}
}

// wantMapped checks that each span is inside ranges.
func wantMapped(t *testing.T, m *bmap.Map, spans []bmap.Span) {
	t.Helper()
	for _, s := range spans {
		for gap := range m.Gaps() {
			if s.Offset < gap.Offset+gap.Length && gap.Offset < s.Offset+s.Length {
				t.Fatalf("bytes %d to %d are data, but %d to %d are unmapped", s.Offset, s.Offset+s.Length, gap.Offset, gap.Offset+gap.Length)
			}
		}
	}
}

// bmaptoolCreate is the map that bmaptool makes, which must fit the image as we read both. Without bmaptool, ours.
func bmaptoolCreate(t *testing.T, path string) *bmap.Map {
	t.Helper()
	if _, err := exec.LookPath("bmaptool"); err != nil {
		return create(t, path, bmap.CreateOptions{})
	}
	out, err := exec.Command("bmaptool", "--quiet", "create", path).Output()
	if err != nil {
		t.Logf("bmaptool create: %v", err) // it stops on extents that are not aligned to blocks
		return create(t, path, bmap.CreateOptions{})
	}
	m := mustParse(t, out)
	if err := bmap.Verify(t.Context(), m, bytes.NewReader(readFile(t, path)), nil); err != nil {
		t.Errorf("bmaptool's map: %v", err)
	}
	return m
}
