package gpt_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
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
	ops    int            // reads, writes and flushes
	fail   int            // the operation that fails, from 1
	lost   int            // the operation that writes nothing
}

func (m *memory) op() error {
	if m.ops++; m.ops == m.fail {
		return syscall.EIO
	}
	return nil
}

func (m *memory) ReadBackAt(p []byte, off int64) (int, error) {
	for at := off / 512; at*512 < off+int64(len(p)); at++ {
		if m.bad[at] {
			return 0, fmt.Errorf("reading sector %d: %w", at, syscall.EIO)
		}
	}
	if err := m.op(); err != nil {
		return 0, err
	}
	n, err := bytes.NewReader(m.data).ReadAt(p, off)
	if off+int64(n) == m.size() {
		err = io.EOF // also of a whole read
	}
	return n, err
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	m.writes = append(m.writes, fmt.Sprintf("%d+%d", off/512, len(p)/512))
	if err := m.op(); err != nil {
		return 0, err
	}
	if m.ops == m.lost {
		return len(p), nil
	}
	return copy(m.data[off:], p), nil
}

func (m *memory) Sync() error { m.writes = append(m.writes, "sync"); return m.op() }

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

// TestWrite has sgdisk, and sfdisk for both sizes of sectors, read the tables that New and Write made.
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
		if err != nil || !slices.Equal(got, want) || len(tables.Faults()) > 0 {
			t.Errorf("Partitions = %v, %v; want %v; faults %v", got, err, want, tables.Faults())
		}
		if rev := binary.LittleEndian.Uint32(m.data[sector+8:]); rev != 0x10000 || tables.Primary.DiskGUID() != id {
			t.Errorf("revision %#x, DiskGUID %s; want 1.0 and %s", rev, tables.Primary.DiskGUID(), id)
		}
		if rest := m.data[512:sector]; bytes.Count(rest, []byte{0xa5}) != len(rest) {
			t.Error("Write changed the bytes behind the MBR")
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
	if _, err := gpt.New(67, 512, gpt.GUID{1}, nil); err == nil {
		t.Error("New for 67 sectors = nil; want an error")
	}
	fills := gpt.Entry{Number: 128, Type: gpt.GUID{1}, First: 34, Last: 34, Name: strings.Repeat("x", 36)}
	if table, err := gpt.New(68, 512, gpt.GUID{1}, []gpt.Entry{fills}); err != nil || !slices.Equal(table.Entries(), []gpt.Entry{fills}) {
		t.Errorf("New with one partition that fills the disk = %v", err)
	} else {
		m := &memory{data: make([]byte, 68*512)}
		err := gpt.Write(m, table, gpt.ProtectiveMBR(68))
		if faults := gpt.Read(m, m.size(), 512).Faults(); err != nil || len(faults) > 0 {
			t.Errorf("a disk with one usable sector: Write = %v, faults %v", err, faults)
		}
	}
}

// TestWriteFails: the error of any operation is returned at once, and a write that the medium has lost is noticed. An unreadable MBR is
// written, unless its sector has more than the MBR.
func TestWriteFails(t *testing.T) {
	for _, sector := range []int64{512, 4096} {
		table, err := gpt.New(128, sector, gpt.GUID{1}, []gpt.Entry{{Number: 1, Type: gpt.GUID{1}, First: 40, Last: 50}})
		if err != nil {
			t.Fatal(err)
		}
		write := func(fail, lost int) (*memory, error) {
			m := &memory{data: make([]byte, 128*sector), fail: fail, lost: lost}
			return m, gpt.Write(m, table, gpt.ProtectiveMBR(128))
		}
		good, err := write(0, 0)
		if err != nil || good.ops != 1+3+4+5 {
			t.Fatalf("Write = %v after %d operations", err, good.ops)
		}
		for n := 1; n <= good.ops; n++ {
			m, err := write(n, 0)
			if n == 1 && sector == 512 {
				if err != nil {
					t.Errorf("Write over an unreadable MBR = %v", err)
				}
			} else if !errors.Is(err, syscall.EIO) || m.ops != n {
				t.Errorf("sectors of %d: Write = %v after %d operations, of which %d fails; want EIO, and nothing behind it", sector, err, m.ops, n)
			}
			if m, err := write(0, n); !bytes.Equal(m.data, good.data) && !errors.Is(err, gpt.ErrNotWritten) {
				t.Errorf("sectors of %d: Write that loses operation %d = %v; want ErrNotWritten", sector, n, err)
			} else if head := m.data[:40*sector]; n < 7 && err != nil && !bytes.Equal(head, make([]byte, len(head))) {
				t.Errorf("sectors of %d: Write changes the primary copy although the backup is not on the medium", sector)
			}
		}
	}
}

