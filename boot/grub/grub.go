// Package grub keeps the slot choice in a GRUB environment block, in one of two dialects.
//
// [RAUC] has the variables of RAUC's grub integration (RAUC manual, "GRUB"): ORDER lists the slots, the first
// with x_OK=1 and x_TRY=0 boots, and the script sets x_TRY=1 before it does. So every boot spends the one
// try, and mark-good must run on each. [Tries] has ORDER and x_LEFT, a digit, or "g" for a good slot, which
// is not counted: examples/boot/grub/tries.cfg is its script, and a good boot writes nothing.
//
// The block has a fixed size and no checksum. It is changed in place, never truncated: GRUB writes through
// the file's block list and does not replay a journal (grub-core/commands/loadenv.c), so a new file would
// not be seen. Only the 512-byte sectors that change are written, and the variables are kept in the first
// one where there is room: such a change is old-or-new whatever the power does. Where other variables fill
// more than a sector that promise is weaker, and State says so.
package grub

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"updater/boot"
	"updater/boot/scheme"
)

// Dialect is a set of variables and the script that reads them.
type Dialect string

// The dialects.
const (
	RAUC  Dialect = "rauc"
	Tries Dialect = "tries"
)

// defaultSize is what grub-editenv makes.
const defaultSize = 1024

// Options are what the backend needs.
type Options struct {
	Area    boot.Area // the block; nil when its file is missing or empty
	Slots   []string
	Dialect Dialect // "" is RAUC
	// Create makes the file anew with data, durably and so that GRUB sees it (rename, fsync of the folder,
	// syncfs). Repair calls it when Area is nil; nil where there is no way.
	Create func(data []byte) error
	Name   string // of the file, for errors, when Area is nil
}

// New returns the backend. booted is the running slot, "" outside every slot.
func New(o Options, booted string) (*scheme.Backend, error) {
	switch o.Dialect {
	case "":
		o.Dialect = RAUC
	case RAUC, Tries:
	default:
		return nil, fmt.Errorf("%w: GRUB dialect %q, expected rauc or tries", boot.ErrState, o.Dialect)
	}
	return scheme.New(&store{o}, o.Slots, booted)
}

type store struct{ Options }

// Rules implements [scheme.Store].
func (s *store) Rules() scheme.Rules {
	if s.Dialect == Tries {
		return scheme.Rules{MaxTries: 9, SwitchAtomic: true}
	}
	return scheme.Rules{MaxTries: 1, GoodTries: 1, CountsGood: true, Refill: 1, SwitchAtomic: true}
}

// Load implements [scheme.Store].
func (s *store) Load() (scheme.Record, []boot.Finding, error) {
	if s.Area == nil {
		return nil, nil, fmt.Errorf("%w: environment block %s is missing or has 0 bytes; %s", boot.ErrState, s.Name, boot.RemedyRepair)
	}
	if s.Area.Size() > maxBlock {
		return nil, nil, fmt.Errorf("%w: %s has %d bytes, an environment block at most %d", boot.ErrState, s.Area, s.Area.Size(), maxBlock)
	}
	data, err := boot.ReadAll(s.Area)
	if err != nil {
		return nil, nil, err
	}
	env, err := parseBlock(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: environment block %s %w; %s", boot.ErrState, s.Area, err, boot.RemedyRepair)
	}
	r := &record{s, data, env}
	return r, r.findings(), nil
}

// Repair implements [scheme.Store]: a block that is not understood is made anew, with the running slot good
// and every other one unbootable, because nothing tells whether their content is whole.
func (s *store) Repair(booted string) error {
	if _, _, err := s.Load(); err == nil {
		return nil
	} else if booted == "" {
		return fmt.Errorf("%w; it is made anew only when a slot is known to work: say which with --booted", err)
	}
	env := &block{size: defaultSize}
	if s.Area != nil && s.Area.Size() <= maxBlock {
		env.size = int(s.Area.Size())
	}
	r := &record{s, nil, env}
	r.set(scheme.NewTable(s.Rules(), s.Slots, func(slot string) scheme.Entry {
		if slot == booted {
			return scheme.Entry{Priority: 1, Good: true, Tries: s.Rules().GoodTries}
		}
		return scheme.Entry{}
	}), true)
	data, err := env.encode()
	if err != nil {
		return err
	}
	if s.Area != nil {
		return boot.WriteVerified(s.Area, data, 0)
	}
	if s.Create == nil {
		return fmt.Errorf("%w: environment block %s is missing; make it with grub-editenv create", boot.ErrState, s.Name)
	}
	if err := s.Create(data); err != nil {
		return fmt.Errorf("%w: making %s: %w", boot.ErrState, s.Name, err)
	}
	return nil
}

