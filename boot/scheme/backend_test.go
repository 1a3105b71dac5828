package scheme_test

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"updater/boot"
	"updater/boot/scheme"
)

// memory is a store of a table in memory.
type memory struct {
	rules   scheme.Rules
	table   map[string]scheme.Entry
	ignores bool // Save has no effect
	fails   error
	sound   int // loads before Load fails
	settled int
	repairs int
}

func (m *memory) Rules() scheme.Rules { return m.rules }

func (m *memory) Load() (scheme.Record, []boot.Finding, error) {
	if m.sound--; m.sound >= 0 {
		return m, nil, nil
	}
	return m, nil, m.fails
}

func (m *memory) Repair(string) error { m.repairs++; return nil }

func (m *memory) Entry(slot string) scheme.Entry { return m.table[slot] }

func (m *memory) Save(t *scheme.Table) error {
	if m.ignores {
		return nil
	}
	for s := range m.table {
		m.table[s] = t.Get(s)
	}
	return nil
}

func (m *memory) Settle(changed func(scheme.Record) bool) error {
	m.settled++
	return scheme.SettleByRepair(m, changed)
}

// TestSettleByRepair: Invalidate repairs the copies, unless the state cannot be read or is not the changed one.
func TestSettleByRepair(t *testing.T) {
	eio := errors.New("EIO")
	for _, sound := range []int{2, 3} { // loads before and after the change, and one to settle
		m := memory{table: map[string]scheme.Entry{"A": {Priority: 2, Tries: 3, Good: true}, "B": {Priority: 1, Tries: 3, Good: true}}, fails: eio, sound: sound}
		m.rules.MaxTries = 3
		if err := open(t, &m).Invalidate(t.Context(), "B"); errors.Is(err, eio) != (sound == 2) || (err == nil) != (m.repairs == 1) || sound == 3 && err != nil {
			t.Errorf("with %d loads Invalidate = %v after %d repairs", sound, err, m.repairs)
		}
	}
	m := memory{table: map[string]scheme.Entry{}}
	if err := scheme.SettleByRepair(&m, func(scheme.Record) bool { return false }); !errors.Is(err, boot.ErrState) || m.repairs > 0 {
		t.Errorf("without the change Settle = %v after %d repairs", err, m.repairs)
	}
}

