package powercut

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"strings"

	"updater/boot"
	"updater/boot/android"
	"updater/boot/gpt"
	"updater/boot/grub"
)

// Loaders with other state than RAUC's variables.

// grubTriesLoader is examples/boot/grub/tries.cfg: a digit counts down, g is good and is not written.
func grubTriesLoader() *loader {
	l := grubLoader()
	l.name = "grub, tries"
	l.fresh = func() [][]byte {
		s := "# GRUB Environment Block\nORDER=A B\nA_LEFT=g\nB_LEFT=g\n"
		return [][]byte{[]byte(s + strings.Repeat("#", 1024-len(s)))}
	}
	l.open = func(a []boot.Area, booted string) (boot.Backend, error) {
		return grub.New(grub.Options{Area: a[0], Slots: slotNames, Dialect: grub.Tries}, booted)
	}
	l.boot = func(areas [][]byte) string {
		text := string(areas[0])
		get := func(name string) string {
			_, rest, ok := strings.Cut(text, "\n"+name+"=")
			if !ok {
				return ""
			}
			value, _, _ := strings.Cut(rest, "\n")
			return value
		}
		for s := range strings.FieldsSeq(get("ORDER")) {
			left := get(s + "_LEFT")
			if left == "g" {
				return s
			}
			if len(left) == 1 && left[0] >= '1' && left[0] <= '9' {
				at := strings.Index(text, "\n"+s+"_LEFT="+left+"\n")
				areas[0][at+len("\n"+s+"_LEFT=")]--
				return s
			}
		}
		return ""
	}
	return l
}

// androidLoader is U-Boot's ab_select on Android's bootloader_control, one copy in one sector.
func androidLoader() *loader {
	seal := func(b []byte) { binary.LittleEndian.PutUint32(b[28:], crc32.ChecksumIEEE(b[:28])) }
	return &loader{
		name:  "android",
		areas: []area{{0, android.Size}},
		fresh: func() [][]byte {
			b := make([]byte, android.Size)
			copy(b, "_a\x00\x00BCAB\x01\x02")
			for i, prio := range []uint16{15, 14} {
				binary.LittleEndian.PutUint16(b[12+2*i:], 1<<7|1<<4|prio)
			}
			seal(b)
			return [][]byte{b}
		},
		open: func(a []boot.Area, booted string) (boot.Backend, error) {
			return android.New(android.Options{Area: a[0], Slots: slotNames}, booted)
		},
		boot: func(areas [][]byte) string {
			a := areas[0]
			if binary.LittleEndian.Uint32(a[28:]) != crc32.ChecksumIEEE(a[:28]) {
				return "A" // every slot counts again, with any content: the check of the slot finds that out
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
				seal(a)
			}
			return slotNames[at]
		},
	}
}

// gptLoader is vboot's choice by the attributes of a GUID partition table, the backup when the primary is damaged.
func gptLoader() *loader {
	const sector = 512
	le := binary.LittleEndian
	seal := func(header, entries []byte) {
		le.PutUint32(header[88:], crc32.ChecksumIEEE(entries))
		clear(header[16:20])
		le.PutUint32(header[16:], crc32.ChecksumIEEE(header[:92]))
	}
	parts := func(areas [][]byte) [2][2][]byte { // header, entries
		p, b := areas[0], areas[1]
		return [2][2][]byte{{p[sector : 2*sector], p[2*sector:]}, {b[16384:], b[:16384]}}
	}
	l := &loader{name: "gpt", areas: []area{{0, gpt.PrimarySize(sector)}, {slotsAt + 2*slotSize, gpt.BackupSize(sector)}}}
	last := uint64(slotsAt+2*slotSize)/sector + uint64(gpt.BackupSize(sector))/sector - 1
	l.fresh = func() [][]byte {
		areas := [][]byte{make([]byte, l.areas[0].size), make([]byte, l.areas[1].size)}
		for i, c := range parts(areas) {
			header, entries := c[0], c[1]
			for n := range 2 {
				e := entries[n*128:]
				copy(e, bytes.Repeat([]byte{0xfe}, 16))
				e[16] = byte(n + 1)
				at := uint64(slotOffset(slotNames[n])) / sector
				le.PutUint64(e[32:], at)
				le.PutUint64(e[40:], at+slotSize/sector-1)
				le.PutUint64(e[48:], 1<<56|uint64(10-n)<<48)
			}
			copy(header, "EFI PART\x00\x00\x01\x00\x5c\x00\x00\x00")
			own, other, list := uint64(1), last, uint64(2)
			if i == 1 {
				own, other, list = last, 1, last-32
			}
			le.PutUint64(header[24:], own)
			le.PutUint64(header[32:], other)
			le.PutUint64(header[40:], 34)
			le.PutUint64(header[48:], last-33)
			header[56] = 7
			le.PutUint64(header[72:], list)
			le.PutUint32(header[80:], 128)
			le.PutUint32(header[84:], 128)
			seal(header, entries)
		}
		return areas
	}
	l.open = func(a []boot.Area, booted string) (boot.Backend, error) {
		return gpt.New(gpt.Options{
			Primary: a[0], Backup: a[1], Size: int64(last+1) * sector, Sector: sector, Slots: slotNames, Partition: map[string]int{"A": 1, "B": 2},
		}, booted)
	}
	fresh := l.fresh()
	valid := func(header, entries []byte) bool {
		h := bytes.Clone(header[:92])
		clear(h[16:20])
		return string(h[:8]) == "EFI PART" && le.Uint32(header[16:]) == crc32.ChecksumIEEE(h) && le.Uint32(h[88:]) == crc32.ChecksumIEEE(entries)
	}
	l.canon = func(areas [][]byte) { // nothing in a copy without its checksums matters
		for _, c := range parts(areas) {
			if !valid(c[0], c[1]) {
				copy(c[0], bytes.Repeat([]byte{0xee}, len(c[0])))
				copy(c[1], bytes.Repeat([]byte{0xee}, len(c[1])))
			}
		}
	}
	l.boot = func(areas [][]byte) string {
		var from []byte
		for _, c := range parts(areas) {
			if from == nil && valid(c[0], c[1]) {
				from = bytes.Clone(c[1])
			}
		}
		if from == nil {
			return ""
		}
		best, at := 0, -1
		for i := range slotNames {
			a := le.Uint64(from[i*128+48:])
			if prio := int(a >> 48 & 15); prio > best && (a>>56&1 == 1 || a>>52&15 > 0) {
				best, at = prio, i
			}
		}
		if at < 0 {
			return ""
		}
		if a := le.Uint64(from[at*128+48:]); a>>56&1 == 0 {
			le.PutUint64(from[at*128+48:], a-1<<52)
		}
		for i, c := range parts(areas) { // both copies repaired and updated at once: only the choice is modelled
			copy(c[0], parts(fresh)[i][0])
			copy(c[1], from)
			seal(c[0], c[1])
		}
		return slotNames[at]
	}
	return l
}
