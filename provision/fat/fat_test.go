package fat_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"updater/provision/fat"
	"updater/provision/provisiontest"
)

const (
	offset  = 1 << 20
	length  = 40 << 20
	fatAt   = offset + 32*512
	cluster = 512
)

// errCut is a power cut.
var errCut = errors.New("power cut")

// disk is a medium in memory.
type disk struct {
	b      []byte
	reads  int
	writes [][2]int64 // their offsets and lengths
	cut    int        // so many writes succeed; 0 is all
}

func newDisk() *disk { return &disk{b: bytes.Repeat([]byte("old data"), (offset+length+1<<20)/8)} }

func (d *disk) ReadBackAt(p []byte, off int64) (int, error) {
	d.reads++
	if n := copy(p, d.b[min(off, int64(len(d.b))):]); n < len(p) {
		return n, io.EOF
	}
	return len(p), nil
}

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	if d.cut > 0 && len(d.writes) >= d.cut {
		return 0, errCut
	}
	d.writes = append(d.writes, [2]int64{off, int64(len(p))})
	return copy(d.b[off:], p), nil
}

func (d *disk) Sync() error { return nil }

func (d *disk) window() fat.Window { return fat.Window{Medium: d, Offset: offset, Length: length} }

// entry sets an entry of both FATs, as mkfs.vfat and the library lay them out.
func (d *disk) entry(cluster, next uint32) {
	size := int(binary.LittleEndian.Uint32(d.b[offset+36:])) * 512
	for n := range 2 {
		binary.LittleEndian.PutUint32(d.b[fatAt+n*size+4*int(cluster):], next)
	}
}

var identity = []fat.File{
	{Name: "device.key", Data: bytes.Repeat([]byte("secret"), 40)},
	{Name: "serial", Data: []byte("AG1")},
	{Name: "a-long-name.request", Data: bytes.Repeat([]byte("r"), 500)},
	{Name: "empty", Data: []byte{}},
}

func byName(files []fat.File) map[string][]byte {
	m := map[string][]byte{}
	for _, f := range files {
		m[f.Name] = f.Data
	}
	return m
}

// TestWrite: files are read back, nothing outside of the partition changes, and writing the same again writes little.
func TestWrite(t *testing.T) {
	d := newDisk()
	if err := fat.Write(d.window(), "IDENTITY", identity); err != nil {
		t.Fatal(err)
	}
	if err := fat.Compare(d.window(), byName(identity)); err != nil {
		t.Error(err)
	}
	from, err := fat.Open(d.window())
	if err != nil {
		t.Fatal(err)
	}
	if data, err := from.Get("missing"); data != nil || err != nil {
		t.Errorf("a missing file = %q, %v", data, err)
	}
	if data, err := from.Get("empty"); data == nil || len(data) != 0 || err != nil {
		t.Errorf("an empty file = %v, %v", data, err)
	}
	for _, outside := range [][]byte{d.b[:offset], d.b[offset+length:]} {
		if !bytes.Equal(outside, bytes.Repeat([]byte("old data"), len(outside)/8)) {
			t.Error("a byte outside of the partition has changed")
		}
	}
	d.writes = nil
	if err := fat.Write(d.window(), "IDENTITY", identity); err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, w := range d.writes {
		total += w[1]
	}
	if total > 8<<10 {
		t.Errorf("writing the same files again wrote %d bytes", total)
	}
	if err := fat.Write(fat.Window{Medium: d, Offset: offset, Length: 32 << 20}, "IDENTITY", nil); err == nil || !strings.Contains(err.Error(), "expected at least") {
		t.Errorf("a partition that is too small: %v", err)
	}
	changed := byName(identity)
	changed["serial"] = []byte("AG2")
	if err := fat.Compare(d.window(), changed); err == nil {
		t.Error("another serial was not found")
	}
}

// TestSectors: a file system has the sectors of its disk, as the tools of the format read them.
func TestSectors(t *testing.T) {
	for _, sector := range []int64{512, 4096} {
		for _, size := range []int64{length, 64 << 20} {
			d := &disk{b: make([]byte, offset+size)}
			w := fat.Window{Medium: d, Offset: offset, Length: size, Sector: sector}
			for range 2 { // made anew, then changed
				if err := fat.Write(w, "IDENTITY", identity[:3]); err != nil {
					t.Fatal(err)
				}
			}
			for _, at := range d.writes {
				if at[0]%sector != 0 || at[1]%sector != 0 {
					t.Errorf("a write of %d bytes at %d on a disk with sectors of %d", at[1], at[0], sector)
				}
			}
			if got := int64(binary.LittleEndian.Uint16(d.b[offset+11:])); got != sector {
				t.Errorf("sectors of %d bytes, want %d", got, sector)
			}
			if err := fat.Compare(w, byName(identity[:3])); err != nil {
				t.Error(err)
			}
			name := filepath.Join(t.TempDir(), "part.img")
			if err := os.WriteFile(name, d.b[offset:], 0o600); err != nil {
				t.Fatal(err)
			}
			provisiontest.Tool(t, "fsck.vfat", "-n", name)
			if sector != 512 {
				continue // mtools treats a FAT32 of less than 65525 clusters as FAT16, also one of mkfs.vfat
			}
			if got := provisiontest.Tool(t, "mtype", "-i", name, "::/serial"); got != "AG1" {
				t.Errorf("mtype reads %q", got)
			}
		}
	}
}

