// Package efi keeps the slot choice in the UEFI boot manager, without a boot loader in between. Each slot has a boot option
// Boot####, BootOrder lists the good slots, and BootNext names a slot to try once (UEFI specification 2.10, section 3.1).
// The firmware deletes BootNext before it starts that option, so the boot after a failed try follows BootOrder.
//
// Every change is one variable, which the firmware stores atomically. Missing boot options are created and then kept.
// Foreign boot options and their order in BootOrder are preserved. Since NVRAM wears, a variable is only written if it
// changes.
package efi

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	"updater/boot"
)

// Vars accesses the firmware variables of one vendor by name. Data excludes the attributes. A change is durable once it
// returns nil. The error for a missing variable wraps [fs.ErrNotExist].
type Vars interface {
	List() ([]string, error)
	Get(name string) ([]byte, error)
	Set(name string, data []byte) error
	Delete(name string) error
}

// Options configure the backend.
type Options struct {
	Vars    Vars
	Slots   []string
	Targets map[string]Target
}

// Backend implements [boot.Backend].
type Backend struct {
	Options
	booted  string
	encoded map[string][]byte // boot options by slot
}

var (
	_ boot.Backend  = (*Backend)(nil)
	_ boot.Restorer = (*Backend)(nil)
)

// New returns the backend on o. booted is the running slot, "" outside every slot.
func New(o Options, booted string) (*Backend, error) {
	if len(o.Slots) == 0 || booted != "" && !slices.Contains(o.Slots, booted) {
		return nil, fmt.Errorf("%w: running slot %q is not configured; expected one of %v", boot.ErrState, booted, o.Slots)
	}
	b := &Backend{o, booted, map[string][]byte{}}
	for _, s := range o.Slots {
		data, err := o.Targets[s].encode()
		if err != nil {
			return nil, fmt.Errorf("%w: slot %s: %w", boot.ErrState, s, err)
		}
		b.encoded[s] = data
	}
	return b, nil
}

// Running returns the slot whose boot option the firmware has started, according to BootCurrent; "" if it is not a slot's.
func Running(o Options) (string, error) {
	b := &Backend{Options: o}
	current, err := b.get("BootCurrent")
	if err != nil || len(current) != 2 {
		return "", err
	}
	m, err := b.load()
	if err != nil {
		return "", err
	}
	return m.slots[binary.LittleEndian.Uint16(current)], nil
}

// Caps implements [boot.Backend].
func (b *Backend) Caps() boot.Caps { return boot.Caps{MaxTries: 1, SwitchAtomic: true} }

// Booted implements [boot.Backend].
func (b *Backend) Booted(context.Context) (string, error) { return b.booted, nil }

// manager is the state of the boot manager.
type manager struct {
	options map[uint16]option
	slots   map[uint16]string // slot that an option starts, active or not
	order   []uint16
	next    int    // BootNext, -1 for none
	trying  string // slot that BootNext names, "" for none. Firmware starts an inactive option, too, if BootNext names it.
}

func (b *Backend) load() (*manager, error) {
	m := &manager{options: map[uint16]option{}, slots: map[uint16]string{}, next: -1}
	names, err := b.Vars.List()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", boot.ErrState, err)
	}
	for _, name := range names {
		n, ok := optionNumber(name)
		if !ok {
			continue
		}
		data, err := b.Vars.Get(name)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", boot.ErrState, err)
		}
		o, ok := parse(data)
		if !ok {
			continue // the firmware skips it, too
		}
		m.options[n] = o
		for _, s := range b.Slots {
			if o.starts(b.Targets[s]) {
				m.slots[n] = s
			}
		}
	}
	order, err := b.get("BootOrder")
	if err != nil {
		return nil, err
	}
	for ; len(order) >= 2; order = order[2:] { // an odd byte is ignored, as in EDK II
		m.order = append(m.order, binary.LittleEndian.Uint16(order))
	}
	next, err := b.get("BootNext")
	if len(next) == 2 {
		n := binary.LittleEndian.Uint16(next)
		m.next, m.trying = int(n), m.slots[n]
	}
	return m, err
}

// get returns a variable, nil if it is missing.
func (b *Backend) get(name string) ([]byte, error) {
	data, err := b.Vars.Get(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", boot.ErrState, err)
	}
	return data, nil
}