// TestFit fits a table of 16384 sectors, whose partitions end at sector 10000, to other disks.
func TestFit(t *testing.T) {
	const first, last, place = 40, 48, 72 // usable sectors, entries
	for _, tt := range []struct {
		name     string
		change   map[int]uint64 // fields of the header
		sectors  int64
		grow     bool
		last     int64 // usable sector
		grown    int64 // last sector of the partition that grew, 0 for none
		want     string
		entryLBA int64
	}{
		{name: "same size", sectors: 16384, last: 16350},
		{name: "grown", sectors: 16384, grow: true, last: 16350, grown: 14335},
		{name: "larger", sectors: 20000, last: 19966},
		{name: "just large enough", sectors: 10034, last: 10000},
		{name: "a sector too small", sectors: 10033, want: "partition 2 ends at sector 10000, the disk of 10033 sectors has room up to 9999"},
		{name: "room for a whole MiB", sectors: 10273, grow: true, last: 10239, grown: 10239},
		{name: "room for less", sectors: 10272, grow: true, last: 10238},
		{name: "less is usable", change: map[int]uint64{last: 12000}, sectors: 16384, grow: true, last: 12000, grown: 10239},
		{name: "more is usable than there is", change: map[int]uint64{last: 16351}, sectors: 16384, last: 16350},
		{name: "first usable sector is the header", change: map[int]uint64{first: 1}, sectors: 16384, want: "first usable sector is 1, expected 2 to 16350"},
		{name: "first usable sector is the second", change: map[int]uint64{first: 2}, sectors: 16384, last: 16350},
		{name: "first usable sector is the last", change: map[int]uint64{first: 16350}, sectors: 16384, last: 16350},
		{name: "no usable sector", change: map[int]uint64{first: 16351}, sectors: 16384, want: "first usable sector is 16351"},
		{name: "entries before the backup", change: map[int]uint64{place: 16319}, sectors: 16384, last: 16350},
		{name: "entries in the backup", change: map[int]uint64{place: 16320}, sectors: 16384, want: "entries of the primary partition table are at"},
	} {
		table, err := gpt.New(16384, 512, gpt.GUID{1}, []gpt.Entry{
			{Number: 2, Type: gpt.GUID{1}, First: 4096, Last: 10000}, {Number: 3, Type: gpt.GUID{1}, First: 2048, Last: 4095},
		})
		if err != nil {
			t.Fatal(err)
		}
		m := &memory{data: make([]byte, 16384*512)}
		for _, p := range table.Pieces() {
			copy(m.data[p.Offset:], p.Data)
		}
		for at, v := range tt.change {
			binary.LittleEndian.PutUint64(m.data[512+at:], v)
			if at == place {
				copy(m.data[v*512:], m.data[1024:1024+16384])
			}
		}
		h := m.data[512:][:92]
		clear(h[16:20])
		binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h))
		if table, err = gpt.ReadCopy(m, m.size(), 512, 1); err != nil {
			t.Fatal(err)
		}
		table.SetAttributes(3, 7)
		if table.Attributes(3) != 7 || table.Attributes(2) != 0 {
			t.Errorf("attributes are %d and %d; want 7 and 0", table.Attributes(3), table.Attributes(2))
		}
		fit, err := table.Fit(tt.sectors, tt.grow)
		if tt.want != "" {
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: Fit = %v; want %q", tt.name, err, tt.want)
			}
			continue
		}
		want := gpt.Fit{OldLBA: 16383, NewLBA: tt.sectors - 1}
		if tt.grown != 0 {
			want.Grown, want.GrownFrom, want.GrownTo = 2, 5905*512, (tt.grown-4095)*512
		}
		ends := table.Entries()[0].Last
		usable := int64(binary.LittleEndian.Uint64(table.Pieces()[1].Data[last:]))
		if err != nil || fit != want || usable != tt.last || table.AlternateLBA() != tt.sectors-1 || ends != max(10000, tt.grown) {
			t.Errorf("%s: Fit = %+v, %v; want %+v; usable up to %d, partition 2 up to %d", tt.name, fit, err, want, usable, ends)
		}
		if again, err := table.Fit(tt.sectors, tt.grow); err != nil || again != (gpt.Fit{OldLBA: want.NewLBA, NewLBA: want.NewLBA}) {
			t.Errorf("%s: a second Fit = %+v, %v; want nothing changed", tt.name, again, err)
		}
	}
}

