// Package uboot keeps the slot choice in U-Boot's environment, with the variables of RAUC's U-Boot
// integration (RAUC manual, "U-Boot"): BOOT_ORDER lists the slots, the first whose BOOT_x_LEFT is above 0
// boots, and the script takes one off and saves the environment before it does. So every boot spends a try,
// also of a good slot, and mark-good must run on each. With none left the usual script refills all.
//
// A redundant environment has two copies with a checksum and a flag each. Only the copy that is not in use
// is written, with the next flag: until that write is whole, the other copy counts. So every change is
// old-or-new, whatever the power does. A single copy has no such promise beyond one sector: a torn write
// gives U-Boot's built-in environment. [Backend.State] says so.
package uboot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"updater/boot"
)

// goodTries is what BOOT_x_LEFT of a slot that is marked good is set to, as RAUC does.
const goodTries = 3

// maxTries keeps the counter one digit: RAUC reads it in base 16, U-Boot's own bootmeth in base 10.
const maxTries = 9

// Backend implements [boot.Backend].
type Backend struct {
	areas  []boot.Area
	slots  []string
	booted string
}

// New returns the backend on one area (single) or two (redundant), each exactly the size of the
// environment. booted is the running slot, "" outside every slot.
func New(areas []boot.Area, slots []string, booted string) (*Backend, error) {
	if len(areas) < 1 || len(areas) > 2 {
		return nil, fmt.Errorf("%w: %d environment areas, expected 1 or 2", boot.ErrState, len(areas))
	}
	for _, a := range areas {
		if a.Size() != areas[0].Size() || a.Size() > maxEnv {
			return nil, fmt.Errorf("%w: environment %s has %d bytes, expected the same size for all, at most %d", boot.ErrState, a, a.Size(), maxEnv)
		}
	}
	if len(slots) == 0 || booted != "" && !slices.Contains(slots, booted) {
		return nil, fmt.Errorf("%w: running slot %q is not among the slots %v", boot.ErrState, booted, slots)
	}
	return &Backend{areas: areas, slots: slots, booted: booted}, nil
}

var _ boot.Backend = (*Backend)(nil)

func (b *Backend) redundant() bool { return len(b.areas) == 2 }

// Caps implements [boot.Backend].
func (b *Backend) Caps() boot.Caps {
	return boot.Caps{MaxTries: maxTries, MarkGoodEveryBoot: true, SwitchAtomic: b.redundant()}
}

// Booted implements [boot.Backend].
func (b *Backend) Booted(context.Context) (string, error) { return b.booted, nil }

// State implements [boot.Backend].
func (b *Backend) State(context.Context) (boot.State, error) {
	l, err := b.load()
	if err != nil {
		return boot.State{}, err
	}
	st := boot.State{Booted: b.booted, Next: b.next(l.env), Degraded: l.bad}
	if !b.redundant() {
		st.Degraded = append(st.Degraded, fmt.Sprintf("the environment %s has one copy: a power cut while it is written may lose it", b.areas[0]))
	}
	order := b.order(l.env)
	for _, s := range b.slots {
		at, left := slices.Index(order, s), b.left(l.env, s)
		state := boot.SlotState{Name: s, Bootable: at >= 0 && left > 0, Good: at >= 0 && left >= goodTries, TriesLeft: left}
		if at >= 0 {
			state.Priority = len(order) - at
		}
		st.Slots = append(st.Slots, state)
	}
	return st, nil
}

// next is the choice of RAUC's boot script.
func (b *Backend) next(e *env) string {
	for _, s := range b.order(e) {
		if b.left(e, s) > 0 {
			return s
		}
	}
	return ""
}

func (b *Backend) order(e *env) []string {
	return slices.DeleteFunc(strings.Fields(e.get("BOOT_ORDER")), func(s string) bool { return !slices.Contains(b.slots, s) })
}

// left is BOOT_x_LEFT; what is no number counts as none, as in U-Boot's test.
func (b *Backend) left(e *env, slot string) int {
	n, err := strconv.ParseUint(e.get(leftName(slot)), 16, 16)
	if err != nil {
		return 0
	}
	return int(n)
}

func leftName(slot string) string { return "BOOT_" + slot + "_LEFT" }

// Invalidate implements [boot.Backend].
func (b *Backend) Invalidate(_ context.Context, slot string) error {
	if slot == b.booted {
		return fmt.Errorf("%w: slot %s is running", boot.ErrRefused, slot)
	}
	return b.disable(slot)
}

// MarkBad implements [boot.Backend].
func (b *Backend) MarkBad(_ context.Context, slot string) error { return b.disable(slot) }

// disable takes a slot out of the choice, and refills the tries of the running one, which the choice now
// rests on. Where no slot was bootable before there is nothing to lose, and a recovery may go on.
func (b *Backend) disable(slot string) error {
	return b.change(slot, func(e *env) error {
		before := b.next(e)
		left := slices.DeleteFunc(b.order(e), func(s string) bool { return s == slot })
		b.refill(e, slot)
		e.set("BOOT_ORDER", strings.Join(left, " "))
		e.set(leftName(slot), "0")
		if before != "" && b.next(e) == "" {
			return fmt.Errorf("%w: without slot %s no slot would be bootable", boot.ErrRefused, slot)
		}
		return nil
	})
}

