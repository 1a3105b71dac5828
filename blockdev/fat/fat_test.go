package fat_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"updater/blockdev/fat"
)

const mib = 1 << 20

// memory is a medium.
type memory []byte

func (m memory) ReadBackAt(p []byte, off int64) (int, error) {
	n, err := bytes.NewReader(m).ReadAt(p, off)
	if off+int64(n) == int64(len(m)) {
		err = io.EOF // also of a whole read
	}
	return n, err
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

// TestAgreesWithMtools reads file systems that mkfs.vfat and mtools wrote.
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
		{"a label like a folder", 16 * mib, []string{"-nGRUB"}},
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
			if _, size, err := f.Extent("/config.txt", 3000); err != nil || size != 3000 {
				t.Errorf("Extent of a file that just fits = %d, %v", size, err)
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
		{"half a signature", func(m memory) { m[511] = 0 }, "no FAT file system"},
		{"sectors of 256 bytes", func(m memory) { le.PutUint16(m[11:], 256) }, "no FAT file system"},
		{"sectors of 1536 bytes", func(m memory) { le.PutUint16(m[11:], 1536) }, "no FAT file system"},
		{"sectors of 8192 bytes", func(m memory) { le.PutUint16(m[11:], 8192) }, "no FAT file system"},
		{"clusters of 3 sectors", func(m memory) { m[13] = 3 }, "no FAT file system"},
		{"no boot sector", func(m memory) { m[14], m[15] = 0, 0 }, "no FAT file system"},
		{"a sector more than there is", func(m memory) { le.PutUint32(m[32:], 40*mib/512+1) }, "does not fit"},
		{"no room for the FATs", func(m memory) { le.PutUint32(m[32:], 100) }, "does not fit"},
		{"the second FAT is active", func(m memory) { m[40] = 0x81; link(m[:len(m)/2], file, 0) }, "is followed by 0"},
		{"endless directory", func(m memory) { // every cluster is a directory without an end
			for c := uint32(2); c < 10000; c++ {
				link(m, c, c+1)
			}
			data := (int(le.Uint16(m[14:])) + int(m[16])*int(le.Uint32(m[36:]))) * 512
			for i := data; i < len(m); i += 32 {
				m[i] = 'x'
			}
		}, "directory is longer"},
		{"a folder without clusters", func(m memory) { clear(m[bytes.Index(m, []byte("A          "))+26:][:2]) }, "begins at cluster 0"},
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

// TestActiveFAT: a mark selects the FAT that is updated, and both halves of a cluster's number count.
func TestActiveFAT(t *testing.T) {
	le := binary.LittleEndian
	good, content := format(t, 40*mib, []string{"-F32", "-s1"}, "/a/file")
	file, far := first(t, good, "/a/file"), uint32(70000)
	off, _, err := open(t, good).Extent("/a/file", mib)
	if err != nil {
		t.Fatal(err)
	}
	entry := bytes.Index(good, []byte("FILE       "))
	second := (int(le.Uint16(good[14:])) + int(le.Uint32(good[36:]))) * 512
	for name, tt := range map[string]struct {
		change func(m memory)
		want   bool
	}{
		"the first is active":            {func(m memory) { m[40] = 0x80; clear(m[second:][:70000]) }, true},
		"the second is active":           {func(m memory) { m[40] = 0x81; clear(m[int(le.Uint16(m[14:]))*512:][:70000]) }, true},
		"the second is active and empty": {func(m memory) { m[40] = 0x81; clear(m[second:][:70000]) }, false},
		"no mark":                        {func(m memory) { m[40] = 0x01; clear(m[second:][:70000]) }, true},
		"reserved bits":                  {func(m memory) { link(m, file, 0xf0000000|file+1) }, true},
		"a bad cluster":                  {func(m memory) { link(m, file, 0x0ffffff7) }, false},
		"a far cluster": {func(m memory) {
			copy(m[off+int64(far-file)*512:], content["/a/file"])
			clear(m[off:][:512])
			for i := range uint32(5) {
				link(m, far+i, far+i+1)
			}
			le.PutUint16(m[entry+20:], uint16(far>>16))
			le.PutUint16(m[entry+26:], uint16(far&0xffff))
		}, true},
	} {
		m := bytes.Clone(good)
		tt.change(m)
		got, err := open(t, m).ReadFile("/a/file", mib)
		if (err == nil && bytes.Equal(got, content["/a/file"])) != tt.want {
			t.Errorf("%s: ReadFile = %d bytes, %v; want the file: %v", name, len(got), err, tt.want)
		}
	}
}

// tiny makes a file system with clusters of a sector, and a file F in its root directory, which is one sector and ends with an empty
// file E. next is the FAT entry of the chain's last cluster.
func tiny(bits, clusters, perFAT int, chain []int, next, size int) (m memory, content []byte) {
	le := binary.LittleEndian
	data := (2 + perFAT) * 512
	m = make(memory, data+clusters*512)
	copy(m[11:], []byte{0, 2, 1, 1, 0, 1, 16, 0})
	le.PutUint16(m[19:], uint16(len(m)/512))
	le.PutUint16(m[22:], uint16(perFAT))
	m[510], m[511] = 0x55, 0xaa
	for i := data; i < len(m); i++ {
		m[i] = byte(i/512) ^ byte(i/512>>8) ^ byte(i)
	}
	for i, c := range chain {
		to := next
		if i+1 < len(chain) {
			to = chain[i+1]
		}
		if bits == 12 {
			b, shift := m[512+c*3/2:], c%2*4
			le.PutUint16(b, le.Uint16(b)&^uint16(0xfff<<shift)|uint16(to<<shift))
		} else {
			le.PutUint16(m[512+c*2:], uint16(to))
		}
		if at := data + (c-2)*512; at >= data && at < len(m) {
			content = append(content, m[at:at+512]...)
		}
	}
	root := m[data-512 : data]
	copy(root, "F          ")
	le.PutUint16(root[26:], uint16(chain[0]))
	le.PutUint32(root[28:], uint32(size))
	for i := 32; i < 480; i += 32 {
		root[i] = 0xe5 // deleted
	}
	copy(root[480:], "E          ")
	return m, content[:min(size, len(content))]
}

// ghost has a root directory of nine sectors without a file, and a record after it.
func ghost() memory {
	m, _ := tiny(12, 100, 1, []int{5}, 0xfff, 512)
	m[17] = 144
	for i := range 144 {
		m[1024+32*i] = 0xe5
	}
	copy(m[1024+9*512:], append([]byte("GHOST      "), make([]byte, 21)...))
	return m
}

// TestClusters reads chains at the limits of file systems of 12 and 16 bits.
func TestClusters(t *testing.T) {
	for _, tt := range []struct {
		name                   string
		bits, clusters, perFAT int
		chain                  []int
		next, size             int
		want                   string
	}{
		{"the largest FAT12", 12, 4084, 12, []int{4084, 4085}, 0xfff, 1000, ""},
		{"the smallest FAT16", 16, 4085, 16, []int{4085, 4086}, 0xffff, 1000, ""},
		{"entries across sectors", 12, 400, 2, []int{340, 341, 342, 343}, 0xff8, 2048, ""},
		{"a short FAT", 16, 4085, 1, []int{254, 255}, 0xffff, 1000, ""},
		{"behind a short FAT", 16, 4085, 1, []int{255, 256}, 0xffff, 1000, "cluster 255 is followed by 256, expected 2 to 255"},
		{"the last cluster", 12, 100, 1, []int{101}, 0xfff, 512, ""},
		{"behind the last cluster", 12, 100, 1, []int{102}, 0xfff, 512, "begins at cluster 102, expected 2 to 101"},
		{"before the first cluster", 12, 100, 1, []int{1}, 0xfff, 512, "begins at cluster 1"},
		{"no cluster", 12, 100, 1, []int{0}, 0xfff, 512, "begins at cluster 0"},
		{"a bad cluster", 12, 100, 1, []int{5}, 0xff7, 513, "cluster 5 is followed by 4087"},
		{"the end", 12, 100, 1, []int{5}, 0xff8, 513, "shorter than its file of 513 bytes"},
		{"a bad cluster of 16 bits", 16, 4085, 16, []int{5}, 0xfff7, 513, "cluster 5 is followed by 65527"},
		{"the end of 16 bits", 16, 4085, 16, []int{5}, 0xfff8, 513, "shorter than its file"},
		{"a circle of two", 12, 100, 1, []int{5, 6}, 5, 1025, "returns to cluster 5"},
	} {
		m, want := tiny(tt.bits, tt.clusters, tt.perFAT, tt.chain, tt.next, tt.size)
		got, err := open(t, m).ReadFile("f", mib)
		if tt.want == "" && (err != nil || !bytes.Equal(got, want)) || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: ReadFile = %d bytes, %v; want %q", tt.name, len(got), err, tt.want)
		}
	}
	m, _ := tiny(12, 100, 1, []int{5}, 0xfff, 512)
	f := open(t, m)
	if got, err := f.ReadFile("E", 0); err != nil || len(got) != 0 {
		t.Errorf("ReadFile of an empty file = %d bytes, %v", len(got), err)
	}
	if _, _, err := f.Extent("E", 0); err == nil || !strings.Contains(err.Error(), "is empty") {
		t.Errorf("Extent of an empty file = %v", err)
	}
	if _, err := open(t, ghost()).ReadFile("GHOST", mib); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadFile of a record behind the root directory = %v; want ErrNotExist", err)
	}
	if _, err := f.ReadFile("D", mib); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadFile in a root directory that is full = %v; want ErrNotExist", err)
	}
}