// TestEntryBounds checks how many entries of which size are read, and that Linux reads one size only.
func TestEntryBounds(t *testing.T) {
	le := binary.LittleEndian
	for _, tt := range []struct {
		count, width uint32
		ok           bool
	}{{1, 128, true}, {4096, 128, true}, {4097, 128, false}, {128, 4096, true}, {129, 4096, false}, {64, 256, true}, {256, 64, false}, {2, 8192, false},
		{64, 192, false}} {
		m := small(t)
		m.data = append(m.data, make([]byte, 2*mib)...)
		h := m.data[512:][:92]
		le.PutUint32(h[80:], tt.count)
		le.PutUint32(h[84:], tt.width)
		le.PutUint32(h[88:], crc32.ChecksumIEEE(m.data[1024:][:tt.count*tt.width]))
		clear(h[16:20])
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h))
		tables := gpt.Read(m, m.size(), 512)
		if (tables.Primary != nil) != tt.ok {
			t.Errorf("%d entries of %d bytes: %v; want them read: %v", tt.count, tt.width, tables.PrimaryErr, tt.ok)
		}
		if other := strings.Contains(fmt.Sprint(tables.Faults()), "Linux takes only 128"); tt.ok && other != (tt.width != 128) {
			t.Errorf("%d entries of %d bytes: faults %v", tt.count, tt.width, tables.Faults())
		}
	}
}

// TestPlaces reads copies that name other places, and restores a bad one where its place is free.
func TestPlaces(t *testing.T) {
	const primary, backup, alternate, entries = 512, 127 * 512, 32, 72
	for _, tt := range []struct {
		name      string
		at, field int // of a header on the disk
		value     uint64
		bad       int64  // header that is cleared
		want      string // in the errors of both copies and of Restored
		head      int64  // sectors of Reach, 0 where no copy is good
		tail      int64
	}{
		{name: "good", at: primary, field: alternate, value: 127, head: 34, tail: 33},
		{name: "no primary", at: primary, field: alternate, value: 127, bad: primary, want: "no signature", head: 34, tail: 33},
		{name: "no backup", at: primary, field: alternate, value: 127, bad: backup, want: "no signature", head: 34, tail: 33},
		{name: "entries over the MBR", at: primary, field: entries, value: 0, want: "entries are in 32 sectors from 0", head: 34, tail: 33},
		{name: "entries over the primary header", at: backup, field: entries, value: 1, want: "entries are in 32 sectors from 1", head: 34, tail: 33},
		{name: "entries over the header", at: backup, field: entries, value: 96, want: "entries are in 32 sectors from 96", head: 34, tail: 33},
		{name: "entries outside", at: backup, field: entries, value: 97, want: "entries are in 32 sectors from 97", head: 34, tail: 33},
		{name: "backup of another table", at: backup, field: alternate, value: 2, bad: primary, want: "the other copy is at sector 2, expected 1"},
		{name: "backup outside", at: primary, field: alternate, value: 128,
			want: "sector 128: outside the disk of 128 sectors restoring the backup partition table: the primary one places it", head: 34, tail: 32},
		{name: "backup in the MBR", at: primary, field: alternate, value: 0, want: "sector 0: outside the disk", head: 34, tail: 128},
		{name: "backup's entries on a partition", at: primary, field: alternate, value: 92, want: "overlaps partition 2", head: 34, tail: 68},
		{name: "backup behind a partition", at: primary, field: alternate, value: 93, want: "no signature", head: 34, tail: 67},
		{name: "backup's header on a partition", at: primary, field: alternate, value: 94, want: "partition 3 (sectors 94-94) overlaps", head: 34, tail: 66},
		{name: "backup on the primary", at: primary, field: alternate, value: 35, want: "overlaps the primary", head: 34, tail: 125},
		{name: "backup over the MBR", at: primary, field: alternate, value: 33, want: "no place for its entries", head: 34, tail: 127},
	} {
		m := &memory{data: make([]byte, 128*512)}
		table, err := gpt.New(128, 512, gpt.GUID{1}, []gpt.Entry{
			{Number: 2, Type: gpt.GUID{1}, First: 51, Last: 60}, {Number: 3, Type: gpt.GUID{1}, First: 94, Last: 94},
		})
		if err == nil {
			err = gpt.Write(m, table, gpt.ProtectiveMBR(128))
		}
		if err != nil {
			t.Fatal(err)
		}
		binary.LittleEndian.PutUint64(m.data[tt.at+tt.field:], tt.value)
		seal(m.data, tt.at)
		if tt.bad != 0 {
			clear(m.data[tt.bad:][:512])
		}
		tables := gpt.Read(m, m.size(), 512)
		restored, err := tables.Restored(m)
		all := fmt.Sprint(tables.PrimaryErr, tables.BackupErr, err)
		if !strings.Contains(all, tt.want) || (restored != nil) != (err == nil && tt.want != "") {
			t.Errorf("%s: the errors are %s, and Restored is %v; want %q", tt.name, all, restored != nil, tt.want)
		}
		if used, err := tables.Table(); (err == nil) != (tt.head != 0) || (used != nil) != (err == nil) {
			t.Errorf("%s: Table = %v, %v; want one: %v", tt.name, used != nil, err, tt.head != 0)
		}
		if tt.head == 0 {
			continue
		}
		if head, tail := tables.Reach(m); head != tt.head*512 || tail != tt.tail*512 {
			t.Errorf("%s: Reach = %d, %d sectors; want %d, %d", tt.name, head/512, tail/512, tt.head, tt.tail)
		}
	}
}

