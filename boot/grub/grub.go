// Package grub keeps the slot choice in a GRUB environment block, in one of two dialects.
//
// [RAUC] uses the variables of RAUC's GRUB integration (RAUC manual, "GRUB"). ORDER lists the slots. The first slot with
// x_OK=1 and x_TRY=0 boots; the script sets x_TRY=1 first. Every boot spends the only try, so mark-good must run after each
// boot. [Tries] uses ORDER and x_LEFT, which is a digit, or "g" for a good slot, which is not counted. Its script is
// examples/boot/grub/tries.cfg; a boot of a good slot writes nothing.
//
// The block has a fixed size and no checksum. It is changed in place and never truncated: GRUB writes through the block list
// of the file and does not replay a journal (grub-core/commands/loadenv.c), so it would not see a new file. Only 512-byte
// sectors that differ are written, and the variables are kept in the first sector if they fit, which makes a change atomic.
// If other variables take up more than one sector, it is not, and State reports that.
//
// The block is read as load_env reads it. A variable that save_env would change in another place is refused.
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

// defaultSize is the size in bytes of a block that grub-editenv creates.
const defaultSize = 1024

// Options configure the backend.
type Options struct {
	Area    boot.Area // the block; nil if its file is missing or empty
	Slots   []string
	Dialect Dialect // "" means RAUC
	// Create creates the file with data, durably and visibly for GRUB (rename, fsync of the directory, syncfs). Repair calls
	// it if Area is nil. It may be nil.
	Create func(data []byte) error
	Name   string // name of the file in errors if Area is nil
}

// New returns the backend on o. booted is the running slot, "" outside every slot.
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

// own lists the variables that the script reads.
func (s *store) own() []string {
	names := []string{"ORDER"}
	for _, slot := range s.Slots {
		if s.Dialect == Tries {
			names = append(names, slot+"_LEFT")
			continue
		}
		names = append(names, slot+"_OK", slot+"_TRY")
	}
	return names
}

// load reads the block.
func (s *store) load() (*record, error) {
	if s.Area == nil {
		return nil, fmt.Errorf("%w: environment block %s is missing or empty; %s", boot.ErrState, s.Name, boot.RemedyRepair)
	}
	if s.Area.Size() > maxBlock {
		return nil, fmt.Errorf("%w: environment block %s has %d bytes, expected at most %d", boot.ErrState, s.Area, s.Area.Size(), maxBlock)
	}
	r := &record{store: s}
	if r.raw, r.bad = boot.ReadSectors(s.Area); len(r.bad) > 0 {
		// A sector behind the beginning of the padding is padding, too.
		readable := string(r.raw[:r.bad[0]])
		if text := strings.TrimRight(readable, "#"); text == readable || !strings.HasSuffix(text, "\n") {
			return nil, fmt.Errorf("%w: environment block %s cannot be read at %d; %s", boot.ErrState, s.Area, r.bad[0], boot.RemedyRepair)
		}
		copy(r.raw[r.bad[0]:], strings.Repeat("#", len(r.raw)))
	}
	var err error
	if r.env, err = parseBlock(r.raw); err != nil {
		return nil, fmt.Errorf("%w: environment block %s %w; %s", boot.ErrState, s.Area, err, boot.RemedyRepair)
	}
	return r, nil
}

// Load implements [scheme.Store].
func (s *store) Load() (scheme.Record, []boot.Finding, error) {
	r, err := s.load()
	if err != nil {
		return nil, nil, err
	}
	if err := r.check(); err != nil {
		return nil, nil, fmt.Errorf("%w: environment block %s %w; %s", boot.ErrState, s.Area, err, boot.RemedyRepair)
	}
	return r, r.findings(), nil
}

// Repair implements [scheme.Store]. It rewrites sectors that cannot be read, and keeps only that line of a repeated
// variable which GRUB loads. A block that cannot be understood is rebuilt with the running slot good and all others
// unbootable.
func (s *store) Repair(booted string) error {
	r, err := s.load()
	if err == nil {
		if err = r.check(); err == nil || r.dedupe() {
			return r.write()
		}
		err = fmt.Errorf("%w: environment block %s %w", boot.ErrState, s.Area, err)
	}
	switch {
	case s.Area != nil && s.Area.Size() > maxBlock: // another file
		return err
	case booted == "":
		return fmt.Errorf("%w; it can only be rebuilt around a slot that works: name it with --booted", err)
	}
	if r == nil {
		r = &record{store: s, env: &block{size: defaultSize}}
		if s.Area != nil {
			r.env.size = int(s.Area.Size())
		}
	}
	for _, name := range s.own() {
		r.env.remove(name)
	}
	r.set(scheme.NewTable(s.Rules(), s.Slots, func(slot string) scheme.Entry {
		if slot == booted {
			return scheme.Entry{Priority: 1, Good: true, Tries: s.Rules().GoodTries}
		}
		return scheme.Entry{}
	}), true)
	return r.write()
}

// record is a loaded block.
type record struct {
	*store
	raw []byte  // nil for a new block
	bad []int64 // offsets of sectors that cannot be read, all in the padding
	env *block
}

// check refuses variables that GRUB loads and saves differently, and values that scripts compare differently.
func (r *record) check() error {
	for _, name := range r.own() {
		if err := r.env.check(name); err != nil {
			return err
		}
		value := r.env.get(name)
		if r.Dialect == RAUC && name != "ORDER" && value != "" && value != "0" && value != "1" {
			return fmt.Errorf("has %.20q in %s, expected 0 or 1", value, name)
		}
	}
	return nil
}

