package state_test

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"updater/boot"
	"updater/boot/boottest"
	"updater/state"
)

// unreadable is an area with a sector that cannot be read until all of its page is written.
type unreadable struct {
	boot.Area
	bad int64 // where the sector begins, -1 once it was written
}

func (u *unreadable) ReadBackAt(p []byte, off int64) (int, error) {
	if u.bad >= 0 && off < u.bad+512 && off+int64(len(p)) > u.bad {
		return 0, syscall.EIO
	}
	return u.Area.ReadBackAt(p, off)
}

func (u *unreadable) WriteAt(p []byte, off int64) (int, error) {
	page := u.bad &^ 4095
	if u.bad >= 0 && off < u.bad+512 && off+int64(len(p)) > u.bad {
		if off > page || off+int64(len(p)) < page+4096 {
			return 0, syscall.EIO
		}
		u.bad = -1
	}
	return u.Area.WriteAt(p, off)
}

// TestUnreadableSector makes every sector of the area unreadable in turn. The state is known, an unreadable copy is one finding,
// and the next changes rewrite it. A sector behind a payload harms nothing.
func TestUnreadableSector(t *testing.T) {
	m := boottest.NewMedium(make([]byte, areaSize))
	s := open(t, m)
	for _, step := range life() {
		do(t, s.Update(step.change))
	}
	do(t, s.Update(func(s *state.State) { s.Floor = 9 }))
	content, degraded := m.Snapshot()[0], 0
	for bad := int64(0); bad < areaSize; bad += 512 {
		area := &unreadable{boottest.NewMedium(content).Areas()[0], bad}
		s, err := state.Open(area, state.State{})
		if err != nil || s.State().Floor != 9 || s.Lost() != "" {
			t.Fatalf("sector at %d: Open = %v, the floor is %d", bad, err, s.State().Floor)
		}
		if text := s.Degraded(); text != "" {
			degraded++
			if strings.Count(text, "copy ") != 1 || !strings.Contains(text, "cannot be read") {
				t.Errorf("sector at %d: Degraded = %q; want one copy that cannot be read", bad, text)
			}
		}
		do(t, s.Update(func(s *state.State) { s.Put("A", "rootfs", image(8, state.Installed), "") }))
		do(t, s.Heal())
		if s, err = state.Open(area, state.State{}); err != nil || s.Degraded() != "" || s.State().Floor != 9 {
			t.Errorf("sector at %d: after a change Open = %v, %q", bad, err, s.Degraded())
		}
	}
	if degraded < 4 || degraded > 40 {
		t.Errorf("%d sectors are a finding; want those of the two payloads", degraded)
	}
}

// TestUnreadableDocument is one that is not kept; keeping one again rewrites it.
func TestUnreadableDocument(t *testing.T) {
	area := &unreadable{boottest.NewMedium(make([]byte, documentArea)).Areas()[0], -1}
	d := state.OpenDocuments(area, parts)
	do(t, d.Put("B/rootfs", first, []byte("signature")))
	for bad := int64(0); bad < documentArea; bad += 512 {
		area.bad = bad
		if _, _, err := d.Get("B/rootfs"); err == nil {
			continue
		} else if !errors.Is(err, state.ErrNoDocument) || !errors.Is(err, syscall.EIO) {
			t.Fatalf("sector at %d: Get = %v; want ErrNoDocument and EIO", bad, err)
		}
		do(t, d.Put("B/rootfs", second, nil))
		area.bad = -1
		do(t, d.Put("B/rootfs", first, []byte("signature")))
	}
}