// TestEntriesBehindHeader: the entries of a backup may end with the disk, and are restored there, but do not cover its header.
func TestEntriesBehindHeader(t *testing.T) {
	m := small(t)
	tables := gpt.Read(m, m.size(), 512)
	at := tables.Primary.At(1, 95, 2)
	at.SetAttributes(1, 1) // the copies differ
	for _, p := range slices.Concat(tables.Backup.At(95, 1, 96).Pieces(), at.Pieces()) {
		copy(m.data[p.Offset:], p.Data)
	}
	restored, err := gpt.Read(m, m.size(), 512).Restored(m)
	if err != nil || restored == nil || restored.HeaderLBA() != 95 || restored.EntriesLBA() != 96 {
		t.Errorf("Restored = %+v, %v; want a backup with its header at sector 95, its entries behind it", restored, err)
	}
	header := tables.Backup.At(95, 1, 95).Pieces()[1]
	copy(m.data[header.Offset:], header.Data)
	if _, err := gpt.ReadCopy(m, m.size(), 512, 95); err == nil || !strings.Contains(err.Error(), "entries are in 32 sectors from 95") {
		t.Errorf("ReadCopy with entries from its header on = %v", err)
	}
}

// TestSizeInMBR: the protective entry spans the disk, as far as 32 bits can, and a hybrid MBR stays as it is.
func TestSizeInMBR(t *testing.T) {
	le := binary.LittleEndian
	for sectors, want := range map[int64]uint32{128: 127, 1 << 32: 1<<32 - 1, 1 << 33: 1<<32 - 1} {
		mbr := gpt.ProtectiveMBR(sectors)
		if got := le.Uint32(mbr[446+12:]); got != want {
			t.Errorf("ProtectiveMBR(%d) spans %d sectors; want %d", sectors, got, want)
		}
		copy(mbr[446+16:], mbr[446:446+16]) // in the second place, and the first is free
		clear(mbr[446:][:16])
		if got := le.Uint32(gpt.FitMBR(mbr, 1000)[446+16+12:]); got != 999 || le.Uint32(mbr[446+16+12:]) != want {
			t.Errorf("FitMBR(1000) spans %d sectors, or changed its argument", got)
		}
		mbr[446+4], mbr[446+8] = 0xee, 1 // protective, both
		if !bytes.Equal(gpt.FitMBR(mbr, 1000), mbr) {
			t.Error("FitMBR changed one of two protective entries")
		}
		mbr[446+4] = 0x83
		if !bytes.Equal(gpt.FitMBR(mbr, 1000), mbr) || !bytes.Equal(gpt.FitMBR(make([]byte, 512), 1000), make([]byte, 512)) {
			t.Error("FitMBR changed an MBR that is hybrid, or none")
		}
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
					head, tail := tables.Reach(m)
					if wantHead, wantTail := whole.Reach(good); head != wantHead || tail != wantTail {
						t.Errorf("%s, sector %d %s: Reach = %d, %d; want %d, %d", layout, lba, how, head, tail, wantHead, wantTail)
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

// reseal changes a good disk's primary copy, and corrects its checksums.
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
		{"headers differ", func(m *memory) { reseal(m, func(h, _ []byte) { h[56] ^= 1 }) }, "differs from the primary"},
		{"larger disk's table", func(m *memory) {
			reseal(m, func(h, _ []byte) { le.PutUint64(h[48:], 40*2048) })
			copy(m.data[len(m.data)-512:], gpt.Read(m, m.size(), 512).Primary.Mirror().Pieces()[1].Data)
		}, "Linux ignores the table"},
		{"partition outside the disk", func(m *memory) { reseal(m, func(_, e []byte) { le.PutUint64(e[40:], 1<<63) }) },
			"error: partition 1 (sectors 8192-"},
		{"partition backwards", func(m *memory) { reseal(m, func(_, e []byte) { le.PutUint64(e[40:], 8191) }) }, "error: partition 1 (sectors 8192-8191)"},
		{"partition behind the disk", func(m *memory) { reseal(m, func(_, e []byte) { le.PutUint64(e[128+40:], 40*2048) }) },
			"error: partition 2 (sectors 16384-81920) is not inside"},
		{"partition over the table", func(m *memory) { reseal(m, func(_, e []byte) { le.PutUint64(e[32:], 33) }) }, "overlaps the primary partition table"},
		{"partition over the backup", func(m *memory) { reseal(m, func(_, e []byte) { le.PutUint64(e[128+40:], 40*2048-1) }) }, "overlaps"},
		{"partitions overlap", func(m *memory) { reseal(m, func(_, e []byte) { le.PutUint64(e[128+32:], 9000) }) }, "error: partition 2 (sectors 9000-"},
		{"signature", func(m *memory) { m.data[512] = 'e' }, `primary partition table at sector 1: no signature "EFI PART"`},
		{"header size", func(m *memory) { m.data[512+12] = 91 }, "header size is 91 bytes, expected 92 to 512"},
		{"header checksum", func(m *memory) { m.data[512+24] = 2 }, "checksum of the header is"},
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
	if list, err := gpt.Read(m, m.size(), 512).Partitions(); list != nil || !errors.Is(err, gpt.ErrNoSignature) || !gpt.Read(m, m.size(), 512).Absent() {
		t.Errorf("Partitions of an empty disk = %v, %v; want ErrNoSignature", list, err)
	}
	m = small(t)
	clear(m.data[512:1024])
	m.data[len(m.data)-500]++
	if tables := gpt.Read(m, m.size(), 512); tables.Absent() || fmt.Sprint(tables.Faults()[1]) != fmt.Sprint(tables.BackupErr, "\n", tables.PrimaryErr) {
		t.Errorf("one copy is absent, one damaged: Absent = %v, faults %q", tables.Absent(), tables.Faults())
	}
	m = small(t)
	clear(m.data[512:1024]) // the backup serves
	le.PutUint64(m.data[95*512+32:], 1)
	seal(m.data, 127*512)
	if _, err := gpt.Read(m, m.size(), 512).Partitions(); err == nil || !strings.Contains(err.Error(), "partition 1 (sectors 1-50) is not inside") {
		t.Errorf("Partitions with one over the primary header = %v", err)
	}
	m = &memory{data: make([]byte, mib)}
	if _, err := gpt.ReadCopy(&memory{data: m.data[:1000]}, mib, 512, 1); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("ReadCopy of 1000 bytes = %v; want ErrUnexpectedEOF", err)
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

// TestLongHeader checks that bytes after the 92 of the specification are kept, up to the whole sector.
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

// TestPlaceIsNotGuessed: if a boot loader lies between header and entries, and both are damaged, nothing is restored.
func TestPlaceIsNotGuessed(t *testing.T) {
	m := load(t, sgdisk(t, 40*mib, append([]string{"--move-main-table=4096"}, twoParts...)...))
	clear(m.data[512:2048])
	m.data[4096*512]++
	usual := small(t)
	clear(usual.data[512:2048]) // with only one place, this is no guess
	if restored, err := gpt.Read(usual, usual.size(), 512).Restored(usual); err != nil || restored.EntriesLBA() != 2 {
		t.Errorf("Restored of a copy in the only place = %v, %v", restored, err)
	}
	if restored, err := gpt.Read(m, m.size(), 512).Restored(m); err == nil || !strings.Contains(err.Error(), "neither at sector 2 nor at 4096") {
		t.Errorf("Restored = %v, %v; want an error", restored, err)
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
	for _, bad := range []string{"", text[1:], strings.Replace(text, "a", "g", 1), text + "0", text[:8] + "x" + text[9:],
		text[:13] + "x" + text[14:], text[:18] + "x" + text[19:], text[:23] + "x" + text[24:]} {
		if _, err := gpt.ParseGUID(bad); err == nil {
			t.Errorf("ParseGUID(%q) = nil; want an error", bad)
		}
	}
	for range 20 {
		if a, b := gpt.NewGUID(), gpt.NewGUID(); a == b || a.String()[14] != '4' || !strings.Contains("89ab", a.String()[19:20]) {
			t.Errorf("NewGUID = %s, then %s", a, b)
		}
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

// seal corrects the checksums of the header at a byte of the disk.
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
