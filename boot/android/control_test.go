package android_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"updater/boot"
	"updater/boot/android"
	"updater/boot/boottest"
	"updater/internal/crashdisk/bootdisk"
)

// sectorOf returns the sector of a structure, with a foreign byte behind it.
func sectorOf(slots ...uint16) []byte {
	b := make([]byte, android.Size)
	copy(b, "_a\x00\x00BCAB\x01\x02")
	for i, s := range slots {
		binary.LittleEndian.PutUint16(b[12+2*i:], s)
	}
	binary.LittleEndian.PutUint32(b[28:], crc32.ChecksumIEEE(b[:28]))
	b[100] = 0x77
	return b
}

// uboot models U-Boot's ab_select before v2026.07, which does not boot a slot without tries even if it is successful.
func uboot(d *boottest.Disk) string {
	for _, a := range d.Areas {
		if binary.LittleEndian.Uint32(a[28:]) != crc32.ChecksumIEEE(a[:28]) {
			continue
		}
		best, at := uint16(0), -1
		for i := range 2 {
			if v := binary.LittleEndian.Uint16(a[12+2*i:]); v>>4&7 > 0 && v&15 > best {
				best, at = v&15, i
			}
		}
		if at < 0 {
			return ""
		}
		if v := binary.LittleEndian.Uint16(a[12+2*at:]); v>>7&1 == 0 {
			binary.LittleEndian.PutUint16(a[12+2*at:], v-1<<4)
			copy(a, "a\x00\x00\x00")
			binary.LittleEndian.PutUint32(a[28:], crc32.ChecksumIEEE(a[:28]))
		}
		for _, other := range d.Areas {
			copy(other[:32], a[:32])
		}
		return string("AB"[at])
	}
	return "broken"
}

const goodSlot = 1<<7 | 1<<4

func open(areas []boot.Area, booted string) (boot.Backend, error) {
	o := android.Options{Area: areas[0], Slots: []string{"A", "B"}}
	if len(areas) > 1 {
		o.Backup = areas[1]
	}
	return android.New(o, booted)
}

func TestContract(t *testing.T) {
	for name, copies := range map[string]int{"one": 1, "with a backup": 2} {
		t.Run(name, func(t *testing.T) {
			boottest.Contract(t, boottest.Rig{
				Volatile: bootdisk.New,
				Fresh: func(*testing.T) boottest.Disk {
					return boottest.Disk{Areas: [][]byte{sectorOf(goodSlot|15, goodSlot|14), sectorOf(goodSlot|15, goodSlot|14)}[:copies]}
				},
				Open:   func(m *boottest.Medium, booted string) (boot.Backend, error) { return open(m.Areas(), booted) },
				Boot:   uboot,
				Caps:   boot.Caps{MaxTries: 7, SwitchAtomic: true},
				Others: func(d boottest.Disk) []string { return []string{string(d.Areas[0][8:12]), string(d.Areas[0][32:])} },
			})
		})
	}
}

// The structure, byte for byte, after Activate(B, 3).
func TestVector(t *testing.T) {
	m := boottest.NewMedium(sectorOf(goodSlot|15, goodSlot|14))
	b, err := open(m.Areas(), "A")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Activate(t.Context(), "B", 3); err != nil {
		t.Fatal(err)
	}
	const want = "5f610000" + "42434142" + "0102" + "0000" + "9e00" + "3f00" + "0000" + "0000" + "0000000000000000"
	if got := hex.EncodeToString(m.Snapshot()[0][:28]); got != want {
		t.Errorf("bootloader_control is %s; want %s", got, want)
	}
}