// optionNumber parses a name such as Boot0A01.
func optionNumber(name string) (uint16, bool) {
	hex, ok := strings.CutPrefix(name, "Boot")
	if !ok || len(hex) != 4 || strings.ToUpper(hex) != hex {
		return 0, false
	}
	n, err := strconv.ParseUint(hex, 16, 16)
	return uint16(n), err == nil
}

func optionName(n uint16) string { return fmt.Sprintf("Boot%04X", n) }

// slotOf returns the slot that an option in BootOrder starts, "" for none. Several options may start the same slot.
func (m *manager) slotOf(n uint16) string {
	if !m.options[n].active {
		return ""
	}
	return m.slots[n]
}

// number returns the option to use for a slot: the first one in BootOrder, otherwise the lowest active one.
func (m *manager) number(slot string) (n uint16, ok bool) {
	for _, n := range slices.Concat(m.order, slices.Sorted(maps.Keys(m.slots))) {
		if m.slotOf(n) == slot {
			return n, true
		}
	}
	return 0, false
}

// ordered lists the slots in BootOrder.
func (m *manager) ordered() []string {
	var slots []string
	for _, n := range m.order {
		if s := m.slotOf(n); s != "" && !slices.Contains(slots, s) {
			slots = append(slots, s)
		}
	}
	return slots
}

// State implements [boot.Backend].
func (b *Backend) State(context.Context) (boot.State, error) {
	m, err := b.load()
	if err != nil {
		return boot.State{}, err
	}
	order, after := m.ordered(), ""
	if len(order) > 0 {
		after = order[0]
	}
	st := boot.State{Booted: b.booted, Next: after, Boots: []string{after, after, after}}
	if m.trying != "" {
		st.Next, st.Boots[0] = m.trying, m.trying
	}
	for _, s := range b.Slots {
		state := boot.SlotState{Name: s}
		if i := slices.Index(order, s); i >= 0 {
			state.Bootable, state.Good, state.TriesLeft, state.Priority = true, true, -1, len(order)-i
		}
		if s == m.trying {
			state.Bootable, state.TriesLeft, state.Priority = true, 1, len(order)+1
		}
		st.Slots = append(st.Slots, state)
	}
	st.Findings = append(b.findings(m), boot.Disagreements(st)...)
	return st, nil
}

