// Package tryboot keeps the slot choice of a Raspberry Pi in autoboot.txt and the tryboot flag of its firmware (Raspberry Pi
// documentation, "autoboot.txt" and "Fail-safe OS updates (tryboot)"). The firmware boots the partition in [all], or, if
// the flag is set, the partition in [tryboot]. It clears the flag first, and a power cut clears it too, so a slot gets
// one try.
//
// autoboot.txt is changed in place. It is one sector long, so a change is atomic. A slot in neither section cannot boot:
// while a slot is incomplete, both sections name the other one.
package tryboot

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"updater/boot"
)

// Flag is the tryboot flag of the firmware for the next restart.
type Flag interface {
	Get() (bool, error)
	Set(on bool) error
}

// Options configure the backend.
type Options struct {
	Area      boot.Area // autoboot.txt, at most 512 bytes
	Flag      Flag
	Slots     []string
	Partition map[string]int // number of each slot's boot partition, 1 to 9
}

// Backend implements [boot.Backend].
type Backend struct {
	Options
	booted string
}

var (
	_ boot.Backend  = (*Backend)(nil)
	_ boot.Restorer = (*Backend)(nil)
)

// New returns the backend on o. booted is the running slot, "" outside every slot.
func New(o Options, booted string) (*Backend, error) {
	if len(o.Slots) != 2 || booted != "" && !slices.Contains(o.Slots, booted) {
		return nil, fmt.Errorf("%w: running slot %q with the slots %v; expected two slots, one of them running or none", boot.ErrState, booted, o.Slots)
	}
	for _, s := range o.Slots {
		if n := o.Partition[s]; n < 1 || n > 9 {
			return nil, fmt.Errorf("%w: slot %s boots from partition %d, expected 1 to 9", boot.ErrState, s, n)
		}
	}
	return &Backend{o, booted}, nil
}

// Caps implements [boot.Backend].
func (b *Backend) Caps() boot.Caps {
	return boot.Caps{MaxTries: 1, SwitchAtomic: true, VolatileTry: true}
}

// Booted implements [boot.Backend].
func (b *Backend) Booted(context.Context) (string, error) { return b.booted, nil }

// choice is the parsed autoboot.txt with the flag.
type choice struct {
	raw      []byte
	all, try int  // index in raw of the partition's digit in [all] and [tryboot]; 0 until it is found
	pending  bool // the flag is set
}

func (b *Backend) load() (*choice, error) {
	if n := b.Area.Size(); n > boot.Sector {
		return nil, fmt.Errorf("%w: %s has %d bytes; the firmware reads at most %d", boot.ErrState, b.Area, n, boot.Sector)
	}
	raw, err := boot.ReadAll(b.Area)
	if err != nil {
		return nil, err
	}
	c := &choice{raw: raw}
	if err := c.parse(); err != nil {
		return nil, fmt.Errorf("%w: %s %w", boot.ErrState, b.Area, err)
	}
	if c.pending, err = b.Flag.Get(); err != nil {
		return nil, fmt.Errorf("%w: reading the tryboot flag: %w", boot.ErrState, err)
	}
	return c, nil
}

// parse finds the partitions. The firmware is not public, and its documentation leaves open how it reads a repeated
// assignment, a filter for certain boards, or blanks within a line: these are refused where they concern boot_partition. As
// in config.txt, a later matching section overrides an earlier one, so [tryboot] comes last.
func (c *choice) parse() error {
	const key = "boot_partition"
	section, off := "all", 0
	for line := range strings.Lines(string(c.raw)) {
		start := off
		off += len(line)
		text := strings.TrimRight(line, " \t\r\n")
		if name, ok := strings.CutPrefix(strings.TrimLeft(text, " \t"), "["); ok {
			section = strings.TrimSuffix(name, "]")
			continue
		}
		if !strings.HasPrefix(strings.TrimLeft(text, " \t"), key) || section == "none" {
			continue
		}
		digit, ok := strings.CutPrefix(text, key+"=")
		if !ok || len(digit) != 1 || digit < "1" || digit > "9" {
			return fmt.Errorf("has %q in [%s], expected %s= and a digit from 1 to 9", text, section, key)
		}
		at := start + len(key) + 1
		switch {
		case section == "all" && c.all == 0 && c.try == 0:
			c.all = at
		case section == "tryboot" && c.try == 0:
			c.try = at
		default:
			return fmt.Errorf("has %s in [%s], expected it once in [all] and then once in [tryboot]", key, section)
		}
	}
	if c.all == 0 || c.try == 0 {
		return fmt.Errorf("lacks %s in [all] or in [tryboot]", key)
	}
	return nil
}

// slotAt returns the slot of the partition whose digit is at index at, "" for another partition.
func (b *Backend) slotAt(c *choice, at int) string {
	for _, s := range b.Slots {
		if strconv.Itoa(b.Partition[s]) == string(c.raw[at]) {
			return s
		}
	}
	return ""
}

// write sets the slots of both sections, in one sector.
func (b *Backend) write(c *choice, all, try string) error {
	data := bytes.Clone(c.raw)
	data[c.all], data[c.try] = byte('0'+b.Partition[all]), byte('0'+b.Partition[try])
	return boot.WriteChanged(b.Area, c.raw, data)
}