// With a bad checksum U-Boot makes every slot bootable. State reports that, and Repair makes only the running slot bootable.
func TestRepair(t *testing.T) {
	bad := sectorOf(goodSlot|15, goodSlot|14)
	bad[28] ^= 1
	m := boottest.NewMedium(bad)
	b, err := open(m.Areas(), "B")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.State(t.Context()); !errors.Is(err, boot.ErrState) || !strings.Contains(err.Error(), "every slot bootable") {
		t.Errorf("State = %v; want ErrState", err)
	}
	unknown, err := open(m.Areas(), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := unknown.Repair(t.Context()); err == nil || m.Writes() > 0 {
		t.Errorf("Repair with no slot running = %v, %d writes", err, m.Writes())
	}
	if err := b.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st, err := b.State(t.Context()); err != nil || st.Next != "B" || st.Slots[0].Bootable {
		t.Errorf("after Repair State = %+v, %v; want B alone", st, err)
	}
}

// With a backup, an unreadable sector is a bad copy.
func TestUnreadableSectors(t *testing.T) {
	boottest.UnreadableSectors(t, boottest.Rig{
		Fresh: func(*testing.T) boottest.Disk {
			return boottest.Disk{Areas: [][]byte{sectorOf(goodSlot|15, goodSlot|14), sectorOf(goodSlot|15, goodSlot|14)}}
		},
		Open: func(m *boottest.Medium, booted string) (boot.Backend, error) { return open(m.Areas(), booted) },
		Boot: uboot,
	})
}

// The order is that of U-Boot's ab_select_slot, and slots that it skips are not bootable.
func TestOrder(t *testing.T) {
	for name, c := range map[string]struct {
		a, b uint16
		next string
	}{
		"equal, B successful":     {3<<4 | 15, goodSlot | 15, "B"},
		"equal, B has more tries": {1<<4 | 15, 2<<4 | 15, "B"},
		"equal":                   {goodSlot | 15, goodSlot | 15, "A"},
		"priority 0":              {0, 1 << 4, "B"},
		"corrupted":               {1<<8 | goodSlot | 15, goodSlot | 14, "B"},
		"none":                    {15, 14, ""},
	} {
		m := boottest.NewMedium(sectorOf(c.a, c.b))
		b, err := open(m.Areas(), "")
		if err != nil {
			t.Fatal(err)
		}
		if st, err := b.State(t.Context()); err != nil || st.Next != c.next {
			t.Errorf("%s: State = %+v, %v; want slot %q", name, st, err, c.next)
		}
		if err := b.Activate(t.Context(), "A", 1); err != nil {
			t.Fatal(err)
		}
		if got := binary.LittleEndian.Uint16(m.Snapshot()[0][12:]); got&(1<<8) != 0 || got>>4&7 != 1 {
			t.Errorf("%s: after Activate slot A is %#x", name, got)
		}
	}
	few := sectorOf(goodSlot|15, goodSlot|14)
	few[9] = 3<<3 | 1 // recovery tries and one slot
	binary.LittleEndian.PutUint32(few[28:], crc32.ChecksumIEEE(few[:28]))
	b, err := open(boottest.NewMedium(few).Areas(), "A")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.State(t.Context()); !errors.Is(err, boot.ErrState) || !strings.Contains(err.Error(), "has 1 slots") {
		t.Errorf("State with one slot = %v; want ErrState", err)
	}
}

func FuzzControl(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) { takes(t, data) })
}

func TestSeeds(t *testing.T) {
	boottest.Seeds(t, "FuzzControl", 9, 5, func(v []string) bool { return takes(t, []byte(v[0])) })
}

// takes marks slot A good in an arbitrary structure with a valid checksum. It reports whether the structure is valid.
func takes(t *testing.T, data []byte) bool {
	area := make([]byte, android.Size)
	copy(area, data)
	if len(data) >= 28 {
		binary.LittleEndian.PutUint32(area[28:], crc32.ChecksumIEEE(area[:28]))
	}
	m := boottest.NewMedium(area)
	b, err := open(m.Areas(), "A")
	if err != nil {
		t.Fatal(err)
	}
	return boottest.Takes(t, b)
}

// TestNew: the areas have the size of a sector, and the structure has room for four slots.
func TestNew(t *testing.T) {
	area := func(size int) boot.Area { return boottest.NewMedium(make([]byte, size)).Areas()[0] }
	five := []string{"A", "B", "C", "D", "E"}
	for _, c := range []struct {
		o  android.Options
		ok bool
	}{
		{android.Options{Area: area(android.Size), Slots: five[:4]}, true},
		{android.Options{Area: area(android.Size), Slots: five}, false},
		{android.Options{Area: area(android.Size + 1), Slots: five[:2]}, false},
		{android.Options{Area: area(android.Size - 1), Slots: five[:2]}, false},
		{android.Options{Area: area(android.Size), Backup: area(2 * android.Size), Slots: five[:2]}, false},
	} {
		if _, err := android.New(c.o, ""); (err == nil) != c.ok || err != nil && !errors.Is(err, boot.ErrState) {
			t.Errorf("New with %d slots = %v; want success: %v", len(c.o.Slots), err, c.ok)
		}
	}
}

