package android_test

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
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
	few[9] = 1
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
