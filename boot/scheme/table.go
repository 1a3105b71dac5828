// Package scheme implements [boot.Backend] for boot loaders that keep a table with a priority, a number of tries and a
// good mark for each slot, and boot the usable slot with the highest priority. A [Store] reads and writes the table in the
// format of one boot loader.
//
// Every mutation is one atomic Save of the store. Between Invalidate and Activate the target cannot boot; the running slot
// gets its tries back in the same write that makes it the fallback; the last bootable slot is never disabled.
package scheme

import (
	"cmp"
	"slices"

	"updater/boot"
)

// Entry is the entry of one slot in a boot loader's table.
type Entry struct {
	Priority int  // the highest is chosen first; 0 is never chosen
	Tries    int  // boots left
	Good     bool // marked good
}

// Rules describe how a boot loader interprets its table.
type Rules struct {
	MaxTries     int  // the most tries that the format holds
	GoodTries    int  // tries of a slot that is marked good
	CountsGood   bool // every boot spends a try, so only a slot with tries is usable
	Refill       int  // tries that every slot with a priority gets when no slot is usable; 0 for no refill
	SwitchAtomic bool // see [boot.Caps]
}

func (r Rules) usable(e Entry) bool {
	return e.Priority > 0 && (e.Tries > 0 || e.Good && !r.CountsGood)
}

// Table is the table of all slots, in memory.
type Table struct {
	rules   Rules
	slots   []string
	entries map[string]Entry
}

// NewTable returns a table with the entry of each slot.
func NewTable(rules Rules, slots []string, entry func(slot string) Entry) *Table {
	t := &Table{rules, slots, map[string]Entry{}}
	for _, s := range slots {
		t.entries[s] = entry(s)
	}
	return t
}

// Get returns the entry of a slot.
func (t *Table) Get(slot string) Entry { return t.entries[slot] }

// Order lists the slots with a priority, the highest first. Equal priorities are in the order of the configuration.
func (t *Table) Order() []string {
	order := slices.DeleteFunc(slices.Clone(t.slots), func(s string) bool { return t.entries[s].Priority <= 0 })
	slices.SortStableFunc(order, func(a, b string) int { return cmp.Compare(t.entries[b].Priority, t.entries[a].Priority) })
	return order
}

// Next returns the slot that boots next, "" for none.
func (t *Table) Next() string {
	for _, s := range t.Order() {
		if t.rules.usable(t.entries[s]) {
			return s
		}
	}
	return ""
}

// boots simulates the next n boots if no slot is marked in between.
func (t *Table) boots(n int) []string {
	t = t.clone()
	var list []string
	for range n {
		slot := t.Next()
		list = append(list, slot)
		t.spend(slot)
		for _, s := range t.slots {
			if e := t.entries[s]; slot == "" {
				e.Tries = t.rules.Refill
				t.entries[s] = e
			}
		}
	}
	return list
}

// spend spends the try of one boot.
func (t *Table) spend(slot string) {
	if e := t.entries[slot]; t.rules.CountsGood || !e.Good {
		e.Tries--
		t.entries[slot] = e
	}
}

// agrees reports whether both tables have the same order, and the same slots are usable.
func (t *Table) agrees(o *Table) bool {
	for _, s := range t.slots {
		if t.rules.usable(t.entries[s]) != o.rules.usable(o.entries[s]) {
			return false
		}
	}
	return slices.Equal(t.Order(), o.Order())
}

func (t *Table) clone() *Table {
	return NewTable(t.rules, t.slots, t.Get)
}

// disable makes a slot unbootable.
func (t *Table) disable(slot string) { t.entries[slot] = Entry{} }

// first puts a slot before all others, whose order stays.
func (t *Table) first(slot string, e Entry) {
	rest := slices.DeleteFunc(t.Order(), func(s string) bool { return s == slot })
	for i, s := range rest {
		other := t.entries[s]
		other.Priority = len(rest) - i
		t.entries[s] = other
	}
	e.Priority = len(rest) + 1
	t.entries[slot] = e
}

// good marks a slot good. A slot outside the boot order becomes its last.
func (t *Table) good(slot string) {
	e := t.entries[slot]
	if e.Priority <= 0 {
		for i, s := range t.Order() {
			other := t.entries[s]
			other.Priority = len(t.Order()) + 1 - i
			t.entries[s] = other
		}
		e.Priority = 1
	}
	e.Good, e.Tries = true, max(e.Tries, t.rules.GoodTries)
	if !t.rules.CountsGood {
		e.Tries = t.rules.GoodTries
	}
	t.entries[slot] = e
}

// refill gives the running slot its tries back before another slot changes, since it is the fallback. It only applies where
// boots of a good slot are counted.
func (t *Table) refill(booted string) {
	if t.rules.CountsGood && t.entries[booted].Priority > 0 {
		t.good(booted)
	}
}

// state returns the table as a boot state.
func (t *Table) state(booted string) boot.State {
	st := boot.State{Booted: booted, Next: t.Next(), Boots: t.boots(3)}
	order := t.Order()
	for _, s := range t.slots {
		e := t.entries[s]
		state := boot.SlotState{Name: s, Bootable: t.rules.usable(e), Good: e.Good && e.Priority > 0, TriesLeft: e.Tries}
		if i := slices.Index(order, s); i >= 0 {
			state.Priority = len(order) - i
		}
		if e.Good && e.Priority > 0 && !t.rules.CountsGood {
			state.TriesLeft = -1
		}
		st.Slots = append(st.Slots, state)
	}
	return st
}
