package gpt_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	table "updater/blockdev/gpt"
	"updater/boot"
	"updater/boot/boottest"
	"updater/boot/gpt"
	"updater/internal/crashdisk/bootdisk"
)

const (
	sector   = 512
	diskSize = 4 << 20
)

// vboot models vboot's cgptlib, written independently of the backend: it uses the primary while its checksums are
// right, otherwise the backup, and spends a try of an unsuccessful choice in both.
func vboot(d *boottest.Disk) string {
	valid := func(h, e []byte) bool {
		c := bytes.Clone(h[:92])
		copy(c[16:20], make([]byte, 4))
		return string(h[:8]) == "EFI PART" && binary.LittleEndian.Uint32(h[16:]) == crc32.ChecksumIEEE(c) &&
			binary.LittleEndian.Uint32(h[88:]) == crc32.ChecksumIEEE(e)
	}
	p, b := d.Areas[0], d.Areas[1]
	copies := [][2][]byte{{p[sector : 2*sector], p[2*sector:]}, {b[16384:], b[:16384]}}
	var from []byte
	for _, c := range copies {
		if from == nil && valid(c[0], c[1]) {
			from = bytes.Clone(c[1])
		}
	}
	if from == nil {
		return ""
	}
	best, name := -1, ""
	for i, s := range []string{"A", "B"} {
		a := binary.LittleEndian.Uint64(from[i*128+48:])
		if prio := int(a >> 48 & 15); prio > 0 && (a>>56&1 == 1 || a>>52&15 > 0) && prio > best {
			best, name = prio, s
		}
	}
	if name == "" {
		return ""
	}
	at := from[map[string]int{"A": 0, "B": 128}[name]+48:]
	if a := binary.LittleEndian.Uint64(at); a>>56&1 == 0 {
		binary.LittleEndian.PutUint64(at, a-1<<52)
	}
	for i, c := range copies { // repaired and updated in one go: only the choice is modelled here
		copy(c[1], from)
		h := c[0]
		if string(h[:8]) != "EFI PART" {
			copy(h, copies[1-i][0])
		}
		binary.LittleEndian.PutUint32(h[88:], crc32.ChecksumIEEE(from))
		copy(h[16:20], make([]byte, 4))
		binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
	}
	return name
}

func open(areas []boot.Area, booted string) (boot.Backend, error) {
	return gpt.New(gpt.Options{Primary: areas[0], Backup: areas[1], Size: diskSize, Sector: sector, Slots: []string{"A", "B"},
		Partition: map[string]int{"A": 1, "B": 2}}, booted)
}

// fresh returns both areas of a disk on which both slots are good, beside a partition with attributes of its own.
func fresh(t *testing.T) [][]byte {
	t.Helper()
	var list []table.Entry
	for i, attributes := range []uint64{1<<63 | 1<<56 | 10<<48 | 1<<2, 1<<60 | 1<<56 | 9<<48, 1<<60 | 3<<48} {
		id, first := table.GUID{byte(i + 1)}, int64(64+i*2048)
		list = append(list, table.Entry{Number: i + 1, Type: id, GUID: id, First: first, Last: first + 2047, Attributes: attributes})
	}
	primary, err := table.New(diskSize/sector, sector, table.GUID{9}, list)
	if err != nil {
		t.Fatal(err)
	}
	disk := make([]byte, diskSize)
	for _, p := range append(primary.Pieces(), primary.Mirror().Pieces()...) {
		copy(disk[p.Offset:], p.Data)
	}
	return [][]byte{disk[:gpt.PrimarySize(sector)], disk[diskSize-gpt.BackupSize(sector):]}
}

