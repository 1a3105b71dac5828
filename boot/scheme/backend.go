package scheme

import (
	"context"
	"fmt"
	"slices"

	"updater/boot"
)

// Store is where one boot loader keeps its table.
type Store interface {
	// Rules are how the loader reads it.
	Rules() Rules
	// Load reads the table from the medium. The findings are what is wrong with it though it can be used.
	Load() (Record, []boot.Finding, error)
	// Repair restores what is damaged. booted is the running slot, "" for none.
	Repair(booted string) error
}

// Record is a loaded table.
type Record interface {
	Entry(slot string) Entry
	// Save writes the entries that differ from what was loaded, given all of them, as one old-or-new change
	// that was read back. It may keep a priority that it cannot say, as long as the order is the same.
	Save(t *Table) error
}

// Backend implements [boot.Backend] on a store.
type Backend struct {
	store  Store
	slots  []string
	booted string
}

// New returns the backend. booted is the running slot, "" outside every slot.
func New(store Store, slots []string, booted string) (*Backend, error) {
	if len(slots) == 0 || booted != "" && !slices.Contains(slots, booted) {
		return nil, fmt.Errorf("%w: running slot %q is not among the slots %v", boot.ErrState, booted, slots)
	}
	return &Backend{store, slots, booted}, nil
}

var _ boot.Backend = (*Backend)(nil)

// Caps implements [boot.Backend].
func (b *Backend) Caps() boot.Caps {
	r := b.store.Rules()
	return boot.Caps{MaxTries: r.MaxTries, MarkGoodEveryBoot: r.CountsGood, SwitchAtomic: r.SwitchAtomic}
}

// Booted implements [boot.Backend].
func (b *Backend) Booted(context.Context) (string, error) { return b.booted, nil }

// State implements [boot.Backend].
func (b *Backend) State(context.Context) (boot.State, error) {
	_, t, findings, err := b.load()
	if err != nil {
		return boot.State{}, err
	}
	st := t.state(b.booted)
	st.Findings = append(findings, boot.Disagreements(st)...)
	return st, nil
}

func (b *Backend) load() (Record, *Table, []boot.Finding, error) {
	rec, findings, err := b.store.Load()
	if err != nil {
		return nil, nil, nil, err
	}
	return rec, NewTable(b.store.Rules(), b.slots, rec.Entry), findings, nil
}

// Invalidate implements [boot.Backend].
func (b *Backend) Invalidate(_ context.Context, slot string) error {
	if err := boot.RefuseRunning(slot, b.booted); err != nil {
		return err
	}
	return b.disable(slot)
}

// MarkBad implements [boot.Backend].
func (b *Backend) MarkBad(_ context.Context, slot string) error { return b.disable(slot) }

// disable takes a slot out of the choice, as long as another one stays in it, or none was in it before: then
// a recovery has nothing to lose. Where boots of a good slot are counted, the booted one is refilled in the
// same write.
func (b *Backend) disable(slot string) error {
	return b.change(slot, func(t *Table) error {
		before := t.Next()
		t.refill(b.booted, slot)
		t.disable(slot)
		if before != "" && t.Next() == "" {
			return boot.RefuseLast(slot)
		}
		return nil
	})
}

// Activate implements [boot.Backend].
func (b *Backend) Activate(_ context.Context, slot string, tries int) error {
	if most := b.store.Rules().MaxTries; tries < 1 || tries > most {
		return fmt.Errorf("%w: %d tries asked for, this boot loader's scheme counts 1 to %d", boot.ErrRefused, tries, most)
	}
	return b.change(slot, func(t *Table) error {
		t.refill(b.booted, slot)
		t.first(slot, Entry{Tries: tries})
		return nil
	})
}

// MarkGood implements [boot.Backend].
func (b *Backend) MarkGood(_ context.Context, slot string) error {
	if err := boot.RefuseOthers(slot, b.booted); err != nil {
		return err
	}
	return b.change(slot, func(t *Table) error {
		t.good(slot)
		return nil
	})
}

// Repair implements [boot.Backend].
func (b *Backend) Repair(context.Context) error { return b.store.Repair(b.booted) }

// change edits the table and saves it.
func (b *Backend) change(slot string, edit func(*Table) error) error {
	if err := boot.RefuseUnknown(slot, b.slots); err != nil {
		return err
	}
	rec, t, _, err := b.load()
	if err != nil {
		return err
	}
	if err := edit(t); err != nil {
		return err
	}
	return rec.Save(t)
}

// Place gives slot priorities that fit most, in the table's order: what changes as little as it can, for
// formats that store a number. old are the stored priorities.
func Place(t *Table, old func(slot string) int, most int) map[string]int {
	order := t.Order()
	prio := map[string]int{}
	fits := true
	for i, s := range order { // keep what is in order already
		prio[s] = old(s)
		if prio[s] < 1 || prio[s] > most || i > 0 && prio[s] >= prio[order[i-1]] {
			fits = false
		}
	}
	if fits {
		return prio
	}
	for i, s := range order {
		prio[s] = max(most-i, 1)
	}
	return prio
}
