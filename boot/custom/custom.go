// Package custom delegates the slot choice to programs of the running system, for boot loaders without a package of their
// own. Each operation is an argument vector, run without a shell. The backend runs the state program after every change
// and checks the result. It cannot check durability: the state after a power cut is up to the program.
//
// The state program prints one line for each slot: the name; good, bad or trying; for trying, the number of boots left; and
// "next" on the line of the slot that boots next:
//
//	A good
//	B trying 3 next
package custom

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"updater/boot"
	"updater/internal/program"
)

// Commands are the argument vectors of the operations. {slot} and {tries} in an argument are replaced.
type Commands struct{ State, Invalidate, Activate, Good, Bad []string }

// maxTries is the most tries that a program is asked to count.
const maxTries = 9

// Backend implements [boot.Backend].
type Backend struct {
	commands Commands
	slots    []string
	booted   string
}

var _ boot.Backend = (*Backend)(nil)

// New returns the backend on c. Every command except Bad is required; an empty Bad means Invalidate. booted is the running
// slot, "" outside every slot.
func New(c Commands, slots []string, booted string) (*Backend, error) {
	if len(slots) == 0 || booted != "" && !slices.Contains(slots, booted) {
		return nil, fmt.Errorf("%w: running slot %q is not configured; expected one of %v", boot.ErrState, booted, slots)
	}
	if len(c.Bad) == 0 {
		c.Bad = c.Invalidate
	}
	for name, argv := range map[string][]string{"state": c.State, "invalidate": c.Invalidate, "activate": c.Activate, "good": c.Good} {
		if len(argv) == 0 || !filepath.IsAbs(argv[0]) {
			return nil, fmt.Errorf("%w: command %s is %q, expected an absolute path and arguments", boot.ErrState, name, argv)
		}
	}
	return &Backend{c, slots, booted}, nil
}

// Caps implements [boot.Backend]. Nothing is known about how a program writes.
func (b *Backend) Caps() boot.Caps { return boot.Caps{MaxTries: maxTries} }

// Booted implements [boot.Backend].
func (b *Backend) Booted(context.Context) (string, error) { return b.booted, nil }

// State implements [boot.Backend].
func (b *Backend) State(ctx context.Context) (boot.State, error) {
	out, err := program.Run(ctx, program.Command{Argv: b.commands.State})
	if err != nil {
		return boot.State{}, fmt.Errorf("%w: %w", boot.ErrState, err)
	}
	return b.parse(out)
}

// parse parses the output of the state program.
func (b *Backend) parse(out []byte) (boot.State, error) {
	st := boot.State{Booted: b.booted}
	for _, s := range b.slots {
		st.Slots = append(st.Slots, boot.SlotState{Name: s})
	}
	for line := range bytes.Lines(out) {
		if err := b.line(&st, strings.Fields(string(line))); err != nil {
			return boot.State{}, fmt.Errorf("%w: %s printed %.80q: %w", boot.ErrState, b.commands.State[0], line, err)
		}
	}
	if st.Next != "" {
		st.Boots = []string{st.Next}
	}
	evidence := fmt.Sprintf("the boot state comes from %s, whose durability under a power cut is unknown", b.commands.State[0])
	st.Findings = append(st.Findings, boot.Finding{Severity: boot.Info, Evidence: evidence})
	st.Findings = append(st.Findings, boot.Disagreements(st)...)
	return st, nil
}