// TestPowerCut: a cut at any write of the next run loses neither key nor serial, though a file behind them grows and others are added, and
// never shows an added file in part.
func TestPowerCut(t *testing.T) {
	next := slices.Clone(identity)
	next[2].Data = bytes.Repeat([]byte("R"), 1300)
	for i := range 9 {
		next = append(next, fat.File{Name: fmt.Sprintf("another-long-name-%d", i), Data: bytes.Repeat([]byte{'x'}, 700)})
	}
	latch := fat.File{Name: "latch.json", Data: bytes.Repeat([]byte("latch"), 150)}
	for _, first := range []bool{true, false} {
		before, after := identity, next
		if !first {
			before, after = next, append(slices.Clone(next), latch)
		}
		whole := newDisk()
		if err := fat.Write(whole.window(), "IDENTITY", before); err != nil {
			t.Fatal(err)
		}
		whole.writes = nil
		for cut := 1; ; cut++ {
			d := &disk{b: bytes.Clone(whole.b), cut: cut}
			err := fat.Write(d.window(), "IDENTITY", after)
			from, oerr := fat.Open(d.window())
			if oerr != nil {
				t.Fatalf("cut at write %d: %v", cut, oerr)
			}
			for _, f := range before[:2] {
				if data, err := from.Get(f.Name); err != nil || !bytes.Equal(data, f.Data) {
					t.Errorf("cut at write %d: %s is %q, %v", cut, f.Name, data, err)
				}
			}
			if data, err := from.Get(latch.Name); err != nil || data != nil && !bytes.Equal(data, latch.Data) {
				t.Errorf("cut at write %d: the latch is %q, %v", cut, data, err)
			}
			if err == nil {
				break
			}
			if !errors.Is(err, errCut) {
				t.Fatal(err)
			}
		}
	}
}

// TestHostile: looped chains and numbers of a boot sector that no medium of this size has cost little and are errors, or do not matter.
func TestHostile(t *testing.T) {
	good := newDisk()
	files := append(slices.Clone(identity), fat.File{Name: "large", Data: bytes.Repeat([]byte("l"), 1<<20)})
	if err := fat.Write(good.window(), "IDENTITY", files); err != nil {
		t.Fatal(err)
	}
	number := func(at int, bytes ...byte) func(*disk) {
		return func(d *disk) { copy(d.b[offset+at:], bytes) }
	}
	for name, c := range map[string]struct {
		change func(d *disk)
		fails  bool
	}{
		"root directory is a loop":     {func(d *disk) { d.entry(2, 2) }, true},
		"root directory is a pair":     {func(d *disk) { d.entry(2, 4000); d.entry(4000, 2) }, true},
		"small file is a loop":         {func(d *disk) { d.entry(3, 3) }, false},
		"large file is a loop":         {func(d *disk) { d.entry(1000, 999) }, true},
		"FAT of 4 Gi sectors":          {number(36, 0xff, 0xff, 0xff, 0xff), true},
		"FAT of 1 Gi sectors":          {number(36, 0, 0, 0, 0x40), true},
		"sectors of 0 bytes":           {number(11, 0, 0), true},
		"sectors of 65535 bytes":       {number(11, 0xff, 0xff), true},
		"cluster of 0 sectors":         {number(13, 0), true},
		"255 FATs":                     {number(16, 255), true},
		"65535 reserved sectors":       {number(14, 0xff, 0xff), true},
		"4 Gi sectors":                 {number(32, 0xff, 0xff, 0xff, 0xff), true},
		"root directory at no cluster": {number(44, 0xff, 0xff, 0xff, 0x0f), true},
		"no FSInfo":                    {number(48, 0xff, 0xff), false},
		"everything is a directory":    {func(d *disk) { fill(d.b[offset+512:], []byte("DEVICE  KEY\x10")) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := &disk{b: bytes.Clone(good.b)}
			c.change(d)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := fat.Compare(d.window(), byName(files))
			runtime.ReadMemStats(&after)
			if (err != nil) != c.fails {
				t.Errorf("reading = %v", err)
			}
			if memory := after.TotalAlloc - before.TotalAlloc; memory > 8<<20 || d.reads > 30000 {
				t.Errorf("reading took %d bytes of memory and %d reads", memory, d.reads)
			}
			// It can be made anew.
			if err := fat.Write(d.window(), "IDENTITY", files); err != nil {
				t.Error(err)
			}
			if err := fat.Compare(d.window(), byName(files)); err != nil {
				t.Error(err)
			}
		})
	}
}

func fill(b, pattern []byte) {
	for len(b) > 0 {
		b = b[copy(b, pattern):]
	}
}
