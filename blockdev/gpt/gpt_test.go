package gpt_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"updater/blockdev/gpt"
)

// memory is a disk, some sectors of which cannot be read.
type memory struct {
	data   []byte
	bad    map[int64]bool // sectors of 512 bytes
	writes []string       // "512+16384" or "sync"
}

func (m *memory) ReadBackAt(p []byte, off int64) (int, error) {
	for at := off / 512; at*512 < off+int64(len(p)); at++ {
		if m.bad[at] {
			return 0, fmt.Errorf("reading sector %d: %w", at, syscall.EIO)
		}
	}
	return bytes.NewReader(m.data).ReadAt(p, off)
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	m.writes = append(m.writes, fmt.Sprintf("%d+%d", off/512, len(p)/512))
	return copy(m.data[off:], p), nil
}

func (m *memory) Sync() error { m.writes = append(m.writes, "sync"); return nil }

func (m *memory) size() int64 { return int64(len(m.data)) }

const mib = 1 << 20

// sgdisk makes a disk of size bytes, and returns its path.
func sgdisk(t testing.TB, size int64, args ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
		t.Fatal(err)
	}
	run(t, "sgdisk", append(args, path)...)
	return path
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func load(t testing.TB, path string) *memory {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return &memory{data: data}
}

var twoParts = []string{"-n1:8192:+4M", "-c1:boot", "-n2:0:+8M", "-c2:Grüße", "-A2:set:60", "-u2:11111111-2222-3333-4444-55555555AABB", "-t1:EF00"}

// TestReadAgreesWithSgdisk compares tables of every layout with the output of sgdisk.
func TestReadAgreesWithSgdisk(t *testing.T) {
	for _, layout := range [][]string{{}, {"--resize-table=4"}, {"--resize-table=56"}, {"--resize-table=256"}, {"--resize-table=1024"},
		{"--move-main-table=4096"}} {
		t.Run(strings.Join(layout, " "), func(t *testing.T) {
			path := sgdisk(t, 40*mib, append(layout, twoParts...)...)
			m := load(t, path)
			tables := gpt.Read(m, m.size(), 512)
			list, err := tables.Partitions()
			if err != nil || len(tables.Faults()) > 0 || len(list) != 2 {
				t.Fatalf("Partitions = %v, %v; faults %v", list, err, tables.Faults())
			}
			for _, e := range list {
				info := run(t, "sgdisk", fmt.Sprintf("-i%d", e.Number), path)
				for _, want := range []string{
					fmt.Sprintf("First sector: %d ", e.First), fmt.Sprintf("Last sector: %d ", e.Last), fmt.Sprintf("Partition name: '%s'", e.Name),
					fmt.Sprintf("Attribute flags: %016X", e.Attributes), "Partition unique GUID: " + strings.ToUpper(e.GUID.String()),
					"Partition GUID code: " + strings.ToUpper(e.Type.String()),
				} {
					if !strings.Contains(info, want) {
						t.Errorf("sgdisk -i%d has no %q:\n%s", e.Number, want, info)
					}
				}
			}
			if out := run(t, "sgdisk", "-p", path); !strings.Contains(out, strings.ToUpper(tables.Primary.DiskGUID().String())) {
				t.Errorf("DiskGUID = %s, sgdisk says\n%s", tables.Primary.DiskGUID(), out)
			}
			wantRoundTrip(t, m, tables.Primary, tables.Backup)
		})
	}
}

// wantRoundTrip checks that the pieces of a copy are the bytes that it was read from.
func wantRoundTrip(t *testing.T, m *memory, copies ...*gpt.Table) {
	t.Helper()
	for _, c := range copies {
		for _, p := range c.Pieces() {
			if got := m.data[p.Offset:][:len(p.Data)]; !bytes.Equal(got, p.Data) {
				t.Errorf("the copy at sector %d is written differently at byte %d than it was read", c.HeaderLBA(), p.Offset)
			}
		}
	}
}