func (b *Backend) findings(m *manager) []boot.Finding {
	var found []boot.Finding
	for _, s := range b.Slots {
		if _, ok := m.number(s); !ok {
			found = append(found, boot.Warn(boot.RemedyRepair, "slot %s has no boot option that starts %s", s, b.Targets[s].Path))
		}
	}
	for _, n := range m.order {
		if m.slotOf(n) != "" {
			break
		}
		if o, ok := m.options[n]; ok && o.active && o.path != "" {
			found = append(found, boot.Warn("move it behind the slots with efibootmgr -o",
				"BootOrder lists %s (%s), which is not a slot, before the slots", optionName(n), o.description))
		}
	}
	if m.next >= 0 && m.trying == "" {
		evidence := fmt.Sprintf("the next boot starts %s, which is not a slot", optionName(uint16(m.next)))
		found = append(found, boot.Finding{Severity: boot.Info, Evidence: evidence})
	}
	return found
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

func (b *Backend) disable(slot string) error {
	m, err := b.known(slot)
	if err != nil {
		return err
	}
	if order := m.ordered(); len(order) == 1 && order[0] == slot || len(order) == 0 && m.trying == slot {
		return boot.RefuseLast(slot)
	}
	if m.trying == slot {
		if err := b.Vars.Delete("BootNext"); err != nil {
			return fmt.Errorf("%w: %w", boot.ErrState, err)
		}
		switch left, err := b.get("BootNext"); {
		case err != nil:
			return err
		case len(left) > 0:
			return fmt.Errorf("%w: BootNext still exists after it was deleted", boot.ErrState)
		}
	}
	return b.setOrder(m, slices.DeleteFunc(slices.Clone(m.order), func(n uint16) bool { return m.slotOf(n) == slot }))
}

// Activate implements [boot.Backend]. BootOrder does not change, so the boot after the try starts the current slot.
func (b *Backend) Activate(_ context.Context, slot string, tries int) error {
	if tries != 1 {
		return fmt.Errorf("%w: %d tries requested; BootNext allows 1", boot.ErrRefused, tries)
	}
	m, err := b.known(slot)
	if err != nil {
		return err
	}
	n, err := b.option(m, slot)
	if err != nil {
		return err
	}
	return b.set("BootNext", binary.LittleEndian.AppendUint16(nil, n))
}

// MarkGood implements [boot.Backend]. It moves the running slot before the other slots in BootOrder.
func (b *Backend) MarkGood(_ context.Context, slot string) error {
	if err := boot.RefuseOthers(slot, b.booted); err != nil {
		return err
	}
	m, err := b.known(slot)
	if err != nil {
		return err
	}
	n, err := b.option(m, slot)
	if err != nil {
		return err
	}
	if order := m.ordered(); len(order) > 0 && order[0] == slot {
		return nil
	}
	rest := slices.DeleteFunc(slices.Clone(m.order), func(o uint16) bool { return o == n })
	return b.setOrder(m, append([]uint16{n}, rest...))
}

// RestoreFallback implements [boot.Restorer]. The slot's option follows that of the last slot in BootOrder.
func (b *Backend) RestoreFallback(ctx context.Context, slot string) error {
	st, err := b.State(ctx)
	if err != nil {
		return err
	}
	if err := cmp.Or(boot.RefuseRunning(slot, b.booted), boot.RefuseNoFallback(slot, st.Next)); err != nil {
		return err
	}
	m, err := b.known(slot)
	if err != nil || slices.Contains(m.ordered(), slot) {
		return err
	}
	n, err := b.option(m, slot)
	if err != nil {
		return err
	}
	last := len(m.order)
	for last > 0 && m.slotOf(m.order[last-1]) == "" {
		last--
	}
	return b.setOrder(m, slices.Insert(slices.Clone(m.order), last, n))
}

// Repair implements [boot.Backend]. It creates missing boot options and adds the running slot to BootOrder if no slot is
// listed there.
func (b *Backend) Repair(ctx context.Context) error {
	m, err := b.load()
	if err != nil {
		return err
	}
	for _, s := range b.Slots {
		if _, err := b.option(m, s); err != nil {
			return err
		}
	}
	if len(m.ordered()) == 0 && b.booted != "" {
		return b.MarkGood(ctx, b.booted)
	}
	return nil
}

func (b *Backend) known(slot string) (*manager, error) {
	if err := boot.RefuseUnknown(slot, b.Slots); err != nil {
		return nil, err
	}
	return b.load()
}

// option returns the number of a slot's boot option. It creates a missing option, under a number that no order lists.
func (b *Backend) option(m *manager, slot string) (uint16, error) {
	if n, ok := m.number(slot); ok {
		return n, nil
	}
	n := uint16(0)
	for slices.Contains(m.order, n) || b.exists(optionName(n)) {
		if n++; n == 0xffff {
			return 0, fmt.Errorf("%w: all boot option numbers are in use", boot.ErrState)
		}
	}
	return n, b.set(optionName(n), b.encoded[slot])
}

func (b *Backend) exists(name string) bool {
	_, err := b.Vars.Get(name)
	return !errors.Is(err, fs.ErrNotExist)
}

func (b *Backend) setOrder(m *manager, order []uint16) error {
	if slices.Equal(order, m.order) {
		return nil
	}
	var data []byte
	for _, n := range order {
		data = binary.LittleEndian.AppendUint16(data, n)
	}
	return b.set("BootOrder", data)
}

// set writes a variable and reads it back, since some firmware reorders, prunes or ignores variables.
func (b *Backend) set(name string, data []byte) error {
	if old, err := b.get(name); err != nil || slices.Equal(old, data) {
		return err
	}
	if err := b.Vars.Set(name, data); err != nil {
		return fmt.Errorf("%w: %w", boot.ErrState, err)
	}
	if got, err := b.get(name); err != nil || !slices.Equal(got, data) {
		return errors.Join(fmt.Errorf("%w: %s reads back as %x; expected %x", boot.ErrState, name, got, data), err)
	}
	return nil
}