// image makes a disk with cgpt, both slots good, and returns its path.
func image(t *testing.T) string {
	t.Helper()
	for _, tool := range []string{"cgpt", "sgdisk"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	path := filepath.Join(t.TempDir(), "d.img")
	run(t, "truncate", "-s", "4M", path)
	run(t, "cgpt", "create", path)
	for i, s := range []string{"A", "B"} {
		run(t, "cgpt", "add", "-i", fmt.Sprint(i+1), "-b", fmt.Sprint(64+i*2048), "-s", "2048", "-t", "kernel", "-l", s, "-P", fmt.Sprint(10-i), "-T", "0",
			"-S", "1", path)
	}
	run(t, "sgdisk", "-n", "9:0:+64", "-c", "9:other", "-A", "9:set:60", path)
	return path
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
	return string(out)
}

func areasOf(t *testing.T, path string) [][]byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return [][]byte{data[:gpt.PrimarySize(sector)], data[int64(len(data))-gpt.BackupSize(sector):]}
}

func TestContract(t *testing.T) {
	boottest.Contract(t, boottest.Rig{
		Volatile: bootdisk.New,
		Fresh:    func(t *testing.T) boottest.Disk { return boottest.Disk{Areas: fresh(t)} },
		Open:     func(m *boottest.Medium, booted string) (boot.Backend, error) { return open(m.Areas(), booted) },
		Boot:     vboot,
		Caps:     boot.Caps{MaxTries: 15, SwitchAtomic: true},
		Others: func(d boottest.Disk) []string { // everything but the nine bits of our two entries
			e := bytes.Clone(d.Areas[0][2*sector:])
			for _, at := range []int{48, 128 + 48} {
				binary.LittleEndian.PutUint64(e[at:], binary.LittleEndian.Uint64(e[at:])&^(0x1ff<<48))
			}
			return []string{string(e), string(d.Areas[0][:sector])}
		},
	})
}