// TestRecords: records after the end of a directory, deleted files, labels and stray pieces of long names do not count.
func TestRecords(t *testing.T) {
	le := binary.LittleEndian
	m, _ := tiny(12, 100, 1, []int{5, 6, 7}, 0xfff, 1536)
	root, dir := m[1024:1536], m[1536+3*512:][:1536] // F becomes a directory of three clusters
	root[11] = 0x10
	clear(dir)
	rest := dir
	next := func() (b []byte) { b, rest = rest[:32], rest[32:]; return b }
	record := func(name string, attr byte) []byte {
		b := next()
		copy(b, name)
		b[11] = attr
		le.PutUint16(b[26:], 9)
		le.PutUint32(b[28:], 512)
		return b
	}
	long := func(order byte, name string, sum byte) []byte {
		b := next()
		b[0], b[11], b[13] = order, 0x0f, sum
		for i, c := range []byte(name) {
			b[1+2*i] = c // up to 5 units
		}
		return b
	}
	sum := byte(0)
	for _, c := range []byte("SHORT      ") {
		sum = sum>>1 | sum<<7
		sum += c
	}
	record("\xe5ELETED    ", 0)
	record("LABEL      ", 0x08)
	record("LOWER   TXT", 0)[12] = 0x18
	record("\x05MEGA      ", 0)
	long(0x41, "right", sum)
	record("SHORT      ", 0)
	long(0x41, "wrong", sum+1)
	record("SHORT2     ", 0)
	for _, pieces := range []func(){
		func() { long(0x42, "half", sum) },                                      // the first piece is missing
		func() { long(0x42, "half", sum); long(0x02, "half", sum) },             // and the other one is there twice
		func() { long(0x42, "b", sum); long(1, "a", sum+1); long(1, "a", sum) }, // a piece of another name between them
		func() { long(0x40, "none", 0) },
		func() { long(0x41, "old", sum)[0] = 0xe5 },
		func() { long(0x41, "else", sum); record("\xe5HORT      ", 0) },
	} {
		pieces()
		record("SHORT      ", 0)
	}
	rest = dir[1024:]
	record("OLD        ", 0) // after the end
	got, err := open(t, m).Names("F", 100)
	want := []string{"lower.txt", "\xe5MEGA", "right", "SHORT2", "SHORT", "SHORT", "SHORT", "SHORT", "SHORT", "SHORT"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("Names = %q, %v; want %q", got, err, want)
	}
	if _, err := open(t, m).ReadFile("F/OLD", mib); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadFile of a file behind the end = %v; want ErrNotExist", err)
	}
	if got, err := open(t, m).ReadFile("f/RIGHT", mib); err != nil || len(got) != 512 {
		t.Errorf("ReadFile by the long name = %d bytes, %v", len(got), err)
	}
	for _, pieces := range []int{20, 21} { // more than 20 are no name
		clear(dir)
		rest = dir
		for n := pieces; n > 0; n-- {
			order := byte(n)
			if n == pieces {
				order |= 0x40
			}
			long(order, "first", sum)
		}
		record("SHORT      ", 0)
		if got, err := open(t, m).Names("F", 9); err != nil || !slices.Equal(got, []string{map[int]string{20: "first", 21: "SHORT"}[pieces]}) {
			t.Errorf("Names with a name in %d pieces = %q, %v", pieces, got, err)
		}
	}
}