func (b *Backend) line(st *boot.State, w []string) error {
	if len(w) == 0 {
		return nil
	}
	i := slices.Index(b.slots, w[0])
	if i < 0 {
		return nil // a slot that is not configured
	}
	s := &st.Slots[i]
	if s.Priority++; s.Priority > 1 {
		return fmt.Errorf("slot %s is listed twice", w[0])
	}
	if w[len(w)-1] == "next" {
		if st.Next != "" {
			return fmt.Errorf("slots %s and %s both boot next", st.Next, w[0])
		}
		st.Next, w = w[0], w[:len(w)-1]
	}
	switch {
	case len(w) == 2 && w[1] == "good":
		s.Good, s.Bootable, s.TriesLeft = true, true, -1
	case len(w) == 2 && w[1] == "bad":
		s.Priority = 0
	case len(w) == 3 && w[1] == "trying":
		n, err := strconv.ParseUint(w[2], 10, 16)
		if err != nil {
			return fmt.Errorf("%q is not a number of boots", w[2])
		}
		s.Bootable, s.TriesLeft = n > 0, int(n)
	default:
		return fmt.Errorf("expected SLOT good, SLOT bad or SLOT trying N, followed by next for the slot that boots next")
	}
	return nil
}

// Invalidate implements [boot.Backend].
func (b *Backend) Invalidate(ctx context.Context, slot string) error {
	if err := boot.RefuseRunning(slot, b.booted); err != nil {
		return err
	}
	return b.disable(ctx, b.commands.Invalidate, slot)
}

// MarkBad implements [boot.Backend].
func (b *Backend) MarkBad(ctx context.Context, slot string) error {
	return b.disable(ctx, b.commands.Bad, slot)
}

func (b *Backend) disable(ctx context.Context, argv []string, slot string) error {
	st, err := b.known(ctx, slot)
	if err != nil {
		return err
	}
	if st.Next != "" && !slices.ContainsFunc(st.Slots, func(s boot.SlotState) bool { return s.Name != slot && s.Bootable }) {
		return boot.RefuseLast(slot)
	}
	return b.change(ctx, argv, slot, 0, func(st boot.State, s boot.SlotState) bool { return !s.Bootable && st.Next != slot })
}

// Activate implements [boot.Backend].
func (b *Backend) Activate(ctx context.Context, slot string, tries int) error {
	if tries < 1 || tries > maxTries {
		return fmt.Errorf("%w: %d tries requested; expected 1 to %d", boot.ErrRefused, tries, maxTries)
	}
	if _, err := b.known(ctx, slot); err != nil {
		return err
	}
	return b.change(ctx, b.commands.Activate, slot, tries, func(st boot.State, s boot.SlotState) bool { return st.Next == slot && s.Bootable })
}

// MarkGood implements [boot.Backend].
func (b *Backend) MarkGood(ctx context.Context, slot string) error {
	if err := boot.RefuseOthers(slot, b.booted); err != nil {
		return err
	}
	st, err := b.known(ctx, slot)
	if err != nil || st.Slots[slices.Index(b.slots, slot)].Good {
		return err
	}
	return b.change(ctx, b.commands.Good, slot, 0, func(_ boot.State, s boot.SlotState) bool { return s.Good })
}

// Repair implements [boot.Backend]. There is no command for it; it only checks that the state can be read.
func (b *Backend) Repair(ctx context.Context) error {
	_, err := b.State(ctx)
	return err
}

func (b *Backend) known(ctx context.Context, slot string) (boot.State, error) {
	if err := boot.RefuseUnknown(slot, b.slots); err != nil {
		return boot.State{}, err
	}
	return b.State(ctx)
}

// change runs a command and reads the state back to check that holds is true afterwards.
func (b *Backend) change(ctx context.Context, argv []string, slot string, tries int, holds func(boot.State, boot.SlotState) bool) error {
	filled := make([]string, len(argv))
	for i, a := range argv {
		filled[i] = strings.NewReplacer("{slot}", slot, "{tries}", strconv.Itoa(tries)).Replace(a)
	}
	if _, err := program.Run(ctx, program.Command{Argv: filled}); err != nil {
		return fmt.Errorf("%w: %w", boot.ErrState, err)
	}
	st, err := b.State(ctx)
	if err != nil {
		return err
	}
	if s := st.Slots[slices.Index(b.slots, slot)]; !holds(st, s) {
		return fmt.Errorf("%w: %s had no effect: slot %s is %+v and slot %q boots next", boot.ErrState, strings.Join(filled, " "), slot, s, st.Next)
	}
	return nil
}