// TestWrite has sgdisk, and sfdisk for both sizes of sectors, read what New and Write made.
func TestWrite(t *testing.T) {
	for _, sector := range []int64{512, 4096} {
		m := &memory{data: bytes.Repeat([]byte{0xa5}, 32*mib)}
		per := mib / sector
		id, err := gpt.ParseGUID("11111111-2222-3333-4444-55555555AABB")
		if err != nil {
			t.Fatal(err)
		}
		want := []gpt.Entry{
			{Number: 1, Type: id, GUID: gpt.NewGUID(), First: per, Last: 5*per - 1, Name: "boot"},
			{Number: 9, Type: id, GUID: id, First: 5 * per, Last: 9*per - 1, Name: "Grüße 🚀", Attributes: 1 << 60},
		}
		table, err := gpt.New(m.size()/sector, sector, id, want)
		if err != nil {
			t.Fatal(err)
		}
		if err := gpt.Write(m, table, gpt.ProtectiveMBR(m.size()/sector)); err != nil {
			t.Fatal(err)
		}
		n := 16384 / sector * (sector / 512)
		last, s := m.size()/512-sector/512, sector/512
		order := fmt.Sprint([]string{
			fmt.Sprintf("%d+%d", last-n, n), fmt.Sprintf("%d+%d", last, s), "sync",
			fmt.Sprintf("%d+%d", 2*s, n), fmt.Sprintf("0+%d", s), fmt.Sprintf("%d+%d", s, s), "sync",
		})
		if got := fmt.Sprint(m.writes); got != order {
			t.Errorf("Write did %s; want the backup, a flush, the primary, a flush: %s", got, order)
		}
		tables := gpt.Read(m, m.size(), sector)
		got, err := tables.Partitions()
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) || len(tables.Faults()) > 0 {
			t.Errorf("Partitions = %v, %v; want %v; faults %v", got, err, want, tables.Faults())
		}
		path := filepath.Join(t.TempDir(), "disk.img")
		if err := os.WriteFile(path, m.data, 0o600); err != nil {
			t.Fatal(err)
		}
		if sector != 512 {
			path = loop(t, path, sector)
		}
		out := run(t, "sfdisk", "--dump", path)
		out = regexp.MustCompile(`\\x..`).ReplaceAllStringFunc(out, func(hex string) string {
			b, _ := strconv.ParseUint(hex[2:], 16, 8)
			return string([]byte{byte(b)})
		})
		lines := regexp.MustCompile(`(?m)^.*start=.*$`).FindAllString(out, -1)
		for i, e := range want {
			for _, field := range []string{
				fmt.Sprintf("[gp]%d :", e.Number), fmt.Sprintf("start= *%d,", e.First), fmt.Sprintf("size= *%d,", e.Last-e.First+1),
				fmt.Sprintf("name=%q", e.Name), "(?i)uuid=" + e.GUID.String(),
			} {
				if i >= len(lines) || !regexp.MustCompile(field).MatchString(lines[i]) {
					t.Errorf("sfdisk --dump with sectors of %d bytes has no %q:\n%s", sector, field, out)
				}
			}
		}
		if out := run(t, "sgdisk", "-v", path); !strings.Contains(out, "No problems found") {
			t.Errorf("sgdisk -v:\n%s", out)
		}
	}
}

// loop attaches a file to a loop device with sectors of the given size, or skips.
func loop(t *testing.T, path string, sector int64) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	out, err := exec.Command("losetup", "-b", fmt.Sprint(sector), "-f", "--show", path).Output()
	if err != nil {
		t.Skipf("no loop device with sectors of %d bytes: %v", sector, err)
	}
	node := strings.TrimSpace(string(out))
	t.Cleanup(func() { _ = exec.Command("losetup", "-d", node).Run() })
	return node
}