// refill gives the running slot its tries back, when it is not slot and still in the order.
func (b *Backend) refill(e *env, slot string) {
	if b.booted != "" && b.booted != slot && slices.Contains(b.order(e), b.booted) && b.left(e, b.booted) < goodTries {
		e.set(leftName(b.booted), strconv.Itoa(goodTries))
	}
}

// Activate implements [boot.Backend].
func (b *Backend) Activate(_ context.Context, slot string, tries int) error {
	if tries < 1 || tries > maxTries {
		return fmt.Errorf("%w: %d tries asked for, expected 1 to %d", boot.ErrRefused, tries, maxTries)
	}
	return b.change(slot, func(e *env) error {
		order := []string{slot}
		for _, s := range b.order(e) {
			if !slices.Contains(order, s) {
				order = append(order, s)
			}
		}
		b.refill(e, slot)
		e.set("BOOT_ORDER", strings.Join(order, " "))
		e.set(leftName(slot), strconv.Itoa(tries))
		return nil
	})
}

// MarkGood implements [boot.Backend].
func (b *Backend) MarkGood(_ context.Context, slot string) error {
	if slot != b.booted {
		return fmt.Errorf("%w: slot %s is not the one that is running, which alone can be known to work", boot.ErrRefused, slot)
	}
	return b.change(slot, func(e *env) error {
		if order := b.order(e); !slices.Contains(order, slot) {
			e.set("BOOT_ORDER", strings.Join(append(order, slot), " "))
		}
		if b.left(e, slot) < goodTries {
			e.set(leftName(slot), strconv.Itoa(goodTries))
		}
		return nil
	})
}

// Repair implements [boot.Backend]: it rewrites a bad copy from the good one.
func (b *Backend) Repair(context.Context) error {
	l, err := b.load()
	if err != nil || len(l.bad) == 0 {
		return err
	}
	return b.save(l, l.env)
}

// loaded is the environment that U-Boot would use.
type loaded struct {
	env    *env
	raw    []byte   // of the copy in use
	active int      // its index
	bad    []string // what is wrong with the other
}

// load reads both copies from the medium and picks the one that U-Boot would use.
func (b *Backend) load() (*loaded, error) {
	envs, raws, errs := make([]*env, len(b.areas)), make([][]byte, len(b.areas)), make([]error, len(b.areas))
	for i, a := range b.areas {
		raws[i] = make([]byte, a.Size())
		// A copy that cannot be read may be the newer one: nothing is changed on the strength of the other.
		if _, err := a.ReadBackAt(raws[i], 0); err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%w: %w", boot.ErrState, err)
		}
		if envs[i], errs[i] = parse(raws[i], b.redundant()); errs[i] != nil {
			errs[i] = fmt.Errorf("environment copy %d (%s) %w", i+1, a, errs[i])
		}
	}
	l := new(loaded)
	switch {
	case !b.redundant():
		if errs[0] != nil {
			return nil, fmt.Errorf("%w: %w; restore it in U-Boot with env default -a and saveenv", boot.ErrState, errs[0])
		}
	case errs[0] != nil && errs[1] != nil:
		return nil, fmt.Errorf("%w: %w; restore it in U-Boot with env default -a and saveenv", boot.ErrState, errors.Join(errs...))
	case errs[0] != nil:
		l.active, l.bad = 1, []string{errs[0].Error()}
	case errs[1] != nil:
		l.active, l.bad = 0, []string{errs[1].Error()}
	case !firstIsActive(envs[0].flag, envs[1].flag):
		l.active = 1
	}
	l.env, l.raw = envs[l.active], raws[l.active]
	return l, nil
}

// change edits the environment and saves it, when that changes anything.
func (b *Backend) change(slot string, edit func(*env) error) error {
	if !slices.Contains(b.slots, slot) {
		return fmt.Errorf("%w: slot %q is not among %v", boot.ErrRefused, slot, b.slots)
	}
	l, err := b.load()
	if err != nil {
		return err
	}
	e := l.env.clone()
	if err := edit(e); err != nil {
		return err
	}
	if e.equal(l.env) {
		return nil
	}
	return b.save(l, e)
}

// save writes e: into the copy that is not in use, or, of a single copy, the sectors that differ.
func (b *Backend) save(l *loaded, e *env) error {
	if b.redundant() {
		e = e.clone()
		e.flag = l.env.flag + 1 // wraps, as U-Boot's does
		data, err := e.encode(b.areas[0].Size(), true)
		if err != nil {
			return fmt.Errorf("%w: %w", boot.ErrState, err)
		}
		return boot.WriteVerified(b.areas[1-l.active], data, 0)
	}
	data, err := e.encode(b.areas[0].Size(), false)
	if err != nil {
		return fmt.Errorf("%w: %w", boot.ErrState, err)
	}
	keepPadding(data, l.raw, e)
	const sector = 512
	end := len(data)
	for end > sector && bytes.Equal(data[end-sector:end], l.raw[end-sector:end]) {
		end -= sector
	}
	return boot.WriteVerified(b.areas[0], data[:end], 0)
}
