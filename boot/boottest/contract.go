package boottest

import (
	"errors"
	"slices"
	"testing"

	"updater/boot"
)

// Rig is what the suite needs to know of a backend. Its slots are A and B.
type Rig struct {
	// Fresh returns areas in which both slots are good and A is chosen.
	Fresh func(t *testing.T) [][]byte
	// Open returns the backend with the running slot.
	Open func(areas []boot.Area, booted string) (boot.Backend, error)
	// Boot is the boot loader: it chooses a slot, spends its try in place, and returns its name, "" for none. It
	// is written from the loader's script, apart from the backend.
	Boot func(areas [][]byte) string
}

// Contract runs the suite that every backend passes.
func Contract(t *testing.T, r Rig) {
	t.Run("Life", r.life)
	t.Run("Refusals", r.refusals)
	t.Run("NoNeedlessWrite", r.noNeedlessWrite)
	t.Run("NothingBootable", r.nothingBootable)
	t.Run("PowerCuts", r.powerCuts)
	t.Run("Failures", r.failures)
	t.Run("Lies", r.lies)
}

func (r Rig) open(t *testing.T, m *Medium, booted string) boot.Backend {
	t.Helper()
	b, err := r.Open(m.Areas(), booted)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (r Rig) next(t *testing.T, m *Medium) string {
	t.Helper()
	return r.Boot(m.Snapshot())
}

// boots lists what the loader chooses when nobody ever marks anything good, up to n times.
func (r Rig) boots(areas [][]byte, n int) []string {
	var list []string
	for range n {
		list = append(list, r.Boot(areas))
	}
	return list
}

// life is an update from A to B that works, and the next one from B to A that does not.
func (r Rig) life(t *testing.T) {
	m := NewMedium(r.Fresh(t)...)
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	state := func(b boot.Backend) map[string]boot.SlotState {
		t.Helper()
		st, err := b.State(t.Context())
		do(err)
		if st.Next != r.next(t, m) {
			t.Errorf("State says that %q boots next; the boot loader chooses %q", st.Next, r.next(t, m))
		}
		slots := map[string]boot.SlotState{}
		for _, s := range st.Slots {
			slots[s.Name] = s
		}
		return slots
	}
	boot := func(want string) boot.Backend {
		t.Helper()
		if got := r.Boot(m.areas); got != want {
			t.Fatalf("the boot loader chose %q; want %s", got, want)
		}
		return r.open(t, m, want)
	}
	b := boot("A")
	do(b.MarkGood(t.Context(), "A"))
	do(b.Invalidate(t.Context(), "B"))
	if s := state(b)["B"]; s.Bootable || s.Good {
		t.Errorf("an invalidated slot is %+v", s)
	}
	tries := b.Caps().MaxTries
	do(b.Activate(t.Context(), "B", tries))
	if s := state(b)["B"]; !s.Bootable || s.TriesLeft != tries {
		t.Errorf("an activated slot is %+v; want %d tries", s, tries)
	}
	b = boot("B")
	do(b.MarkGood(t.Context(), "B"))
	if s := state(b)["B"]; !s.Good {
		t.Errorf("a slot marked good is %+v", s)
	}
	do(b.Invalidate(t.Context(), "A"))
	do(b.Activate(t.Context(), "A", 1))
	boot("A") // hangs
	b = boot("B")
	do(b.MarkGood(t.Context(), "B"))
	do(b.Repair(t.Context()))
	if got := r.next(t, m); got != "B" && got != "A" {
		t.Errorf("the boot loader chooses %q", got)
	}
	do(b.MarkBad(t.Context(), "A"))
	if got := r.next(t, m); got != "B" {
		t.Errorf("after mark bad of A the boot loader chooses %q", got)
	}
}

func (r Rig) refusals(t *testing.T) {
	for _, c := range []struct {
		name   string
		booted string
		do     func(b boot.Backend) error
	}{
		{"invalidate the running slot", "A", func(b boot.Backend) error { return b.Invalidate(t.Context(), "A") }},
		{"mark another slot good", "A", func(b boot.Backend) error { return b.MarkGood(t.Context(), "B") }},
		{"mark good outside every slot", "", func(b boot.Backend) error { return b.MarkGood(t.Context(), "A") }},
		{"no tries", "A", func(b boot.Backend) error { return b.Activate(t.Context(), "B", 0) }},
		{"too many tries", "A", func(b boot.Backend) error { return b.Activate(t.Context(), "B", b.Caps().MaxTries+1) }},
		{"unknown slot", "A", func(b boot.Backend) error { return b.Activate(t.Context(), "C", 1) }},
		{"the last bootable slot", "", func(b boot.Backend) error {
			if err := b.Invalidate(t.Context(), "B"); err != nil {
				t.Fatal(err)
			}
			return b.Invalidate(t.Context(), "A")
		}},
	} {
		m := NewMedium(r.Fresh(t)...)
		if err := c.do(r.open(t, m, c.booted)); !errors.Is(err, boot.ErrRefused) {
			t.Errorf("%s = %v; want ErrRefused", c.name, err)
		}
		if got := r.next(t, m); got != "A" {
			t.Errorf("%s: the boot loader chooses %q", c.name, got)
		}
	}
}

func (r Rig) noNeedlessWrite(t *testing.T) {
	m := NewMedium(r.Fresh(t)...)
	if err := r.open(t, m, "A").MarkGood(t.Context(), "A"); err != nil || m.Writes() > 0 {
		t.Errorf("mark good of a good slot = %v and wrote %d sectors", err, m.Writes())
	}
}

// nothingBootable: when no slot boots any more, a recovery can still install into one.
func (r Rig) nothingBootable(t *testing.T) {
	m := NewMedium(r.Fresh(t)...)
	b := r.open(t, m, "B")
	for _, err := range []error{b.Invalidate(t.Context(), "A"), b.Activate(t.Context(), "B", 1)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := r.Boot(m.areas); got != "B" {
		t.Fatalf("the boot loader chose %q; want B", got)
	}
	b = r.open(t, m, "") // the recovery, after B did not come up
	if st, err := b.State(t.Context()); err != nil || st.Next != "" {
		t.Fatalf("State = %+v, %v; want no slot", st, err)
	}
	if err := b.Invalidate(t.Context(), "A"); err != nil {
		t.Fatalf("Invalidate with nothing to lose = %v", err)
	}
	if err := b.Activate(t.Context(), "A", 1); err != nil || r.next(t, m) != "A" {
		t.Fatalf("Activate = %v; the boot loader chooses %q", err, r.next(t, m))
	}
}

// step is one mutation, and what may be chosen while it is under way.
type step struct {
	name   string
	booted string
	before func(areas [][]byte) // what happened first, such as a boot
	do     func(t *testing.T, b boot.Backend) error
	may    []string
}

// steps are the mutations of an update from A to B, each from the state that the ones before left.
func (r Rig) steps() []step {
	return []step{
		{"mark good A", "A", func(a [][]byte) { r.Boot(a) }, func(t *testing.T, b boot.Backend) error { return b.MarkGood(t.Context(), "A") }, []string{"A", "B"}},
		{"invalidate B", "A", nil, func(t *testing.T, b boot.Backend) error { return b.Invalidate(t.Context(), "B") }, []string{"A"}},
		{"activate B", "A", nil, func(t *testing.T, b boot.Backend) error { return b.Activate(t.Context(), "B", 1) }, []string{"A", "B"}},
		{"mark good B", "B", func(a [][]byte) { r.Boot(a) }, func(t *testing.T, b boot.Backend) error { return b.MarkGood(t.Context(), "B") }, []string{"A", "B"}},
		{"activate A", "B", nil, func(t *testing.T, b boot.Backend) error { return b.Activate(t.Context(), "A", 1) }, []string{"A", "B"}},
		{"mark bad A", "B", nil, func(t *testing.T, b boot.Backend) error { return b.MarkBad(t.Context(), "A") }, []string{"A", "B"}},
	}
}

// powerCuts: in every state that a cut leaves there is a slot to boot, and one that may be.
func (r Rig) powerCuts(t *testing.T) {
	areas, states := r.Fresh(t), 0
	for _, s := range r.steps() {
		if s.before != nil {
			s.before(areas)
		}
		m := NewMedium(areas...)
		if err := s.do(t, r.open(t, m, s.booted)); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		old, done := r.Boot(NewMedium(areas...).areas), r.Boot(m.Snapshot())
		m.Crashes(func(cut [][]byte) {
			states++
			got := r.Boot(NewMedium(cut...).areas)
			if !slices.Contains(s.may, got) || got != old && got != done {
				t.Fatalf("%s: after a power cut the boot loader chooses %q; want %q or %q of %v", s.name, got, old, done, s.may)
			}
			if list := r.boots(NewMedium(cut...).areas, 12); s.name == "activate B" && !slices.Contains(list, "A") {
				t.Fatalf("%s: slot A is not behind slot B when B never comes up: %q", s.name, list)
			}
		})
		areas = m.Snapshot()
	}
	t.Logf("%d states after power cuts", states)
}

// failures: an operation that fails is an error, and leaves the old choice or the new one.
func (r Rig) failures(t *testing.T) {
	areas := r.Fresh(t)
	for _, s := range r.steps() {
		if s.before != nil {
			s.before(areas)
		}
		for n := 1; ; n++ {
			m := NewMedium(areas...)
			m.FailAt = n
			err := s.do(t, r.open(t, m, s.booted))
			if m.Operations() < n {
				if err != nil {
					t.Fatalf("%s: %v", s.name, err)
				}
				areas = m.Snapshot()
				break
			}
			m.Crashes(func(cut [][]byte) {
				if got := r.Boot(cut); !slices.Contains(s.may, got) {
					t.Fatalf("%s: operation %d failed and the boot loader chooses %q; want one of %v", s.name, n, got, s.may)
				}
			})
			if err == nil {
				t.Fatalf("%s: operation %d failed without an error", s.name, n)
			}
		}
	}
}

// lies: a medium that confirms a write that it does not hold is found out by the read-back.
func (r Rig) lies(t *testing.T) {
	m := NewMedium(r.Fresh(t)...)
	m.Lie = true
	if err := r.open(t, m, "A").Activate(t.Context(), "B", 1); !errors.Is(err, boot.ErrState) {
		t.Errorf("Activate on a medium that holds nothing = %v; want ErrState", err)
	}
}
