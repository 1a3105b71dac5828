package boottest

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"updater/boot"
)

// unreadable is an area with a sector that cannot be read until a write covers all of it, as a power cut leaves behind on
// many media. A write to a part of it fails, since it would have to read the rest.
type unreadable struct {
	boot.Area
	off    int64
	healed bool
	needed bool // a read failed
}

func (u *unreadable) hit(off, n int64) bool {
	return !u.healed && off < u.off+boot.Sector && off+n > u.off
}

func (u *unreadable) ReadAt(p []byte, off int64) (int, error) {
	if u.hit(off, int64(len(p))) {
		u.needed = true
		return 0, unix.EIO
	}
	return u.Area.ReadAt(p, off)
}

func (u *unreadable) ReadBackAt(p []byte, off int64) (int, error) {
	if u.hit(off, int64(len(p))) {
		u.needed = true
		return 0, unix.EIO
	}
	return u.Area.ReadBackAt(p, off)
}

func (u *unreadable) WriteAt(p []byte, off int64) (int, error) {
	if u.hit(off, int64(len(p))) {
		if off > u.off || off+int64(len(p)) < min(u.off+boot.Sector, u.Size()) {
			return 0, unix.EIO
		}
		u.healed = true
	}
	return u.Area.WriteAt(p, off)
}

// UnreadableSectors makes each sector of the rig's areas unreadable in turn. Where the boot loader still boots, the backend
// must read the state and report the sector, every mutation must work and make the sector readable, and so must Repair.
// Elsewhere nothing is changed. After a failed MarkBad, Invalidate restores the redundancy, and no copy lets the slot boot.
func UnreadableSectors(t *testing.T, r Rig) {
	invalid, tried := r.invalidated(t), 0
	for i, a := range r.Fresh(t).Areas {
		for off := int64(0); off < int64(len(a)); off += boot.Sector {
			d := r.Fresh(t).Clone()
			damage(d, i, off)
			redundant := r.boots(d, 1)[0] == "A"
			for n, d := range invalid {
				d = d.Clone()
				damage(d, i, off)
				if chain := r.boots(d, 12); slices.Contains(chain, "B") || redundant && chain[0] != "A" {
					t.Errorf("area %d, sector at %d: after a MarkBad whose operation %d failed, and Invalidate, the boot loader tries %q", i+1, off, n+1, chain)
				}
			}
			if !redundant {
				r.needed(t, i, off)
				continue
			}
			tried++
			r.unreadable(t, i, off)
		}
	}
	if tried == 0 {
		t.Error("the boot loader needs every sector: this tests nothing")
	}
	t.Logf("%d sectors", tried)
}

// damage changes the bytes of one sector.
func damage(d Disk, area int, off int64) {
	part := d.Areas[area][off:min(off+boot.Sector, int64(len(d.Areas[area])))]
	for k := range part {
		part[k] ^= 0xee
	}
}

// invalidated returns one disk for each operation of MarkBad: the operation failed, and Invalidate succeeded afterwards.
func (r Rig) invalidated(t *testing.T) (list []Disk) {
	t.Helper()
	for n := 1; ; n++ {
		m := New(r.Fresh(t))
		m.FailAt = n
		err := r.open(t, m, "A").MarkBad(t.Context(), "B")
		if m.Operations() < n {
			if err != nil || n < 4 {
				t.Errorf("MarkBad = %v, and has %d operations", err, m.Operations())
			}
			return list
		}
		m.FailAt = 0
		if err := r.open(t, m, "A").Invalidate(t.Context(), "B"); err != nil {
			t.Fatal(err)
		}
		list = append(list, m.Disk())
	}
}

// openBad opens the backend with slot A running and one unreadable sector.
func (r Rig) openBad(t *testing.T, i int, off int64) (*Medium, boot.Backend, *unreadable) {
	t.Helper()
	m := New(r.Fresh(t))
	list := m.Areas()
	bad := &unreadable{Area: list[i], off: off}
	list[i], m.devices = bad, list
	return m, r.open(t, m, "A"), bad
}

// needed tests the backend with an unreadable sector on which the boot loader depends.
func (r Rig) needed(t *testing.T, i int, off int64) {
	t.Helper()
	m, b, _ := r.openBad(t, i, off)
	_, err := b.State(t.Context())
	for name, err := range map[string]error{"State": err, "Activate": b.Activate(t.Context(), "B", 1), "Invalidate": b.Invalidate(t.Context(), "B")} {
		if !errors.Is(err, boot.ErrState) || m.Writes() > 0 {
			t.Errorf("area %d, sector at %d: %s = %v, %d sectors written; want ErrState and none", i+1, off, name, err, m.Writes())
		}
	}
}

// unreadable tests the backend with one unreadable sector, on which the boot loader does not depend.
func (r Rig) unreadable(t *testing.T, i int, off int64) {
	t.Helper()
	for name, change := range map[string]func(b boot.Backend) error{
		"Repair":     func(b boot.Backend) error { return b.Repair(t.Context()) },
		"Invalidate": func(b boot.Backend) error { return b.Invalidate(t.Context(), "B") },
		"Activate":   func(b boot.Backend) error { return b.Activate(t.Context(), "B", 1) },
	} {
		m, b, bad := r.openBad(t, i, off)
		st, err := b.State(t.Context())
		if err != nil || st.Next != "A" || bad.needed != slices.ContainsFunc(st.Findings, repairable) {
			t.Errorf("area %d, sector at %d: State = %+v, %v; want slot A, and a finding if the sector is used: %v", i+1, off, st, err, bad.needed)
		}
		if err := b.MarkGood(t.Context(), "A"); err != nil || m.Writes() > 0 {
			t.Errorf("area %d, sector at %d: MarkGood = %v, %d sectors written; want none", i+1, off, err, m.Writes())
		}
		if err := change(b); err != nil {
			t.Errorf("area %d, sector at %d: %s = %v", i+1, off, name, err)
		}
		st, err = b.State(t.Context())
		if err != nil || bad.needed && !bad.healed || name != "Activate" && st.Next != "A" || slices.ContainsFunc(st.Findings, repairable) {
			t.Errorf("area %d, sector at %d: after %s State = %+v, %v, and the sector is rewritten: %v", i+1, off, name, st, err, bad.healed)
		}
	}
}
