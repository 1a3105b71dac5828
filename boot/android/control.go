// Package android keeps the slot choice in Android's bootloader_control: 32 bytes at offset 2048 of the misc partition
// (AOSP, hardware/interfaces/boot, bootloader_message.h; U-Boot, boot/android_ab.c) with a priority, tries, a successful
// bit and a verity_corrupted bit for each slot, and one checksum. The boot loader boots the slot with the highest priority
// that is not corrupted and is successful or has tries left, and spends a try of a slot that is not successful. A boot of a
// good slot writes nothing.
//
// The structure lies in one sector, so every change is atomic. U-Boot before v2026.07 does not boot a successful slot
// without tries, so a good slot keeps one. If the checksum is bad, U-Boot makes all slots bootable again, even incomplete
// ones: [scheme.Backend.Repair] rebuilds the structure around the running slot.
package android

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"updater/boot"
	"updater/boot/scheme"
)

const (
	controlSize = 32
	magic       = 0x42414342
	version     = 1
	maxSlots    = 4
	offMagic    = 4
	offVersion  = 8
	offCount    = 9 // number of slots, in 3 bits
	offSlots    = 12
	offCRC      = 28
	corrupted   = 1 << 8 // of a slot: verity_corrupted
)

// Offset is the offset of the structure in the misc partition and Size the size of its area, in bytes.
const (
	Offset = 2048
	Size   = boot.Sector
)

// Options configure the backend.
type Options struct {
	Area   boot.Area // Size bytes at Offset of misc
	Backup boot.Area // second copy if U-Boot has CONFIG_ANDROID_AB_BACKUP_OFFSET, otherwise nil
	Slots  []string  // in the order of Android's a, b, ...
}

// New returns the backend on o. booted is the running slot, "" outside every slot.
func New(o Options, booted string) (*scheme.Backend, error) {
	if len(o.Slots) > maxSlots {
		return nil, fmt.Errorf("%w: %d slots configured; bootloader_control has at most %d", boot.ErrState, len(o.Slots), maxSlots)
	}
	for _, a := range []boot.Area{o.Area, o.Backup} {
		if a != nil && a.Size() != Size {
			return nil, fmt.Errorf("%w: %s has %d bytes, expected %d", boot.ErrState, a, a.Size(), Size)
		}
	}
	return scheme.New(&store{o}, o.Slots, booted)
}

type store struct{ Options }

// Rules implements [scheme.Store].
func (s *store) Rules() scheme.Rules {
	return scheme.Rules{MaxTries: 7, GoodTries: 1, SwitchAtomic: true}
}

// Load implements [scheme.Store].
func (s *store) Load() (scheme.Record, []boot.Finding, error) {
	r := &record{store: s}
	var found []boot.Finding
	var bad error
	r.data, bad = read(s.Area)
	if s.Backup != nil {
		switch data, worse := read(s.Backup); {
		case bad != nil && worse == nil:
			found = append(found, boot.Warn(boot.RemedyRepair, "%s %v; U-Boot uses the backup %s", s.Area, bad, s.Backup))
			r.data, bad = data, nil
		case worse != nil:
			found = append(found, boot.Warn(boot.RemedyRepair, "the backup %s %v", s.Backup, worse))
		case !bytes.Equal(r.data[:controlSize], data[:controlSize]):
			found = append(found, boot.Warn(boot.RemedyRepair, "the backup %s differs from %s, which U-Boot uses", s.Backup, s.Area))
		}
	}
	if n := int(r.data[offCount] & 7); bad == nil && n < len(s.Slots) {
		bad = fmt.Errorf("has %d slots, expected at least %d: U-Boot does not boot the others", n, len(s.Slots))
	}
	if bad != nil {
		return nil, nil, fmt.Errorf("%w: bootloader_control in %s %w; %s", boot.ErrState, s.Area, bad, boot.RemedyRepair)
	}
	for i, slot := range s.Slots {
		v := r.slot(i)
		if v&corrupted != 0 {
			found = append(found, boot.Warn("install into slot "+slot+", or run updater mark good in it",
				"slot %s is marked verity_corrupted: the boot loader does not boot it", slot))
		}
		if v>>7&1 == 1 && v>>4&7 == 0 && v&15 > 0 {
			found = append(found, boot.Warn("run updater mark good in slot "+slot,
				"slot %s is successful but has no tries left; U-Boot before v2026.07 does not boot it", slot))
		}
	}
	return r, found, nil
}