// After every operation cgpt and sgdisk read the intended state, and the table verifies.
func TestTools(t *testing.T) {
	path := image(t)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f := boottest.OpenFileArea(t, path)
	end := int64(len(data)) - gpt.BackupSize(sector)
	areas := []boot.Area{
		&boottest.FileArea{F: f.F, Len: gpt.PrimarySize(sector)}, &boottest.FileArea{F: f.F, Off: end, Len: gpt.BackupSize(sector)},
	}
	as := func(booted string) boot.Backend {
		b, err := open(areas, booted)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, step := range []struct {
		name string
		do   func() error
		want string // prio tries ok of A and B
	}{
		{"fresh", func() error { return nil }, "10 0 1 9 0 1"},
		{"invalidate", func() error { return as("A").Invalidate(t.Context(), "B") }, "10 0 1 0 0 0"},
		{"activate", func() error { return as("A").Activate(t.Context(), "B", 5) }, "14 0 1 15 5 0"},
		{"mark good", func() error { return as("B").MarkGood(t.Context(), "B") }, "14 0 1 15 0 1"},
		{"mark bad", func() error { return as("B").MarkBad(t.Context(), "A") }, "0 0 0 15 0 1"},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		var got []string
		var bits [2]uint64
		for i := range 2 {
			for _, field := range []string{"-P", "-T", "-S"} {
				got = append(got, strings.TrimSpace(run(t, "cgpt", "show", "-i", fmt.Sprint(i+1), field, path)))
			}
			out := run(t, "sgdisk", "-i", fmt.Sprint(i+1), path)
			_, hex, _ := strings.Cut(out, "Attribute flags: ")
			fmt.Sscanf(hex, "%x", &bits[i])
		}
		if s := strings.Join(got, " "); s != step.want {
			t.Errorf("after %s cgpt shows %s; want %s", step.name, s, step.want)
		}
		if s := fmt.Sprintf("%d %d %d %d %d %d", bits[0]>>48&15, bits[0]>>52&15, bits[0]>>56&1, bits[1]>>48&15, bits[1]>>52&15,
			bits[1]>>56&1); s != step.want {
			t.Errorf("after %s sgdisk shows %s; want %s", step.name, s, step.want)
		}
		if out := run(t, "sgdisk", "-A", "9:show", path); !strings.Contains(out, "60") {
			t.Errorf("after %s sgdisk -A shows another partition as %s", step.name, out)
		}
		if out := run(t, "sgdisk", "-v", path); !strings.Contains(out, "No problems found") {
			t.Errorf("after %s: sgdisk -v: %s", step.name, out)
		}
	}
}

// TestPrefixesWithCgpt checks with cgpt every state that a power cut leaves, and its repair.
func TestPrefixesWithCgpt(t *testing.T) {
	path := image(t)
	m := boottest.NewMedium(areasOf(t, path)...)
	b, err := open(m.Areas(), "A")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Activate(t.Context(), "B", 3); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	cut := filepath.Join(t.TempDir(), "cut.img")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m.CrashDisks(func(d boottest.Disk) {
		img := bytes.Clone(whole)
		copy(img, d.Areas[0])
		copy(img[len(img)-len(d.Areas[1]):], d.Areas[1])
		if err := os.WriteFile(cut, img, 0o600); err != nil {
			t.Fatal(err)
		}
		shown := strings.Fields(run(t, "cgpt", "show", "-i", "2", "-P", cut)) // after its warnings
		got := shown[len(shown)-1]
		seen[got]++
		if got != "9" && got != "15" {
			t.Fatalf("cgpt sees priority %s after a power cut; want the old or the new", got)
		}
		after := boottest.NewMedium(d.Areas...)
		b, err := open(after.Areas(), "A")
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Repair(t.Context()); err != nil {
			t.Fatal(err)
		}
		if st, err := b.State(t.Context()); err != nil || len(st.Findings) > 1 {
			t.Errorf("after Repair State = %+v, %v", st, err)
		}
	})
	if seen["9"] == 0 || seen["15"] == 0 {
		t.Errorf("cgpt saw %v; want both the old and the new", seen)
	}
}

// TestUnreadableSectors makes every sector of either copy unreadable in turn.
func TestUnreadableSectors(t *testing.T) {
	boottest.UnreadableSectors(t, boottest.Rig{
		Fresh: func(t *testing.T) boottest.Disk { return boottest.Disk{Areas: fresh(t)} },
		Open:  func(m *boottest.Medium, booted string) (boot.Backend, error) { return open(m.Areas(), booted) },
		Boot:  vboot,
	})
}

// logged is an area that records its writes and flushes.
type logged struct {
	boot.Area
	log *[]string
}

func (l logged) WriteAt(p []byte, off int64) (int, error) {
	*l.log = append(*l.log, fmt.Sprintf("%s: %d at %d", l, len(p), off))
	return l.Area.WriteAt(p, off)
}

func (l logged) Sync() error {
	*l.log = append(*l.log, "flush")
	return l.Area.Sync()
}

// TestOrder: the backup is whole before the primary changes, entries are written before the header that covers them, a sector each.
func TestOrder(t *testing.T) {
	var log []string
	areas := boottest.NewMedium(fresh(t)...).Areas()
	b, err := open([]boot.Area{logged{areas[0], &log}, logged{areas[1], &log}}, "A")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Activate(t.Context(), "B", 3); err != nil {
		t.Fatal(err)
	}
	want := []string{"area 2: 512 at 0", "flush", "area 2: 512 at 16384", "flush", "area 1: 512 at 1024", "flush", "area 1: 512 at 512", "flush"}
	if !slices.Equal(log, want) {
		t.Errorf("Activate did %q; want %q", log, want)
	}
}

// changes are two ways to restore a copy while slot B runs.
var changes = map[string]func(ctx context.Context, b boot.Backend) error{
	"Repair":  func(ctx context.Context, b boot.Backend) error { return b.Repair(ctx) },
	"MarkBad": func(ctx context.Context, b boot.Backend) error { return b.MarkBad(ctx, "A") },
}

func repairable(f boot.Finding) bool { return strings.HasPrefix(f.Remedy, boot.RemedyRepair) }

// torn returns an area with one damaged byte.
func torn(area []byte, at int) []byte { area = bytes.Clone(area); area[at] ^= 1; return area }

// activated returns a disk on which slot B was activated after fresh.
func activated(t *testing.T) [][]byte {
	t.Helper()
	m := boottest.NewMedium(fresh(t)...)
	b, err := open(m.Areas(), "A")
	if err == nil {
		err = b.Activate(t.Context(), "B", 3)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m.Snapshot()
}

// TestCopies: a copy that is damaged, or a backup of an older state, is found, and Repair or the next change restores it.
func TestCopies(t *testing.T) {
	old, now := fresh(t), activated(t)
	for name, areas := range map[string][][]byte{
		"backup partition table area 2 differs":                          {now[0], old[1]},
		"primary partition table at sector 1: checksum of the header":    {torn(now[0], 600), now[1]},
		"primary partition table at sector 1: checksum of the entries":   {torn(now[0], 9000), now[1]},
		"backup partition table at sector 8191: checksum of the header":  {now[0], torn(now[1], 16400)},
		"backup partition table at sector 8191: checksum of the entries": {now[0], torn(now[1], 9000)},
	} {
		for change, do := range changes {
			m := boottest.NewMedium(areas...)
			b, err := open(m.Areas(), "B")
			if err != nil {
				t.Fatal(err)
			}
			named := func(f boot.Finding) bool { return repairable(f) && strings.Contains(f.Evidence, name) }
			if st, err := b.State(t.Context()); err != nil || st.Next != "B" || !slices.ContainsFunc(st.Findings, named) {
				t.Errorf("%s: State = %+v, %v; want slot B and a finding", name, st, err)
			}
			if err := do(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			got := m.Snapshot()
			if change == "Repair" && (!bytes.Equal(got[0], now[0]) || !bytes.Equal(got[1], now[1])) {
				t.Errorf("%s: Repair does not restore the copy", name)
			}
			if st, err := b.State(t.Context()); err != nil || st.Next != "B" || slices.ContainsFunc(st.Findings, repairable) {
				t.Errorf("%s: after %s State = %+v, %v", name, change, st, err)
			}
		}
	}
}

// TestRestoringFails: slot B boots next if any operation fails while a damaged copy is restored; without an error the table is whole.
func TestRestoringFails(t *testing.T) {
	now := activated(t)
	for name, areas := range map[string][][]byte{"primary": {torn(now[0], 9000), now[1]}, "backup": {now[0], torn(now[1], 9000)}} {
		for change, do := range changes {
			for n := 1; ; n++ {
				m := boottest.NewMedium(areas...)
				b, err := open(m.Areas(), "B")
				if err != nil {
					t.Fatal(err)
				}
				m.FailAt = n
				err = do(t.Context(), b)
				if m.Operations() < n {
					break
				}
				m.FailAt = 0
				st, serr := b.State(t.Context())
				whole := serr == nil && !slices.ContainsFunc(st.Findings, repairable)
				if st.Next != "B" || err == nil && !whole || err != nil && !errors.Is(err, boottest.ErrInjected) {
					t.Errorf("torn %s, operation %d failed: %s = %v, then State = %+v, %v", name, n, change, err, st, serr)
				}
			}
		}
	}
}

// TestPlaces: areas that overlap, and partitions that no table has, are refused.
func TestPlaces(t *testing.T) {
	a := boottest.NewMedium(fresh(t)...).Areas()
	whole := a[0].Size() + a[1].Size()
	for _, c := range []struct {
		size      int64
		partition int
		made, ok  bool
	}{{diskSize, 1, true, true}, {diskSize, 128, true, true}, {diskSize, 129, true, false}, {diskSize, 0, false, false},
		{diskSize, -1, false, false}, {whole, 1, true, false}, {whole - 1, 1, false, false}} {
		b, err := gpt.New(gpt.Options{Primary: a[0], Backup: a[1], Size: c.size, Sector: sector, Slots: []string{"A"},
			Partition: map[string]int{"A": c.partition}}, "A")
		if c.made != (err == nil) || err != nil && !errors.Is(err, boot.ErrState) {
			t.Fatalf("New on %d bytes with partition %d = %v", c.size, c.partition, err)
		}
		if err != nil {
			continue
		}
		if _, err := b.State(t.Context()); c.ok != (err == nil) || err != nil && !errors.Is(err, boot.ErrState) {
			t.Errorf("State on %d bytes with partition %d = %v", c.size, c.partition, err)
		}
	}
}

// TestCopyOutsideTheAreas: a copy that could not be written back is refused before anything is written.
func TestCopyOutsideTheAreas(t *testing.T) {
	areas := fresh(t)
	m := boottest.NewMedium(areas[0], areas[1][16384:])
	b, err := open(m.Areas(), "A")
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.State(t.Context())
	for name, err := range map[string]error{"State": err, "MarkBad": b.MarkBad(t.Context(), "B"), "Repair": b.Repair(t.Context())} {
		if !errors.Is(err, boot.ErrState) || !strings.Contains(err.Error(), "in neither area 1 nor area 2") || m.Writes() > 0 {
			t.Errorf("%s = %v, %d sectors written; want ErrState and none", name, err, m.Writes())
		}
	}
}

// TestNothingInTheAreas: if neither copy can be read, the error names the areas that do not hold one.
func TestNothingInTheAreas(t *testing.T) {
	b, err := open(boottest.NewMedium(make([]byte, gpt.PrimarySize(sector)), nil).Areas(), "A")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.State(t.Context()); !errors.Is(err, boot.ErrState) || !strings.Contains(err.Error(), "in neither area 1 nor area 2") {
		t.Errorf("State = %v; want ErrState with the areas", err)
	}
}

// TestLayouts changes tables with other numbers of entries, and with the entries behind a boot loader, which is left unchanged.
func TestLayouts(t *testing.T) {
	for _, layout := range []string{"--resize-table=56", "--resize-table=256", "--move-main-table=2048"} {
		t.Run(layout, func(t *testing.T) {
			if _, err := exec.LookPath("sgdisk"); err != nil {
				t.Skip("sgdisk is not installed")
			}
			path := filepath.Join(t.TempDir(), "d.img")
			run(t, "truncate", "-s", "4M", path)
			run(t, "sgdisk", layout, "-a8", "-n1:2560:+100K", "-n2:0:+100K", path)
			f := boottest.OpenFileArea(t, path)
			loader := bytes.Repeat([]byte("loader"), 1000)
			if _, err := f.F.WriteAt(loader, 200*sector); err != nil {
				t.Fatal(err)
			}
			const head, tail = 2080 * sector, 65 * sector
			areas := []boot.Area{&boottest.FileArea{F: f.F, Len: head}, &boottest.FileArea{F: f.F, Off: diskSize - tail, Len: tail}}
			b, err := open(areas, "A")
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Activate(t.Context(), "B", 5); err != nil {
				t.Fatal(err)
			}
			if out := run(t, "sgdisk", "-i2", path); !strings.Contains(out, "Attribute flags: 005") {
				t.Errorf("sgdisk -i2:\n%s", out)
			}
			if out := run(t, "sgdisk", "-v", path); !strings.Contains(out, "No problems found") {
				t.Errorf("sgdisk -v:\n%s", out)
			}
			got := make([]byte, len(loader))
			if _, err := f.F.ReadAt(got, 200*sector); err != nil || !bytes.Equal(got, loader) {
				t.Errorf("the boot loader behind the header was changed, %v", err)
			}
		})
	}
}

func FuzzTable(f *testing.F) {
	f.Fuzz(func(t *testing.T, header, entries []byte) { takes(t, header, entries) })
}

func TestSeeds(t *testing.T) {
	boottest.Seeds(t, "FuzzTable", 8, 3, func(v []string) bool { return takes(t, []byte(v[0]), []byte(v[1])) })
}

// takes marks slot A good in a table of any content, with right checksums if the header size is legal. It reports whether the table
// is valid.
func takes(t *testing.T, header, entries []byte) bool {
	area := make([]byte, gpt.PrimarySize(sector))
	h := area[sector : 2*sector]
	copy(h, header)
	copy(area[2*sector:], entries)
	le := binary.LittleEndian
	if size := le.Uint32(h[12:]); size >= 92 && size <= sector {
		le.PutUint32(h[88:], crc32.ChecksumIEEE(area[2*sector:]))
		le.PutUint32(h[16:], 0)
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:size]))
	}
	m := boottest.NewMedium(area, make([]byte, gpt.BackupSize(sector)))
	b, err := open(m.Areas(), "A")
	if err != nil {
		t.Fatal(err)
	}
	return boottest.Takes(t, b)
}
