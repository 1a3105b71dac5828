package scheme_test

import (
	"errors"
	"maps"
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
	settled int
}

func (m *memory) Rules() scheme.Rules { return m.rules }

func (m *memory) Load() (scheme.Record, []boot.Finding, error) { return m, nil, m.fails }

func (m *memory) Repair(string) error { return nil }

func (m *memory) Entry(slot string) scheme.Entry { return m.table[slot] }

func (m *memory) Save(t *scheme.Table) error {
	if m.ignores {
		return nil
	}
	m.table = map[string]scheme.Entry{"A": t.Get("A"), "B": t.Get("B")}
	return nil
}

func (m *memory) Settle(changed func(scheme.Record) bool) error {
	m.settled++
	if !changed(m) {
		return errors.New("it is not changed")
	}
	return nil
}

func open(t *testing.T, m *memory) *scheme.Backend {
	t.Helper()
	b, err := scheme.New(m, []string{"A", "B"}, "A")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestChangeIsLoadedAgain: a store whose changes have no effect, or that cannot be read, is an error of every change.
func TestChangeIsLoadedAgain(t *testing.T) {
	for _, bad := range []memory{{ignores: true}, {fails: errors.New("EIO")}} {
		for name, change := range map[string]func(b *scheme.Backend) error{
			"Invalidate": func(b *scheme.Backend) error { return b.Invalidate(t.Context(), "B") },
			"Activate":   func(b *scheme.Backend) error { return b.Activate(t.Context(), "B", 1) },
			"MarkBad":    func(b *scheme.Backend) error { return b.MarkBad(t.Context(), "B") },
			"MarkGood":   func(b *scheme.Backend) error { return b.MarkGood(t.Context(), "A") },
		} {
			m := bad
			m.rules = scheme.Rules{MaxTries: 3, GoodTries: 3}
			m.table = map[string]scheme.Entry{"A": {Priority: 0}, "B": {Priority: 1, Tries: 2}}
			if name != "MarkGood" {
				m.table["A"] = scheme.Entry{Priority: 2, Good: true}
			}
			before := maps.Clone(m.table)
			if err := change(open(t, &m)); err == nil || !maps.Equal(m.table, before) || m.settled > 0 {
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