// State implements [boot.Backend].
func (b *Backend) State(context.Context) (boot.State, error) {
	c, err := b.load()
	if err != nil {
		return boot.State{}, err
	}
	all, try := b.slotAt(c, c.all), b.slotAt(c, c.try)
	st := boot.State{Booted: b.booted, Next: all, Boots: []string{all, all, all}}
	if c.pending {
		st.Next, st.Boots[0] = try, try
	}
	for _, s := range b.Slots {
		trying := s == try && s != all && c.pending
		state := boot.SlotState{Name: s, Bootable: s == all || s == try, TriesLeft: -1, Good: s == all}
		switch {
		case trying:
			state.TriesLeft, state.Priority = 1, 3
		case s == all:
			state.Priority = 2
		case s == try:
			state.Priority, state.Good = 1, s != b.booted // a running slot outside [all] is on trial
		default:
			state.TriesLeft = 0
		}
		st.Slots = append(st.Slots, state)
	}
	for i, at := range []int{c.all, c.try} {
		if b.slotAt(c, at) == "" {
			st.Findings = append(st.Findings, boot.Fail("run updater mark good in the running slot",
				"%s has boot_partition=%c in %s, which is not the partition of a slot", b.Area, c.raw[at], [...]string{"[all]", "[tryboot]"}[i]))
		}
	}
	if !bytes.Contains(c.raw, []byte("tryboot_a_b=1")) {
		st.Findings = append(st.Findings, boot.Warn("add it to [all]; see docs/boot/tryboot.md", "%s lacks tryboot_a_b=1", b.Area))
	}
	st.Findings = append(st.Findings, boot.Disagreements(st)...)
	return st, nil
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

// disable writes the other slot into both sections.
func (b *Backend) disable(slot string) error {
	c, err := b.known(slot)
	if err != nil {
		return err
	}
	all, try := b.slotAt(c, c.all), b.slotAt(c, c.try)
	other := b.Slots[0]
	if other == slot {
		other = b.Slots[1]
	}
	if all == slot && try != other {
		return boot.RefuseLast(slot)
	}
	if c.pending {
		if err := b.setFlag(false); err != nil {
			return err
		}
	}
	return b.write(c, other, other)
}

// Activate implements [boot.Backend]. It writes the partition to [tryboot] and then sets the flag, which is the switch. The
// slot in [all] needs no flag.
func (b *Backend) Activate(_ context.Context, slot string, tries int) error {
	if tries != 1 {
		return fmt.Errorf("%w: %d tries requested; tryboot allows 1", boot.ErrRefused, tries)
	}
	c, err := b.known(slot)
	if err != nil {
		return err
	}
	all := b.slotAt(c, c.all)
	if all == slot || all == "" {
		if err := b.write(c, slot, cmp.Or(b.slotAt(c, c.try), slot)); err != nil || !c.pending {
			return err
		}
		return b.setFlag(false)
	}
	if err := b.write(c, all, slot); err != nil || c.pending {
		return err
	}
	return b.setFlag(true)
}

// MarkGood implements [boot.Backend]. It exchanges the sections, so that the running slot is in [all].
func (b *Backend) MarkGood(_ context.Context, slot string) error {
	if err := boot.RefuseOthers(slot, b.booted); err != nil {
		return err
	}
	c, err := b.known(slot)
	if err != nil {
		return err
	}
	all := b.slotAt(c, c.all)
	if all == slot {
		return nil
	}
	return b.write(c, slot, cmp.Or(all, slot))
}

// RestoreFallback implements [boot.Restorer]. It writes the slot to [tryboot], after a flag that is still set was cleared.
func (b *Backend) RestoreFallback(_ context.Context, slot string) error {
	c, err := b.known(slot)
	if err != nil {
		return err
	}
	all, try := b.slotAt(c, c.all), b.slotAt(c, c.try)
	if c.pending && try != all {
		all = try
	}
	if err := cmp.Or(boot.RefuseRunning(slot, b.booted), boot.RefuseNoFallback(slot, all)); err != nil || all != b.slotAt(c, c.all) {
		return err // the slot in [all] is the fallback of the one in [tryboot]
	}
	if c.pending {
		if err := b.setFlag(false); err != nil {
			return err
		}
	}
	return b.write(c, all, slot)
}

// Repair implements [boot.Backend]. autoboot.txt has no second copy: Repair only reports findings, to be fixed by hand.
func (b *Backend) Repair(context.Context) error {
	_, err := b.load()
	return err
}

func (b *Backend) known(slot string) (*choice, error) {
	if err := boot.RefuseUnknown(slot, b.Slots); err != nil {
		return nil, err
	}
	return b.load()
}

func (b *Backend) setFlag(on bool) error {
	if err := b.Flag.Set(on); err != nil {
		return fmt.Errorf("%w: setting the tryboot flag: %w", boot.ErrState, err)
	}
	if got, err := b.Flag.Get(); err != nil || got != on {
		return errors.Join(fmt.Errorf("%w: the tryboot flag is %v after it was set to %v", boot.ErrState, got, on), err)
	}
	return nil
}
