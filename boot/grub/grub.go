// Package grub keeps the slot choice in a GRUB environment block, with the variables of RAUC's grub
// integration (RAUC manual, "GRUB"): ORDER lists the slots, the first with x_OK=1 and x_TRY=0 boots, and the
// script sets x_TRY=1 before it does. So every boot spends the one try, and mark-good must run on each.
//
// The block has a fixed size and no checksum. It is changed in place, never truncated: GRUB writes through
// the file's block list and does not replay a journal (grub-core/commands/loadenv.c), so a new file would
// not be seen. Only the 512-byte sectors that change are written, and the variables are kept in the first
// one where there is room: such a change is old-or-new whatever the power does. Where other variables fill
// more than a sector that promise is weaker, and State says so. Invalidate, Activate and mark-good are each
// one write.
package grub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"updater/boot"
)

const sector = 512

// Backend implements [boot.Backend].
type Backend struct {
	area   boot.Area
	slots  []string
	booted string
}

// New returns the backend on the block in area. booted is the running slot, "" outside every slot.
func New(area boot.Area, slots []string, booted string) (*Backend, error) {
	if len(slots) == 0 || booted != "" && !slices.Contains(slots, booted) {
		return nil, fmt.Errorf("%w: running slot %q is not among the slots %v", boot.ErrState, booted, slots)
	}
	return &Backend{area: area, slots: slots, booted: booted}, nil
}

var _ boot.Backend = (*Backend)(nil)

// Caps implements [boot.Backend]: the scheme counts one try.
func (b *Backend) Caps() boot.Caps {
	return boot.Caps{MaxTries: 1, MarkGoodEveryBoot: true, SwitchAtomic: true}
}

// Booted implements [boot.Backend].
func (b *Backend) Booted(context.Context) (string, error) { return b.booted, nil }

// State implements [boot.Backend].
func (b *Backend) State(context.Context) (boot.State, error) {
	_, env, err := b.load()
	if err != nil {
		return boot.State{}, err
	}
	st := boot.State{Booted: b.booted, Next: b.next(env)}
	if used := env.used(); used > sector {
		st.Degraded = append(st.Degraded, fmt.Sprintf("%s holds %d bytes of variables, more than one sector of %d: a power cut can tear a change; remove variables that are not needed", b.area, used, sector))
	}
	order := b.order(env)
	for _, s := range b.slots {
		ok, try := env.get(s+"_OK") == "1", env.get(s+"_TRY")
		left := 0
		if ok && try == "0" {
			left = 1
		}
		at := slices.Index(order, s)
		state := boot.SlotState{Name: s, Bootable: at >= 0 && left > 0, TriesLeft: left}
		if at >= 0 {
			state.Priority = len(order) - at
		}
		// The running slot has spent its try until it is marked good; others keep what they were.
		state.Good = state.Bootable
		if !ok && at >= 0 || ok && at < 0 {
			st.Degraded = append(st.Degraded, fmt.Sprintf("slot %s has %s_OK=%s and is %s ORDER", s, s, env.get(s+"_OK"), map[bool]string{true: "in", false: "not in"}[at >= 0]))
		}
		st.Slots = append(st.Slots, state)
	}
	return st, nil
}

// next is the choice of RAUC's script. It finds none when every try is spent; the usual script then starts a
// rescue entry or clears the tries.
func (b *Backend) next(env *block) string {
	for _, s := range b.order(env) {
		if env.get(s+"_OK") == "1" && env.get(s+"_TRY") == "0" {
			return s
		}
	}
	return ""
}

// order is ORDER, without names that are not configured.
func (b *Backend) order(env *block) []string {
	return slices.DeleteFunc(strings.Fields(env.get("ORDER")), func(s string) bool { return !slices.Contains(b.slots, s) })
}

// Invalidate implements [boot.Backend].
func (b *Backend) Invalidate(_ context.Context, slot string) error {
	if slot == b.booted {
		return fmt.Errorf("%w: slot %s is running", boot.ErrRefused, slot)
	}
	return b.disable(slot)
}

// MarkBad implements [boot.Backend].
func (b *Backend) MarkBad(_ context.Context, slot string) error { return b.disable(slot) }