// Repair implements [scheme.Store].
func (s *store) Repair(booted string) error {
	rec, _, err := s.Load()
	if err == nil {
		return rec.(*record).write(rec.(*record).data)
	}
	if booted == "" {
		return fmt.Errorf("%w; it can only be rebuilt around a slot that works: name it with --booted", err)
	}
	data := make([]byte, Size)
	copy(data, "_a")
	binary.LittleEndian.PutUint32(data[offMagic:], magic)
	data[offVersion], data[offCount] = version, byte(len(s.Slots))
	r := &record{s, data}
	return r.Save(scheme.NewTable(s.Rules(), s.Slots, func(slot string) scheme.Entry {
		if slot == booted {
			return scheme.Entry{Priority: 15, Tries: 1, Good: true}
		}
		return scheme.Entry{}
	}))
}

// read reads a copy and validates it. A copy that cannot be read is zero.
func read(a boot.Area) ([]byte, error) {
	data, bad := boot.ReadSectors(a)
	if len(bad) > 0 {
		return data, errors.New("cannot be read")
	}
	return data, check(data)
}

// check validates a structure.
func check(data []byte) error {
	le := binary.LittleEndian
	if want, got := le.Uint32(data[offCRC:]), crc32.ChecksumIEEE(data[:offCRC]); want != got {
		return fmt.Errorf("has checksum %08x, but its data has %08x: U-Boot would make every slot bootable", want, got)
	}
	if got := le.Uint32(data[offMagic:]); got != magic {
		return fmt.Errorf("has magic %08x, expected %08x: U-Boot rejects it", got, magic)
	}
	if data[offVersion] != version {
		return fmt.Errorf("has version %d, expected %d", data[offVersion], version)
	}
	return nil
}

type record struct {
	*store
	data []byte // the sector; the bytes after the structure are not written
}

func (r *record) slot(i int) uint16 { return binary.LittleEndian.Uint16(r.data[offSlots+2*i:]) }

// Entry implements [scheme.Record]. Among equal priorities a successful slot comes first, then the one with more tries,
// and a priority of 0 is the lowest one, not none (U-Boot, boot/android_ab.c, ab_compare_slots and ab_select_slot).
func (r *record) Entry(slot string) scheme.Entry {
	v := r.slot(slices.Index(r.Slots, slot))
	if v&corrupted != 0 || v&0xff == 0 {
		return scheme.Entry{}
	}
	order := v&15<<4 | v>>7&1<<3 | v>>4&7
	return scheme.Entry{Priority: 1 + int(order), Tries: int(v >> 4 & 7), Good: v>>7&1 == 1}
}

// Save implements [scheme.Record].
func (r *record) Save(t *scheme.Table) error {
	data := bytes.Clone(r.data)
	prio := scheme.Place(t, func(s string) int { return int(r.slot(slices.Index(r.Slots, s)) & 15) }, 15)
	for i, s := range r.Slots {
		v := r.slot(i) &^ 0xff
		if t.Get(s) != r.Entry(s) { // a corrupted slot was rewritten, or is running
			v &^= corrupted
		}
		v |= uint16(prio[s]) | uint16(t.Get(s).Tries)<<4
		if t.Get(s).Good {
			v |= 1 << 7
		}
		binary.LittleEndian.PutUint16(data[offSlots+2*i:], v)
	}
	binary.LittleEndian.PutUint32(data[offCRC:], crc32.ChecksumIEEE(data[:offCRC]))
	if bytes.Equal(data, r.data) {
		return nil
	}
	return r.write(data)
}

// write writes both copies, beginning with the one that U-Boot prefers.
func (r *record) write(data []byte) error {
	for _, a := range []boot.Area{r.Area, r.Backup} {
		if a == nil {
			continue
		}
		old, bad := boot.ReadSectors(a)
		fresh := append(bytes.Clone(data[:controlSize]), old[controlSize:]...)
		if len(bad) == 0 && bytes.Equal(old, fresh) {
			continue
		}
		if err := boot.WriteVerified(a, fresh, 0); err != nil {
			return err
		}
	}
	return nil
}