// record is a loaded block.
type record struct {
	*store
	raw []byte
	env *block
}

func (r *record) findings() []boot.Finding {
	var found []boot.Finding
	if used := r.env.used(); used > boot.Sector {
		found = append(found, boot.Warn("remove variables that are not needed",
			"%s holds %d bytes of variables, more than one sector of %d: a power cut can tear a change", r.Area, used, boot.Sector))
	}
	order := strings.Fields(r.env.get("ORDER"))
	for _, s := range r.Slots {
		ok := r.env.get(s+"_OK") == "1"
		if r.Dialect == RAUC && ok != slices.Contains(order, s) {
			in := map[bool]string{true: "in", false: "not in"}[!ok]
			found = append(found, boot.Warn("activate the slot or mark it bad", "slot %s has %s_OK=%s and is %s ORDER", s, s, r.env.get(s+"_OK"), in))
		}
	}
	return append(found, unknown("ORDER", order, r.Slots)...)
}

// unknown reports names in an order that are no configured slots.
func unknown(name string, order, slots []string) []boot.Finding {
	var found []boot.Finding
	for _, s := range order {
		if !slices.Contains(slots, s) {
			found = append(found, boot.Warn("add the slot to the configuration or take it out of "+name, "%s has %q, which is no configured slot", name, s))
		}
	}
	return found
}

// Entry implements [scheme.Record].
func (r *record) Entry(slot string) scheme.Entry {
	var e scheme.Entry
	order := strings.Fields(r.env.get("ORDER"))
	if i := slices.Index(order, slot); i >= 0 {
		e.Priority = len(order) - i
	}
	if r.Dialect == RAUC {
		if r.env.get(slot+"_OK") == "1" && r.env.get(slot+"_TRY") == "0" {
			e.Tries, e.Good = 1, true
		}
		return e
	}
	left := r.env.get(slot + "_LEFT")
	e.Good = left == "g"
	if n, err := strconv.ParseUint(left, 10, 4); err == nil && n <= 9 {
		e.Tries = int(n)
	}
	return e
}

// Save implements [scheme.Record].
func (r *record) Save(t *scheme.Table) error {
	r.set(t, false)
	data, err := r.env.encode()
	if err != nil {
		return err
	}
	return boot.WriteChanged(r.Area, r.raw, data)
}

// set puts the table into the variables; where nothing changed, or all is false, a variable stays as it is.
func (r *record) set(t *scheme.Table, all bool) {
	old := map[string]scheme.Entry{}
	for _, s := range r.Slots {
		old[s] = r.Entry(s)
	}
	before := scheme.NewTable(r.Rules(), r.Slots, func(s string) scheme.Entry { return old[s] })
	if order := t.Order(); all || !slices.Equal(order, before.Order()) {
		r.env.set("ORDER", strings.Join(order, " "))
	}
	for _, s := range r.Slots {
		e := t.Get(s)
		if !all && e.Tries == old[s].Tries && e.Good == old[s].Good && (e.Priority > 0) == (old[s].Priority > 0) {
			continue
		}
		if r.Dialect == RAUC {
			r.env.set(s+"_OK", map[bool]string{true: "1", false: "0"}[e.Priority > 0])
			r.env.set(s+"_TRY", map[bool]string{true: "1", false: "0"}[e.Priority > 0 && e.Tries == 0])
			continue
		}
		left := strconv.Itoa(e.Tries)
		if e.Good {
			left = "g"
		}
		r.env.set(s+"_LEFT", left)
	}
}