// dedupe keeps only that line of each repeated variable which GRUB loads. It reports whether the block is then unambiguous.
func (r *record) dedupe() bool {
	for _, name := range r.own() {
		if r.env.loaded(name) < 0 || r.env.check(name) == nil {
			continue
		}
		value := r.env.get(name)
		r.env.remove(name)
		r.env.set(name, value)
	}
	return r.check() == nil
}

// write writes the block and reads it back. Sectors that could not be read are written as well.
func (r *record) write() error {
	data, err := r.env.encode()
	switch {
	case err != nil:
		return err
	case r.Area == nil:
		return r.create(data)
	case r.raw == nil || len(r.bad) > 0:
		return boot.WriteVerified(r.Area, data, 0)
	}
	return boot.WriteChanged(r.Area, r.raw, data)
}

func (r *record) create(data []byte) error {
	if r.Create == nil {
		return fmt.Errorf("%w: environment block %s is missing; create it with grub-editenv create", boot.ErrState, r.Name)
	}
	if err := r.Create(data); err != nil {
		return fmt.Errorf("%w: creating %s: %w", boot.ErrState, r.Name, err)
	}
	return nil
}

func (r *record) findings() []boot.Finding {
	var found []boot.Finding
	if len(r.bad) > 0 {
		found = append(found, boot.Fail(boot.RemedyRepair,
			"environment block %s cannot be read at %d, in its padding: GRUB loads no variable until it is rewritten", r.Area, r.bad[0]))
	}
	if used := r.env.used(); used > boot.Sector {
		found = append(found, boot.Warn("remove variables that are not needed",
			"environment block %s holds %d bytes of variables, more than a sector of %d: a power cut can tear a change",
			r.Area, used, boot.Sector))
	}
	if other, variable := r.otherDialect(); other != "" {
		found = append(found, boot.Warn(fmt.Sprintf("set dialect = %q in the table boot of the configuration, if GRUB's script is that one", other),
			"environment block %s has %s and no variable of the dialect %s", r.Area, variable, r.Dialect))
	}
	order := fields(r.env.get("ORDER"))
	if r.env.loaded("ORDER") < 0 {
		found = append(found, boot.Warn("run updater mark good in the running slot", "ORDER is not set: the default of GRUB's script counts"))
	}
	for _, s := range r.Slots {
		switch ok := r.env.get(s + "_OK"); {
		case r.Dialect != RAUC:
		case ok == "1" && !slices.Contains(order, s):
			found = append(found, boot.Warn("activate the slot or mark it bad", "slot %s has %s_OK=1, but is not in ORDER", s, s))
		case r.env.loaded(s+"_OK") < 0 && slices.Contains(order, s):
			found = append(found, boot.Warn("activate the slot or mark it bad", "slot %s is in ORDER, and %s_OK is not set", s, s))
		}
	}
	return append(found, unknown("ORDER", order, r.Slots)...)
}

// otherDialect returns the other dialect and a variable of it, if the block has variables of that dialect only; else "".
func (r *record) otherDialect() (other Dialect, variable string) {
	own := []string{"_LEFT"}
	foreign := []string{"_OK", "_TRY"}
	other = RAUC
	if r.Dialect == RAUC {
		own, foreign, other = foreign, own, Tries
	}
	for _, s := range r.Slots {
		for _, suffix := range own {
			if r.env.get(s+suffix) != "" {
				return "", ""
			}
		}
		for _, suffix := range foreign {
			if variable == "" && r.env.get(s+suffix) != "" {
				variable = s + suffix
			}
		}
	}
	if variable == "" {
		return "", ""
	}
	return other, variable
}

// fields splits a value as GRUB's scripts do (grub-core/script/argv.c).
func fields(value string) []string {
	return strings.FieldsFunc(value, func(r rune) bool { return r == ' ' || r == '\t' || r == '\n' || r == '\r' })
}

// unknown reports names in an order that are not configured slots.
func unknown(name string, order, slots []string) []boot.Finding {
	var found []boot.Finding
	for _, s := range order {
		if !slices.Contains(slots, s) {
			found = append(found, boot.Warn("add the slot to the configuration or remove it from "+name,
				"%s lists %q, which is not a configured slot", name, s))
		}
	}
	return found
}

// Entry implements [scheme.Record].
func (r *record) Entry(slot string) scheme.Entry {
	var e scheme.Entry
	order := fields(r.env.get("ORDER"))
	if i := slices.Index(order, slot); i >= 0 {
		e.Priority = len(order) - i
	}
	if r.Dialect == RAUC {
		switch {
		case r.env.get(slot+"_OK") != "1":
			e.Priority = 0 // the script restores the try of such a slot in vain
		case r.env.get(slot+"_TRY") == "0":
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
	old := slices.Clone(r.env.lines)
	r.set(t, false)
	if slices.Equal(old, r.env.lines) {
		return nil
	}
	return r.write()
}

// set sets the variables of slots whose entry differs, or of all slots.
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
		mark := s + "_OK"
		if r.Dialect == Tries {
			mark = s + "_LEFT"
		}
		byDefault := e.Priority == 0 && r.env.loaded(mark) < 0 // a script may take the slot for bootable
		if !all && !byDefault && e.Tries == old[s].Tries && e.Good == old[s].Good && (e.Priority > 0) == (old[s].Priority > 0) {
			continue
		}
		if r.Dialect == RAUC {
			r.env.set(s+"_OK", digit(e.Priority > 0))
			r.env.set(s+"_TRY", digit(e.Priority > 0 && e.Tries == 0))
			continue
		}
		left := strconv.Itoa(e.Tries)
		if e.Good {
			left = "g"
		}
		r.env.set(s+"_LEFT", left)
	}
}

func digit(on bool) string {
	if on {
		return "1"
	}
	return "0"
}
