package fat_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"updater/blockdev/fat"
)

const mib = 1 << 20

// memory is a medium.
type memory []byte

func (m memory) ReadBackAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m).ReadAt(p, off)
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// format makes a file system of size bytes with files, written by mtools in their order.
func format(t testing.TB, size int64, mkfs []string, names ...string) (memory, map[string][]byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fat.img")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.vfat", append(mkfs, path)...)
	content := map[string][]byte{}
	made := map[string]bool{"/": true}
	rng := rand.NewChaCha8([32]byte{1})
	for i, name := range names {
		for dir := range strings.SplitSeq(strings.Trim(filepath.Dir(name), "/"), "/") {
			if dir != "" && !made[dir] {
				run(t, "mmd", "-i", path, "::/"+dir)
				made[dir] = true
			}
		}
		data := make([]byte, 3000*(i+1))
		_, _ = rng.Read(data)
		content[name] = data
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, "mcopy", "-i", path, file, "::"+name)
	}
	m, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return m, content
}

func open(t *testing.T, m memory) *fat.FS {
	t.Helper()
	f, err := fat.Open(m, int64(len(m)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestAgreesWithMtools reads what mkfs.vfat and mtools wrote.
func TestAgreesWithMtools(t *testing.T) {
	for _, tt := range []struct {
		name string
		size int64
		mkfs []string
	}{
		{"FAT12", 4 * mib, []string{"-F12"}},
		{"FAT16", 16 * mib, []string{"-F16"}},
		{"FAT32", 40 * mib, []string{"-F32"}},
		{"FAT32 with one FAT", 40 * mib, []string{"-F32", "-f1"}},
		{"FAT32 with sectors of 4096 bytes", 300 * mib, []string{"-F32", "-S4096"}},
		{"FAT16 with large clusters", 160 * mib, []string{"-F16", "-s64"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			names := []string{"/config.txt", "/grub/grubenv", "/EFI/A file with a long Name, und Grüße.efi"}
			for i := range 40 { // a directory of several clusters
				names = append(names, fmt.Sprintf("/EFI/entry number %d.conf", i))
			}
			m, content := format(t, tt.size, tt.mkfs, names...)
			f := open(t, m)
			for name, want := range content {
				for _, as := range []string{name, strings.ToUpper(name), strings.TrimPrefix(name, "/")} {
					got, err := f.ReadFile(as, mib)
					if err != nil || !bytes.Equal(got, want) {
						t.Fatalf("ReadFile(%q) = %d bytes, %v; want %d as written", as, len(got), err, len(want))
					}
				}
				off, size, err := f.Extent(name, mib)
				if err != nil || !bytes.Equal(m[off:off+size], want) {
					t.Errorf("Extent(%q) = %d, %d, %v; want where it was written", name, off, size, err)
				}
			}
			for _, missing := range []string{"/none", "/none/grubenv", "/config.txt/x", "/grub/..", "/grub/.", "/EFI/ENTRYN~99.CON"} {
				if _, err := f.ReadFile(missing, mib); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("ReadFile(%q) = %v; want ErrNotExist", missing, err)
				}
			}
			if got, err := f.Names("", 3); err != nil || fmt.Sprint(got) != "[config.txt grub EFI]" {
				t.Errorf("Names of the root = %v, %v", got, err)
			}
			if got, err := f.Names("/EFI", 41); err != nil || len(got) != 41 || got[0] != "A file with a long Name, und Grüße.efi" {
				t.Errorf("Names of /EFI = %v, %v; want 41", got, err)
			}
			for _, bad := range []string{"/EFI", "/config.txt", "/none"} {
				if got, err := f.Names(bad, 40); err == nil {
					t.Errorf("Names(%q) = %v; want an error", bad, got)
				}
			}
			if _, err := f.ReadFile("/grub", mib); err == nil || !strings.Contains(err.Error(), "is a directory") {
				t.Errorf("ReadFile of a directory = %v", err)
			}
			if _, _, err := f.Extent("/config.txt", 2999); err == nil || !strings.Contains(err.Error(), "expected at most 2999") {
				t.Errorf("Extent of a file that is too long = %v", err)
			}
		})
	}
}

// link sets an entry of each FAT of a FAT32 file system.
func link(m memory, cluster, next uint32) {
	le := binary.LittleEndian
	sector, reserved, perFAT := int(le.Uint16(m[11:])), int(le.Uint16(m[14:])), int(le.Uint32(m[36:]))
	for i := range int(m[16]) {
		le.PutUint32(m[(reserved+i*perFAT)*sector+int(cluster)*4:], next)
	}
}

// first is the first cluster of a file of a FAT32 file system, whose data begins at its Extent.
func first(t *testing.T, m memory, name string) uint32 {
	t.Helper()
	off, _, err := open(t, m).Extent(name, mib)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	sector := int(le.Uint16(m[11:]))
	data := (int(le.Uint16(m[14:])) + int(m[16])*int(le.Uint32(m[36:]))) * sector
	return uint32((int(off)-data)/(int(m[13])*sector)) + 2
}

func TestHostile(t *testing.T) {
	le := binary.LittleEndian
	good, _ := format(t, 40*mib, []string{"-F32", "-s1"}, "/a/file")
	file := first(t, good, "/a/file")
	for _, tt := range []struct {
		name   string
		change func(m memory)
		want   string
	}{
		{"root loops", func(m memory) { link(m, 2, 2) }, "returns to cluster 2"},
		{"file loops", func(m memory) { link(m, file+1, file) }, "returns to cluster"},
		{"file is fragmented", func(m memory) { link(m, file+1, file+3); link(m, file+5, file+7) }, "fragmented"},
		{"chain is too short", func(m memory) { link(m, file+1, 0x0fffffff) }, "shorter than its file"},
		{"chain is free", func(m memory) { link(m, file, 0) }, "is followed by 0"},
		{"chain leaves", func(m memory) { link(m, file, 0x0ffffff0) }, "is followed by"},
		{"root outside", func(m memory) { le.PutUint32(m[44:], 1<<27) }, "root directory begins at cluster"},
		{"sectors of 3 bytes", func(m memory) { le.PutUint16(m[11:], 3) }, "no FAT file system"},
		{"no clusters", func(m memory) { m[13] = 0 }, "no FAT file system"},
		{"no FATs", func(m memory) { m[16] = 0 }, "no FAT file system"},
		{"huge FAT", func(m memory) { le.PutUint32(m[36:], 0xffffffff) }, "does not fit"},
		{"huge file system", func(m memory) { le.PutUint32(m[32:], 0xffffffff) }, "does not fit"},
		{"no signature", func(m memory) { m[510] = 0 }, "no FAT file system"},
		{"endless directory", func(m memory) { // every cluster is a directory without an end
			for c := uint32(2); c < 10000; c++ {
				link(m, c, c+1)
			}
			data := (int(le.Uint16(m[14:])) + int(m[16])*int(le.Uint32(m[36:]))) * 512
			for i := data; i < len(m); i += 32 {
				m[i] = 'x'
			}
		}, "directory is longer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := bytes.Clone(good)
			tt.change(m)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			f, err := fat.Open(memory(m), int64(len(m)))
			if err == nil {
				_, _, err = f.Extent("/a/file", mib)
			}
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Extent = %v; want %q", err, tt.want)
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > 2*mib {
				t.Errorf("%d bytes were allocated", got)
			}
		})
	}
}

// FuzzFAT changes bytes of the metadata of small file systems.
func FuzzFAT(f *testing.F) {
	var seeds []memory
	for _, bits := range []string{"-F12", "-F16", "-F32"} {
		size := map[string]int64{"-F12": 256 << 10, "-F16": 4 * mib, "-F32": 34 * mib}[bits]
		m, _ := format(f, size, []string{bits, "-s1"}, "/a/long name", "/b")
		seeds = append(seeds, m)
	}
	for i := range seeds {
		f.Add(i, []byte{0, 11, 3, 0, 13, 0, 0, 14, 1})
		f.Add(i, []byte{2, 0, 0})
	}
	f.Fuzz(func(t *testing.T, which int, edits []byte) {
		if which < 0 || which >= len(seeds) {
			return
		}
		m := bytes.Clone(seeds[which])
		for ; len(edits) >= 3; edits = edits[3:] {
			m[int(edits[0])<<8|int(edits[1])] = edits[2] // the first 64 KiB
		}
		fsys, err := fat.Open(memory(m), int64(len(m)))
		if err != nil {
			return
		}
		for _, name := range []string{"/a/long name", "/b", "/a/x", "/b/x/y"} {
			if off, size, err := fsys.Extent(name, mib); err == nil && (off < 512 || size < 1 || off+size > int64(len(m))) {
				t.Errorf("Extent = %d, %d in %d bytes", off, size, len(m))
			}
			_, _ = fsys.ReadFile(name, mib)
			_, _ = fsys.Names(name, 100)
		}
	})
}