func open(t *testing.T, m *memory) *scheme.Backend {
	t.Helper()
	b, err := scheme.New(m, slices.Sorted(maps.Keys(m.table)), "A")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestChangeIsLoadedAgain: every change fails if the store ignores it, or cannot be read before or after it.
func TestChangeIsLoadedAgain(t *testing.T) {
	for _, bad := range []memory{{ignores: true}, {fails: errors.New("EIO")}, {fails: errors.New("EIO"), sound: 1}} {
		for name, change := range map[string]func(b *scheme.Backend) error{
			"Invalidate": func(b *scheme.Backend) error { return b.Invalidate(t.Context(), "B") },
			"Activate":   func(b *scheme.Backend) error { return b.Activate(t.Context(), "B", 1) },
			"MarkBad":    func(b *scheme.Backend) error { return b.MarkBad(t.Context(), "B") },
			"MarkGood":   func(b *scheme.Backend) error { return b.MarkGood(t.Context(), "A") },
			"Restore":    func(b *scheme.Backend) error { return b.RestoreFallback(t.Context(), "B") },
		} {
			m := bad
			m.rules = scheme.Rules{MaxTries: 3, GoodTries: 3}
			m.table = map[string]scheme.Entry{"A": {Priority: 3, Good: true}, "B": {Priority: 2, Tries: 2}, "C": {Priority: 1, Good: true}}
			if name == "MarkGood" { // the order stays, and the slot becomes usable
				m.table["A"] = scheme.Entry{Priority: 3}
			}
			before := maps.Clone(m.table)
			if err := change(open(t, &m)); err == nil || bad.sound == 0 && !maps.Equal(m.table, before) || m.settled > 0 {
				t.Errorf("%s with a bad store (%v) = %v, %v", name, bad, err, m.table)
			}
		}
	}
}

// TestRefill: where every boot spends a try, the running slot gets its tries back in the write that changes the other one.
func TestRefill(t *testing.T) {
	for name, change := range map[string]func(b *scheme.Backend) error{
		"Invalidate": func(b *scheme.Backend) error { return b.Invalidate(t.Context(), "B") },
		"Activate":   func(b *scheme.Backend) error { return b.Activate(t.Context(), "B", 1) },
	} {
		for _, counts := range []bool{true, false} {
			m := &memory{rules: scheme.Rules{MaxTries: 3, GoodTries: 3, CountsGood: counts}, table: map[string]scheme.Entry{
				"A": {Priority: 2, Tries: 1}, "B": {Priority: 1, Tries: 1},
			}}
			if err := change(open(t, m)); err != nil {
				t.Fatal(err)
			}
			if got := m.table["A"]; got.Tries != map[bool]int{true: 3, false: 1}[counts] || got.Good != counts {
				t.Errorf("%s, boots counted %v: the running slot is %+v", name, counts, got)
			}
			if (m.settled > 0) != (name == "Invalidate") {
				t.Errorf("%s settled %d times", name, m.settled)
			}
		}
	}
}

// TestNoRefill: a running slot that is marked bad gets no tries, and one that has more than a good slot needs keeps them.
func TestNoRefill(t *testing.T) {
	m := &memory{rules: scheme.Rules{MaxTries: 9, GoodTries: 3, CountsGood: true}, table: map[string]scheme.Entry{"A": {}, "B": {Priority: 1, Tries: 1}}}
	if err := open(t, m).Activate(t.Context(), "B", 2); err != nil || m.table["A"] != (scheme.Entry{}) {
		t.Errorf("Activate = %v, and slot A is %+v", err, m.table["A"])
	}
	m.table["A"] = scheme.Entry{Priority: 1, Tries: 5}
	if err := open(t, m).MarkGood(t.Context(), "A"); err != nil || m.table["A"].Tries != 5 {
		t.Errorf("MarkGood = %v, and slot A is %+v", err, m.table["A"])
	}
	if _, err := scheme.New(m, nil, ""); !errors.Is(err, boot.ErrState) {
		t.Errorf("New without slots = %v; want ErrState", err)
	}
}

// TestThreeSlots: a slot that becomes the first or the last leaves the others in their order, and State numbers that order.
func TestThreeSlots(t *testing.T) {
	for name, c := range map[string]struct {
		change func(b *scheme.Backend) error
		want   string
	}{
		"Activate": {func(b *scheme.Backend) error { return b.Activate(t.Context(), "C", 1) }, "C A B"},
		"MarkBad":  {func(b *scheme.Backend) error { return b.MarkBad(t.Context(), "B") }, "A C"},
		"Restore":  {func(b *scheme.Backend) error { return b.RestoreFallback(t.Context(), "B") }, "A C B"},
		"MarkGood": {func(b *scheme.Backend) error {
			return cmp.Or(b.MarkBad(t.Context(), "A"), b.MarkGood(t.Context(), "A"))
		}, "B C A"},
	} {
		m := &memory{rules: scheme.Rules{MaxTries: 3}, table: map[string]scheme.Entry{
			"A": {Priority: 9, Good: true}, "B": {Priority: 5, Good: true}, "C": {Priority: 2, Good: true},
		}}
		b := open(t, m)
		if err := c.change(b); err != nil {
			t.Fatal(err)
		}
		st, err := b.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(st.Slots, func(x, y boot.SlotState) int { return cmp.Compare(y.Priority, x.Priority) })
		var order []string
		for i, s := range st.Slots {
			if s.Priority == 0 {
				continue
			}
			if order = append(order, s.Name); s.Priority != strings.Count(c.want, " ")+1-i {
				t.Errorf("%s: slot %s has priority %d in %q", name, s.Name, s.Priority, c.want)
			}
		}
		if got := strings.Join(order, " "); got != c.want || st.Next != c.want[:1] {
			t.Errorf("%s: the order is %q and %s boots next; want %q", name, got, st.Next, c.want)
		}
	}
}

// TestPlace: priorities that are in the order of the table already stay as they are; others are counted down from the most.
func TestPlace(t *testing.T) {
	table := scheme.NewTable(scheme.Rules{}, []string{"A", "B", "C", "D"}, func(slot string) scheme.Entry {
		return scheme.Entry{Priority: strings.Index("DCBA", slot)}
	})
	for _, c := range []struct {
		old, want [3]int
		most      int
	}{
		{[3]int{15, 5, 1}, [3]int{15, 5, 1}, 15}, {[3]int{16, 5, 1}, [3]int{15, 14, 13}, 15}, {[3]int{9, 9, 1}, [3]int{15, 14, 13}, 15},
		{[3]int{9, 5, 0}, [3]int{15, 14, 13}, 15}, {[3]int{1, 2, 3}, [3]int{2, 1, 1}, 2},
	} {
		got := scheme.Place(table, func(s string) int { return c.old[strings.Index("ABC", s)] }, c.most)
		if want := map[string]int{"A": c.want[0], "B": c.want[1], "C": c.want[2]}; !maps.Equal(got, want) {
			t.Errorf("Place of %v up to %d = %v; want %v", c.old, c.most, got, want)
		}
	}
}

// TestState: a slot outside the boot order is not good, and tries that the boot loader gives back are forecast.
func TestState(t *testing.T) {
	for _, c := range []struct {
		refill int
		boots  []string
	}{{0, []string{"", "", ""}}, {1, []string{"", "B", ""}}, {2, []string{"", "B", "B"}}} {
		m := &memory{rules: scheme.Rules{MaxTries: 3, Refill: c.refill}, table: map[string]scheme.Entry{"A": {Good: true}, "B": {Priority: 1}}}
		st, err := open(t, m).State(t.Context())
		if err != nil || st.Slots[0] != (boot.SlotState{Name: "A"}) || !slices.Equal(st.Boots, c.boots) {
			t.Errorf("%d tries given back: State = %+v, %v; want boots %q", c.refill, st, err, c.boots)
		}
	}
}

// TestTriesOfGood: a good slot has tries only where its boots are counted.
func TestTriesOfGood(t *testing.T) {
	for counts, tries := range map[bool]int{true: 2, false: -1} {
		m := &memory{rules: scheme.Rules{MaxTries: 3, CountsGood: counts}, table: map[string]scheme.Entry{"A": {Priority: 5, Tries: 2, Good: true}}}
		want := boot.SlotState{Name: "A", Priority: 1, Good: true, Bootable: true, TriesLeft: tries}
		if st, err := open(t, m).State(t.Context()); err != nil || st.Slots[0] != want {
			t.Errorf("boots counted %v: State = %+v, %v; want %+v", counts, st.Slots[0], err, want)
		}
	}
}