// TestBadStructures: a structure that U-Boot rejects is refused, although its checksum is right.
func TestBadStructures(t *testing.T) {
	for name, at := range map[string]int{"magic": 4, "version": 8} {
		bad := sectorOf(goodSlot|15, goodSlot|14)
		bad[at]++
		bad[20] = 7 // reserved
		binary.LittleEndian.PutUint32(bad[28:], crc32.ChecksumIEEE(bad[:28]))
		m := boottest.NewMedium(bad)
		b, err := open(m.Areas(), "A")
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Activate(t.Context(), "B", 1); !errors.Is(err, boot.ErrState) || !strings.Contains(err.Error(), name) || m.Writes() > 0 {
			t.Errorf("%s: Activate = %v, %d writes; want ErrState and none", name, err, m.Writes())
		}
		if err := b.Repair(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := sectorOf(goodSlot | 15)
		if got := m.Snapshot()[0]; !bytes.Equal(got, want) {
			t.Errorf("%s: after Repair the sector is %x; want %x", name, got, want)
		}
	}
}

// TestCopies: a copy that is bad, or that differs, is found and restored from the one that U-Boot uses; the bytes behind it stay.
func TestCopies(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(main, backup []byte)
		next   string
		want   string // evidence
	}{
		"sound":         {func(_, _ []byte) {}, "A", ""},
		"torn":          {func(main, _ []byte) { main[13] ^= 1 }, "A", "area 1 has checksum"},
		"backup torn":   {func(_, backup []byte) { backup[4] ^= 1 }, "A", "the backup area 2 has checksum"},
		"backup older":  {func(_, backup []byte) { copy(backup, sectorOf(3<<4|14, goodSlot|15)[:32]) }, "A", "the backup area 2 differs"},
		"torn, B first": {func(main, backup []byte) { main[13] ^= 1; copy(backup, sectorOf(goodSlot|14, goodSlot|15)[:32]) }, "B", "uses the backup"},
	} {
		main, backup := sectorOf(goodSlot|15, goodSlot|14), sectorOf(goodSlot|15, goodSlot|14)
		backup[100] = 0x55
		c.damage(main, backup)
		m := boottest.NewMedium(main, backup)
		b, err := open(m.Areas(), "A")
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{c.want, ""} {
			st, err := b.State(t.Context())
			found := slices.DeleteFunc(st.Findings, func(f boot.Finding) bool { return f.Remedy != boot.RemedyRepair })
			if err != nil || st.Next != c.next || len(found) > 0 != (want != "") || want != "" && !strings.Contains(found[0].Evidence, want) {
				t.Errorf("%s: State = %+v, %v; want slot %s and %q", name, st, err, c.next, want)
			}
			if err := b.Repair(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := m.Snapshot(); !bytes.Equal(got[0][:32], got[1][:32]) || got[0][100] != 0x77 || got[1][100] != 0x55 {
			t.Errorf("%s: after Repair the copies are %x and %x", name, got[0][:101], got[1][:101])
		}
	}
}

// TestSlotFindings: a slot that is corrupted, or good without a try, is found; a change of another slot leaves it as it is.
func TestSlotFindings(t *testing.T) {
	for name, c := range map[string]struct {
		b    uint16
		want string
	}{
		"good": {goodSlot | 14, ""}, "on trial": {2<<4 | 14, ""}, "spent": {14, ""}, "bad": {0, ""}, "priority 0": {1 << 7, ""},
		"corrupted": {1<<8 | goodSlot | 14, "slot B is marked verity_corrupted"}, "no tries": {1<<7 | 14, "slot B is successful but has no tries left"},
	} {
		m := boottest.NewMedium(sectorOf(goodSlot|15, c.b))
		b, err := open(m.Areas(), "A")
		if err != nil {
			t.Fatal(err)
		}
		st, err := b.State(t.Context())
		var found []string
		for _, f := range st.Findings[:len(st.Findings)-len(boot.Disagreements(st))] {
			found = append(found, f.Evidence)
		}
		if got := strings.Join(found, "; "); err != nil || (got == "") != (c.want == "") || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: State finds %q, %v; want %q", name, got, err, c.want)
		}
		if err := b.Activate(t.Context(), "A", 2); err != nil {
			t.Fatal(err)
		}
		if got := binary.LittleEndian.Uint16(m.Snapshot()[0][14:]); got>>8 != c.b>>8 {
			t.Errorf("%s: after Activate of slot A slot B is %#x; want the corrupted bit of %#x", name, got, c.b)
		}
	}
}

// noted is an area that records its writes.
type noted struct {
	boot.Area
	log *[]string
}

func (n noted) WriteAt(p []byte, off int64) (int, error) {
	*n.log = append(*n.log, n.String())
	return n.Area.WriteAt(p, off)
}

// TestOrderOfCopies: the copy that U-Boot prefers is written first.
func TestOrderOfCopies(t *testing.T) {
	var log []string
	a := boottest.NewMedium(sectorOf(goodSlot|15, goodSlot|14), sectorOf(goodSlot|15, goodSlot|14)).Areas()
	b, err := open([]boot.Area{noted{a[0], &log}, noted{a[1], &log}}, "A")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Activate(t.Context(), "B", 1); err != nil || !slices.Equal(log, []string{"area 1", "area 2"}) {
		t.Errorf("Activate = %v, and wrote %v", err, log)
	}
}