// failing is a medium on which the read numbered at fails, and leaves garbage.
type failing struct {
	memory
	n, at int
}

func (f *failing) ReadBackAt(p []byte, off int64) (int, error) {
	if f.n++; f.n == f.at {
		for i := range p {
			p[i] = 0x33
		}
		return 0, io.ErrClosedPipe
	}
	return f.memory.ReadBackAt(p, off)
}

// TestUnreadable: every read that fails is an error, and the next call reads again.
func TestUnreadable(t *testing.T) {
	if _, err := fat.Open(make(memory, 511), 512); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Open of 511 bytes = %v; want ErrUnexpectedEOF", err)
	}
	short, want := tiny(12, 400, 2, []int{339, 340, 341, 342, 343}, 0xfff, 2300)
	deep, content := format(t, 40*mib, []string{"-F32", "-s1"}, "/a/file")
	wantReadErrors(t, short, "F", want)
	wantReadErrors(t, deep, "/a/file", content["/a/file"])
}

func wantReadErrors(t *testing.T, m memory, name string, want []byte) {
	t.Helper()
	for n := 1; ; n++ {
		r := &failing{memory: m, at: n}
		f, err := fat.Open(r, int64(len(m)))
		if n == 1 {
			if !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("Open of an unreadable boot sector = %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, err := f.ReadFile(name, mib); r.n < n {
			if err != nil || n < 9 || n > 20 { // the boot sector, directories, the FAT, the data: each sector once
				t.Errorf("ReadFile = %d bytes, %v after %d reads", len(got), err, r.n)
			}
			break
		} else if !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("ReadFile with read %d failing = %d bytes, %v", n, len(got), err)
		}
		if got, err := f.ReadFile(name, mib); err != nil || !bytes.Equal(got, want) {
			t.Errorf("ReadFile after read %d failed = %d bytes, %v", n, len(got), err)
		}
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