func TestNewRefuses(t *testing.T) {
	const sectors = 1000
	for name, entries := range map[string][]gpt.Entry{
		"before the usable sectors": {{Number: 1, Type: gpt.GUID{1}, First: 33, Last: 40}},
		"behind the usable sectors": {{Number: 1, Type: gpt.GUID{1}, First: 40, Last: sectors - 33}},
		"backwards":                 {{Number: 1, Type: gpt.GUID{1}, First: 41, Last: 40}},
		"overlapping":               {{Number: 1, Type: gpt.GUID{1}, First: 40, Last: 50}, {Number: 2, Type: gpt.GUID{1}, First: 50, Last: 60}},
		"twice":                     {{Number: 1, Type: gpt.GUID{1}, First: 40, Last: 50}, {Number: 1, Type: gpt.GUID{1}, First: 60, Last: 70}},
		"number 0":                  {{Number: 0, Type: gpt.GUID{1}, First: 40, Last: 50}},
		"number 129":                {{Number: 129, Type: gpt.GUID{1}, First: 40, Last: 50}},
		"a long name":               {{Number: 1, Type: gpt.GUID{1}, First: 40, Last: 50, Name: strings.Repeat("x", 37)}},
	} {
		if _, err := gpt.New(sectors, 512, gpt.GUID{1}, entries); err == nil {
			t.Errorf("New with a partition %s = nil; want an error", name)
		}
	}
	if _, err := gpt.New(60, 512, gpt.GUID{1}, nil); err == nil {
		t.Error("New for 60 sectors = nil; want an error")
	}
}

// TestBadCopies makes each sector of a copy torn, then unreadable: the other copy serves, and Restored returns the original.
func TestBadCopies(t *testing.T) {
	for _, layout := range []string{"--resize-table=128", "--resize-table=256", "--move-main-table=4096"} {
		good := load(t, sgdisk(t, 40*mib, append([]string{layout}, twoParts...)...))
		whole := gpt.Read(good, good.size(), 512)
		for _, c := range []*gpt.Table{whole.Primary, whole.Backup} {
			sectors := []int64{c.HeaderLBA()}
			for i := range c.EntrySectors() {
				sectors = append(sectors, c.EntriesLBA()+i)
			}
			for _, lba := range sectors {
				for _, how := range []string{"torn", "unreadable"} {
					m := &memory{data: good.data, bad: map[int64]bool{lba: how == "unreadable"}}
					tear := func() {
						for i := 0; how == "torn" && i < 512; i++ {
							m.data[lba*512+int64(i)] ^= 0x5a
						}
					}
					tear()
					tables := gpt.Read(m, m.size(), 512)
					list, err := tables.Partitions()
					if err != nil || len(list) != 2 || len(tables.Faults()) != 1 {
						t.Fatalf("%s, sector %d %s: Partitions = %v, %v, faults %q; want two partitions and one fault", layout, lba, how, list, err, tables.Faults())
					}
					if how == "unreadable" && !errors.Is(errors.Join(tables.Faults()...), syscall.EIO) {
						t.Errorf("%s, sector %d: fault %q does not wrap EIO", layout, lba, tables.Faults())
					}
					restored, err := tables.Restored(m)
					if err != nil || restored == nil {
						t.Fatalf("%s, sector %d %s: Restored = %v, %v", layout, lba, how, restored, err)
					}
					tear()
					wantRoundTrip(t, good, restored)
				}
			}
		}
	}
}

// reseal changes a good disk's primary copy, and puts its checksums right.
func reseal(m *memory, change func(header, entries []byte)) {
	h, e := m.data[512:1024], m.data[1024:1024+16384]
	change(h, e)
	le := binary.LittleEndian
	le.PutUint32(h[88:], crc32.ChecksumIEEE(e))
	clear(h[16:20])
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:min(max(le.Uint32(h[12:]), 92), 512)]))
}

