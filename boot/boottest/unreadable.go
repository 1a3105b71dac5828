package boottest

import (
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
// must read the state and report the sector, every mutation must work, and Repair must make the sector readable.
func UnreadableSectors(t *testing.T, r Rig) {
	tried := 0
	for i, a := range r.Fresh(t).Areas {
		for off := int64(0); off < int64(len(a)); off += boot.Sector {
			d := r.Fresh(t).Clone()
			for k := off; k < min(off+boot.Sector, int64(len(a))); k++ {
				d.Areas[i][k] ^= 0xee
			}
			if r.boots(d, 1)[0] == "A" {
				tried++
				r.unreadable(t, i, off)
			}
		}
	}
	if tried == 0 {
		t.Error("the boot loader needs every sector: this tests nothing")
	}
	t.Logf("%d sectors", tried)
}

// unreadable tests the backend with one unreadable sector, on which the boot loader does not depend.
func (r Rig) unreadable(t *testing.T, i int, off int64) {
	t.Helper()
	open := func() (boot.Backend, *unreadable) {
		m := New(r.Fresh(t))
		list := m.Areas()
		bad := &unreadable{Area: list[i], off: off}
		list[i], m.devices = bad, list
		return r.open(t, m, "A"), bad
	}
	b, _ := open()
	if st, err := b.State(t.Context()); err != nil || st.Next != "A" {
		t.Errorf("area %d, sector at %d: State = %+v, %v; want slot A", i+1, off, st, err)
	}
	for name, err := range map[string]error{
		"MarkGood":   b.MarkGood(t.Context(), "A"),
		"Invalidate": b.Invalidate(t.Context(), "B"),
		"Activate":   b.Activate(t.Context(), "B", 1),
	} {
		if err != nil {
			t.Errorf("area %d, sector at %d: %s = %v", i+1, off, name, err)
		}
	}
	b, bad := open()
	if err := b.Repair(t.Context()); err != nil {
		t.Errorf("area %d, sector at %d: Repair = %v", i+1, off, err)
	}
	if st, err := b.State(t.Context()); err != nil || st.Next != "A" || !bad.healed && bad.needed {
		t.Errorf("area %d, sector at %d: after Repair State = %+v, %v, and the sector is rewritten: %v", i+1, off, st, err, bad.healed)
	}
}
