package state_test

import (
	"errors"
	"io"
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
// and the next changes rewrite it. A sector after a payload harms nothing.
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

// TestUnreadableCopies: without a copy that can be read the store is refused, for either may hold a higher floor; a blank copy beside an
// unreadable one is no new store, and a change repairs both.
func TestUnreadableCopies(t *testing.T) {
	medium := boottest.NewMedium(make([]byte, areaSize)).Areas()[0]
	if s, err := state.Open(&unreadable{&unreadable{medium, 0}, areaSize / 2}, state.State{}); !errors.Is(err, syscall.EIO) {
		t.Errorf("Open = %v, %v", s, err)
	} else if _, ok := errors.AsType[*state.Error](err); !ok {
		t.Errorf("Open = %T", err)
	}
	for bad := int64(0); bad < areaSize; bad += areaSize / 2 {
		area := &unreadable{boottest.NewMedium(make([]byte, areaSize)).Areas()[0], bad}
		s, err := state.Open(area, state.State{Floor: 3})
		do(t, err)
		if s.New() || !strings.HasPrefix(s.Lost(), "both copies are lost: copy 1 ") || !strings.Contains(s.Lost(), "cannot be read") || s.State().Floor != 3 {
			t.Errorf("sector at %d: new %v, lost %q, floor %d", bad, s.New(), s.Lost(), s.State().Floor)
		}
		do(t, s.Update(func(s *state.State) { s.Time = day1 }))
		if s, err = state.Open(area, state.State{}); err != nil || s.Lost() != "" || s.Degraded() != "" || s.State().Floor != 3 {
			t.Errorf("sector at %d: after a change Open = %v, lost %q, degraded %q", bad, err, s.Lost(), s.Degraded())
		}
	}
}

// lossy is an area that loses the bytes written to one sector.
type lossy struct {
	boot.Area
	sector int64
}

func (l *lossy) WriteAt(p []byte, off int64) (int, error) {
	for at := 0; at < len(p); at += 512 {
		if off+int64(at) == l.sector {
			continue
		}
		if _, err := l.Area.WriteAt(p[at:min(at+512, len(p))], off+int64(at)); err != nil {
			return at, err
		}
	}
	return len(p), nil
}

// TestLostSectors: a change or a document is not stored if the medium lost any sector of it.
func TestLostSectors(t *testing.T) {
	m := boottest.NewMedium(make([]byte, documentArea))
	s := open(t, m)
	for _, step := range life() {
		do(t, s.Update(step.change))
	}
	do(t, s.Update(func(s *state.State) { s.Floor = 9 }))
	content := m.Snapshot()[0]
	for n := range int64(2) { // of the first copy, which is the older one
		area := &lossy{boottest.NewMedium(content).Areas()[0], 512 * n}
		s, err := state.Open(area, state.State{})
		do(t, err)
		if err := s.Update(func(s *state.State) { s.Put("C", "rootfs", image(1, state.Failed), strings.Repeat("lost", 50)) }); err == nil ||
			!strings.Contains(err.Error(), "does not hold what was written") {
			t.Errorf("sector %d: Update = %v", n, err)
		}
	}
	for at := int64(32 << 10); at < 32<<10+24+8+int64(len(first)); at += 512 {
		area := &lossy{boottest.NewMedium(content).Areas()[0], at}
		if err := state.OpenDocuments(area, parts).Put("A/rootfs", first, nil); err == nil || !strings.Contains(err.Error(), "does not hold what was written") {
			t.Errorf("sector at %d: Put = %v", at, err)
		}
	}
}

// eager is an area that reports its end with the last bytes, as an [io.ReaderAt] may, or gives less without an error.
type eager struct {
	boot.Area
	less int
}

func (e *eager) ReadBackAt(p []byte, off int64) (int, error) {
	n, err := e.Area.ReadBackAt(p[:max(len(p)-e.less, 0)], off)
	if err == nil && e.less == 0 {
		err = io.EOF
	}
	return n, err
}

func TestEndOfArea(t *testing.T) {
	m := boottest.NewMedium(make([]byte, areaSize))
	do(t, open(t, m).Update(func(s *state.State) { s.Floor = 4 }))
	if s, err := state.Open(&eager{m.Areas()[0], 0}, state.State{}); err != nil || s.State().Floor != 4 || s.Degraded() != "" {
		t.Errorf("Open of an area that ends = %v", err)
	}
	if _, err := state.Open(&eager{m.Areas()[0], 1}, state.State{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Open of an area that ends too early = %v", err)
	}
}

// TestUnreadableDocument: an unreadable document counts as missing; keeping one again rewrites it.
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