func TestFaults(t *testing.T) {
	le := binary.LittleEndian
	good := load(t, sgdisk(t, 40*mib, twoParts...))
	for _, tt := range []struct {
		name   string
		change func(m *memory)
		want   string // in the error of Partitions when it begins with "error: ", else in the one fault
	}{
		{"no protective MBR", func(m *memory) { clear(m.data[:512]) }, "MBR does not protect"},
		{"copies differ", func(m *memory) { reseal(m, func(_, e []byte) { e[48] = 1 }) }, "differs from the primary"},
		{"larger disk's table", func(m *memory) {
			reseal(m, func(h, _ []byte) { le.PutUint64(h[48:], 1<<40) })
			copy(m.data[len(m.data)-512:], gpt.Read(m, m.size(), 512).Primary.Mirror().Pieces()[1].Data)
		}, "Linux ignores the table"},
		{"partition outside the disk", func(m *memory) { reseal(m, func(_, e []byte) { le.PutUint64(e[40:], 1<<63) }) },
			"error: partition 1 (sectors 8192-"},
		{"partition backwards", func(m *memory) { reseal(m, func(_, e []byte) { le.PutUint64(e[40:], 8191) }) }, "error: partition 1 (sectors 8192-8191)"},
		{"partition over the table", func(m *memory) { reseal(m, func(_, e []byte) { le.PutUint64(e[32:], 33) }) }, "overlaps the primary partition table"},
		{"partition over the backup", func(m *memory) { reseal(m, func(_, e []byte) { le.PutUint64(e[128+40:], 40*2048-1) }) }, "overlaps"},
		{"partitions overlap", func(m *memory) { reseal(m, func(_, e []byte) { le.PutUint64(e[128+32:], 9000) }) }, "error: partition 2 (sectors 9000-"},
		{"signature", func(m *memory) { m.data[512] = 'e' }, `primary partition table at sector 1: no signature "EFI PART"`},
		{"header size", func(m *memory) { m.data[512+12] = 91 }, "header size is 91 bytes, expected 92 to 512"},
		{"header checksum", func(m *memory) { m.data[512+60] ^= 1 }, "checksum of the header is"},
		{"entries checksum", func(m *memory) { m.data[1024+60] ^= 1 }, "checksum of the entries at sector 2 is"},
		{"moved header", func(m *memory) { reseal(m, func(h, _ []byte) { h[24] = 2 }) }, "header is made for sector 2"},
		{"entry size", func(m *memory) { reseal(m, func(h, _ []byte) { h[84] = 96 }) }, "entries have 96 bytes"},
		{"no entries", func(m *memory) { reseal(m, func(h, _ []byte) { h[80] = 0 }) }, "table has 0 entries"},
		{"too many entries", func(m *memory) { reseal(m, func(h, _ []byte) { le.PutUint32(h[80:], 1<<31) }) }, "expected 1 to 4096"},
		{"entries over the header", func(m *memory) { reseal(m, func(h, _ []byte) { h[72] = 1 }) }, "entries are in 32 sectors from 1"},
		{"entries outside", func(m *memory) { reseal(m, func(h, _ []byte) { le.PutUint64(h[72:], 1<<63) }) }, "entries are in 32 sectors from"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := &memory{data: bytes.Clone(good.data)}
			tt.change(m)
			tables := gpt.Read(m, m.size(), 512)
			_, err := tables.Partitions()
			if want, isErr := strings.CutPrefix(tt.want, "error: "); isErr || strings.Contains(want, "overlaps") {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("Partitions = %v; want %q", err, want)
				}
				return
			}
			if faults := tables.Faults(); err != nil || len(faults) != 1 || !strings.Contains(faults[0].Error(), tt.want) {
				t.Errorf("Partitions = %v, faults %q; want one with %q", err, faults, tt.want)
			}
		})
	}
	m := &memory{data: make([]byte, mib)}
	if _, err := gpt.Read(m, m.size(), 512).Table(); !errors.Is(err, gpt.ErrNoSignature) {
		t.Errorf("Table of an empty disk = %v; want ErrNoSignature", err)
	}
	for _, size := range []int64{0, 511, 512, 1024, 1536} {
		if _, err := gpt.Read(m, size, 512).Table(); err == nil {
			t.Errorf("Table of a disk of %d bytes = nil; want an error", size)
		}
	}
}

