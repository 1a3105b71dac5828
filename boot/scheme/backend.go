package scheme

import (
	"context"
	"fmt"
	"slices"

	"updater/boot"
)

// Store is the storage of one boot loader's table.
type Store interface {
	// Rules returns how the boot loader interprets the table.
	Rules() Rules
	// Load reads the table from the medium. The findings are problems of a table that is usable.
	Load() (Record, []boot.Finding, error)
	// Repair repairs a damaged table. booted is the running slot, "" for none.
	Repair(booted string) error
}

// Settler is a [Store] whose save may leave an older copy. The boot loader uses it if the newer copy becomes unreadable.
type Settler interface {
	// Settle replaces the older copy, or one that is bad, by the one in use. Invalidate calls it, so that no copy allows the slot to boot
	// while it is written. It changes nothing and fails when the copy in use is not the changed one, as changed reports: the newer copy
	// may have become unreadable.
	Settle(changed func(Record) bool) error
}

// Record is a loaded table.
type Record interface {
	Entry(slot string) Entry
	// Save stores the entries of t that differ from the loaded ones, in one atomic change, and reads them back. It may
	// store other priorities, as long as the order is the same.
	Save(t *Table) error
}

// Backend implements [boot.Backend] on a [Store].
type Backend struct {
	store  Store
	slots  []string
	booted string
}

// SettleByRepair implements Settle for a store that writes every copy: a failed save may have left an older copy, which Repair replaces.
func SettleByRepair(s Store, changed func(Record) bool) error {
	rec, _, err := s.Load()
	if err != nil {
		return err
	}
	if !changed(rec) {
		return fmt.Errorf("%w: the copy in use does not hold the change", boot.ErrState)
	}
	return s.Repair("")
}

// New returns a backend on store. booted is the running slot, "" outside every slot.
func New(store Store, slots []string, booted string) (*Backend, error) {
	if len(slots) == 0 || booted != "" && !slices.Contains(slots, booted) {
		return nil, fmt.Errorf("%w: running slot %q is not configured; expected one of %v", boot.ErrState, booted, slots)
	}
	return &Backend{store, slots, booted}, nil
}

var (
	_ boot.Backend  = (*Backend)(nil)
	_ boot.Restorer = (*Backend)(nil)
)

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
	if err := b.disable(slot); err != nil {
		return err
	}
	if s, ok := b.store.(Settler); ok {
		return s.Settle(func(rec Record) bool {
			t := NewTable(b.store.Rules(), b.slots, rec.Entry)
			disabled := t.clone()
			disabled.disable(slot)
			return t.agrees(disabled)
		})
	}
	return nil
}

// MarkBad implements [boot.Backend].
func (b *Backend) MarkBad(_ context.Context, slot string) error { return b.disable(slot) }

// disable makes a slot unbootable. It refuses the last bootable slot. If no slot was bootable before, a recovery has
// nothing to lose and the change is allowed. Where boots of a good slot are counted, the running slot is refilled in the
// same write.
func (b *Backend) disable(slot string) error {
	return b.change(slot, func(t *Table) error {
		before := t.Next()
		t.refill(b.booted)
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
		return fmt.Errorf("%w: %d tries requested; this boot loader counts 1 to %d", boot.ErrRefused, tries, most)
	}
	return b.change(slot, func(t *Table) error {
		t.refill(b.booted)
		t.first(slot, Entry{Tries: tries})
		return nil
	})
}

// RestoreFallback implements [boot.Restorer].
func (b *Backend) RestoreFallback(_ context.Context, slot string) error {
	if err := boot.RefuseRunning(slot, b.booted); err != nil {
		return err
	}
	return b.change(slot, func(t *Table) error {
		if err := boot.RefuseNoFallback(slot, t.Next()); err != nil {
			return err
		}
		t.disable(slot)
		t.good(slot)
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

// change loads the table, edits it and saves it. Then it loads the table again and compares what the boot loader will do.
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
	if err := rec.Save(t); err != nil {
		return err
	}
	_, got, _, err := b.load()
	if err != nil {
		return err
	}
	if !got.agrees(t) {
		return fmt.Errorf("%w: the boot loader will boot slot %q after the change; expected %q", boot.ErrState, got.Next(), t.Next())
	}
	return nil
}

// Place assigns stored priorities of 1 to most in the order of the table. It keeps the old priorities if they are in
// order already.
func Place(t *Table, old func(slot string) int, most int) map[string]int {
	order := t.Order()
	prio := map[string]int{}
	fits := true
	for i, s := range order {
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