// disable takes a slot out of the choice, as long as another one stays in it, or none was in it before: then
// a recovery has nothing to lose. The running slot, whose try
// is spent, counts as one that boots again once it is marked good, so its tries are refilled in the same write.
func (b *Backend) disable(slot string) error {
	return b.change(slot, func(env *block) error {
		before := b.next(env)
		left := slices.DeleteFunc(b.order(env), func(s string) bool { return s == slot })
		if b.booted != "" && b.booted != slot && env.get(b.booted+"_OK") == "1" {
			env.set(b.booted+"_TRY", "0")
		}
		env.set("ORDER", strings.Join(left, " "))
		env.set(slot+"_OK", "0")
		env.set(slot+"_TRY", "0")
		if before != "" && b.next(env) == "" {
			return fmt.Errorf("%w: without slot %s no slot would be bootable", boot.ErrRefused, slot)
		}
		return nil
	})
}

// Activate implements [boot.Backend].
func (b *Backend) Activate(_ context.Context, slot string, tries int) error {
	if tries < 1 || tries > b.Caps().MaxTries {
		return fmt.Errorf("%w: %d tries asked for, this boot loader's scheme counts 1", boot.ErrRefused, tries)
	}
	return b.change(slot, func(env *block) error {
		order := []string{slot}
		for _, s := range b.order(env) {
			if s != slot && !slices.Contains(order, s) {
				order = append(order, s)
			}
		}
		if b.booted != "" && b.booted != slot && env.get(b.booted+"_OK") == "1" {
			env.set(b.booted+"_TRY", "0")
		}
		env.set("ORDER", strings.Join(order, " "))
		env.set(slot+"_OK", "1")
		env.set(slot+"_TRY", "0")
		return nil
	})
}

// MarkGood implements [boot.Backend].
func (b *Backend) MarkGood(_ context.Context, slot string) error {
	if slot != b.booted {
		return fmt.Errorf("%w: slot %s is not the one that is running, which alone can be known to work", boot.ErrRefused, slot)
	}
	return b.change(slot, func(env *block) error {
		if order := b.order(env); !slices.Contains(order, slot) {
			env.set("ORDER", strings.Join(append(order, slot), " "))
		}
		env.set(slot+"_OK", "1")
		env.set(slot+"_TRY", "0")
		return nil
	})
}

// Repair implements [boot.Backend]: a block has no second copy, so a damaged one is not invented here.
func (b *Backend) Repair(context.Context) error {
	_, _, err := b.load()
	return err
}

// load reads the block from the medium, so that no stale page decides.
func (b *Backend) load() ([]byte, *block, error) {
	if b.area.Size() > maxBlock {
		return nil, nil, fmt.Errorf("%w: %s has %d bytes, an environment block at most %d", boot.ErrState, b.area, b.area.Size(), maxBlock)
	}
	data := make([]byte, b.area.Size())
	if _, err := b.area.ReadBackAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("%w: %w", boot.ErrState, err)
	}
	env, err := parseBlock(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: environment block %s %w; restore it with grub-editenv create", boot.ErrState, b.area, err)
	}
	return data, env, nil
}

// change edits the block and writes the sectors that differ in one write.
func (b *Backend) change(slot string, edit func(*block) error) error {
	if !slices.Contains(b.slots, slot) {
		return fmt.Errorf("%w: slot %q is not among %v", boot.ErrRefused, slot, b.slots)
	}
	old, env, err := b.load()
	if err != nil {
		return err
	}
	if err := edit(env); err != nil {
		return err
	}
	data, err := env.encode()
	if err != nil {
		return err
	}
	first, end := differing(old, data)
	if first == end {
		return nil
	}
	return boot.WriteVerified(b.area, data[first:end], int64(first))
}

// differing is the span of whole sectors in which a and b differ; both have the same length.
func differing(a, b []byte) (first, end int) {
	for off := 0; off < len(a); off += sector {
		stop := min(off+sector, len(a))
		if bytes.Equal(a[off:stop], b[off:stop]) {
			continue
		}
		if end == 0 {
			first = off
		}
		end = stop
	}
	return first, end
}