func TestProtective(t *testing.T) {
	m := small(t)
	for name, tt := range map[string]struct {
		change func()
		want   bool
	}{
		"protective":        {func() {}, true},
		"hybrid":            {func() { m.data[446+16+4] = 0x83 }, true},
		"another sector":    {func() { m.data[446+8] = 2 }, false},
		"another type":      {func() { m.data[446+4] = 0x83 }, false},
		"without signature": {func() { m.data[511] = 0 }, false},
		"unreadable":        {func() { m.bad = map[int64]bool{0: true} }, false},
	} {
		m = small(t)
		tt.change()
		if got := gpt.Protective(m); got != tt.want {
			t.Errorf("Protective of an MBR that is %s = %v; want %v", name, got, tt.want)
		}
	}
}

// TestLongHeader checks that bytes behind the 92 of the specification are kept, up to the whole sector.
func TestLongHeader(t *testing.T) {
	m := small(t)
	reseal(m, func(h, _ []byte) {
		binary.LittleEndian.PutUint32(h[12:], 512)
		copy(h[92:], bytes.Repeat([]byte("vendor"), 70))
	})
	tables := gpt.Read(m, m.size(), 512)
	if tables.Primary == nil {
		t.Fatal(tables.PrimaryErr)
	}
	wantRoundTrip(t, m, tables.Primary)
}

// TestPlaceIsNotGuessed: where a boot loader lies between header and entries, both of which are damaged, nothing is restored.
func TestPlaceIsNotGuessed(t *testing.T) {
	m := load(t, sgdisk(t, 40*mib, append([]string{"--move-main-table=4096"}, twoParts...)...))
	clear(m.data[512:2048])
	m.data[4096*512]++
	if restored, err := gpt.Read(m, m.size(), 512).Restored(m); err == nil {
		t.Errorf("Restored places the entries at sector %d; want an error", restored.EntriesLBA())
	}
}

// TestHostileMemory reads headers with right checksums that ask for as much as they can.
func TestHostileMemory(t *testing.T) {
	le := binary.LittleEndian
	good := load(t, sgdisk(t, 40*mib, twoParts...))
	for _, ask := range []struct{ count, width uint32 }{{1 << 24, 128}, {1 << 31, 1 << 31}, {0xffffffff, 0xffffffff}, {1, 1 << 31}, {4096, 128},
		{128, 4096}} {
		m := &memory{data: bytes.Clone(good.data)}
		reseal(m, func(h, _ []byte) { le.PutUint32(h[80:], ask.count); le.PutUint32(h[84:], ask.width) })
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		tables := gpt.Read(m, m.size(), 512)
		_, _ = tables.Partitions()
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > mib {
			t.Errorf("%d entries of %d bytes cost %d bytes of memory; want at most %d", ask.count, ask.width, got, mib)
		}
	}
}

func TestGUID(t *testing.T) {
	const text = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	g, err := gpt.ParseGUID(strings.ToUpper(text))
	if err != nil || g.String() != text || g[0] != 0x28 {
		t.Errorf("ParseGUID = %s (% x), %v", g, g[:], err)
	}
	for _, bad := range []string{"", text[1:], strings.Replace(text, "-", "x", 1), strings.Replace(text, "a", "g", 1), text + "0"} {
		if _, err := gpt.ParseGUID(bad); err == nil {
			t.Errorf("ParseGUID(%q) = nil; want an error", bad)
		}
	}
	if a, b := gpt.NewGUID(), gpt.NewGUID(); a == b || a.String()[14] != '4' {
		t.Errorf("NewGUID = %s, then %s", a, b)
	}
}

// small is a disk of 128 sectors with two partitions.
func small(t testing.TB) *memory {
	t.Helper()
	m := &memory{data: make([]byte, 128*512)}
	table, err := gpt.New(128, 512, gpt.GUID{1}, []gpt.Entry{
		{Number: 1, Type: gpt.GUID{1}, GUID: gpt.GUID{2}, First: 40, Last: 50, Name: "root"}, {Number: 2, Type: gpt.GUID{1}, First: 51, Last: 60},
	})
	if err == nil {
		err = gpt.Write(m, table, gpt.ProtectiveMBR(128))
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// FuzzRead puts a header and entries on a small disk, with right checksums where their place allows it. Reading never
// panics, every accepted copy is written as it was read, and a restored one is good.
func FuzzRead(f *testing.F) {
	seed := small(f).data
	f.Add(seed[512:1024], seed[1024:1024+512], true)
	f.Add(seed[512:1024], seed[1024:1024+512], false)
	for _, at := range []int{12, 24, 32, 40, 48, 72, 80, 84} {
		h := bytes.Clone(seed[512:1024])
		h[at+1], h[at+3] = 0x7f, 0xff
		f.Add(h, seed[1024:1024+512], true)
	}
	f.Fuzz(func(t *testing.T, header, entries []byte, backup bool) {
		m := &memory{data: make([]byte, 128*512)}
		at, entriesAt := 512, 1024
		if backup {
			copy(m.data, seed)
			at, entriesAt = 127*512, 95*512
		}
		copy(m.data[entriesAt:at+512-512*btoi(!backup)+16384*btoi(!backup)], entries)
		copy(m.data[at:at+512], header)
		seal(m.data, at)
		tables := gpt.Read(m, m.size(), 512)
		list, err := tables.Partitions()
		for _, e := range list {
			if err == nil && (e.First < 2 || e.Last >= 128 || e.First > e.Last) {
				t.Errorf("%s is accepted", e)
			}
		}
		_ = tables.Faults()
		for _, c := range []*gpt.Table{tables.Primary, tables.Backup} {
			if c == nil {
				continue
			}
			for _, p := range c.Pieces() {
				n := len(p.Data)
				if p.Offset == c.HeaderLBA()*512 {
					n = int(binary.LittleEndian.Uint32(p.Data[12:]))
				} else {
					n = min(n, c.Count()*int(binary.LittleEndian.Uint32(c.Pieces()[1].Data[84:])))
				}
				if !bytes.Equal(p.Data[:n], m.data[p.Offset:][:n]) {
					t.Errorf("the copy at sector %d is not written as it was read", c.HeaderLBA())
				}
			}
		}
		restored, err := tables.Restored(m)
		if err != nil || restored == nil {
			return
		}
		for _, p := range restored.Pieces() {
			copy(m.data[p.Offset:], p.Data)
		}
		if again := gpt.Read(m, m.size(), 512); again.Primary == nil || again.Backup == nil || !again.Primary.SameContent(again.Backup) {
			t.Errorf("after restoring the copy at sector %d: %v", restored.HeaderLBA(), again.Faults())
		}
	})
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// seal puts the checksums of the header at a byte of the disk right.
func seal(disk []byte, at int) {
	le := binary.LittleEndian
	h := disk[at : at+512]
	if e, n := le.Uint64(h[72:]), uint64(le.Uint32(h[80:]))*uint64(le.Uint32(h[84:])); e < 128 && n < 1<<16 && e*512+n <= uint64(len(disk)) {
		le.PutUint32(h[88:], crc32.ChecksumIEEE(disk[e*512:e*512+n]))
	}
	if size := le.Uint32(h[12:]); size >= 92 && size <= 512 {
		clear(h[16:20])
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:size]))
	}
}
