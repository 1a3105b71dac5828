// Package uboot keeps the slot choice in U-Boot's environment, in one of two dialects.
//
// [RAUC] uses the variables of RAUC's U-Boot integration (RAUC manual, "U-Boot"). BOOT_ORDER lists the slots. The first slot
// with BOOT_x_LEFT above 0 boots; the script decrements the counter and saves the environment first. Every boot spends a
// try, even of a good slot, so mark-good must run after each boot. If no slot has tries left, the usual script refills all.
//
// [Bootcount] uses U-Boot's boot counting (doc/README.bootcount). The variable active names the slot that boots. While
// upgrade_available is 1, U-Boot increments bootcount; above bootlimit it runs altbootcmd, which goes back to the other
// slot. A boot of a good slot writes nothing. The variable updater_bad, which U-Boot does not read, marks the other slot as
// incomplete; upgrade_available is then never 1, so U-Boot does not choose that slot.
//
// A redundant environment has two copies, each with a checksum and a flag. Only the copy that is not in use is written, and
// it is not used before it is complete, so every change is atomic. Invalidate writes one copy after the other, so that the
// loss of one does not make the slot bootable again. A single copy is only atomic within one sector; after a torn write
// U-Boot uses its built-in environment. State reports this.
//
// The environment is read as U-Boot reads it (lib/hashtable.c, himport_r): of repeated entries the last counts. A variable
// that U-Boot and libubootenv read differently is refused.
package uboot

import (
	"cmp"
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
	RAUC      Dialect = "rauc"
	Bootcount Dialect = "bootcount"
)

// Names are the names of the variables; "" means the default.
type Names struct {
	Order     string // BOOT_ORDER
	Left      string // BOOT_{slot}_LEFT
	Active    string // active
	Available string // upgrade_available
	Count     string // bootcount
	Limit     string // bootlimit
	Bad       string // updater_bad
}

func (n Names) withDefaults() Names {
	return Names{
		Order:     cmp.Or(n.Order, "BOOT_ORDER"),
		Left:      cmp.Or(n.Left, "BOOT_{slot}_LEFT"),
		Active:    cmp.Or(n.Active, "active"),
		Available: cmp.Or(n.Available, "upgrade_available"),
		Count:     cmp.Or(n.Count, "bootcount"),
		Limit:     cmp.Or(n.Limit, "bootlimit"),
		Bad:       cmp.Or(n.Bad, "updater_bad"),
	}
}

// Options configure the backend.
type Options struct {
	Areas     []boot.Area // one, or two of a redundant environment, each of the exact size of the environment
	Flags     Flags       // "" means Incremental
	Slots     []string
	Dialect   Dialect // "" means RAUC
	Names     Names
	GoodTries int // RAUC: tries of a slot that is marked good, not less than those of a new one; 0 means 3
}

// maxTries keeps the counter at one digit, which has the same value in base 16 (RAUC) and base 10 (U-Boot's bootmeth_rauc).
const maxTries = 9

// New returns the backend on o. booted is the running slot, "" outside every slot.
func New(o Options, booted string) (*scheme.Backend, error) {
	s, err := newStorage(o.Areas, o.Flags)
	if err != nil {
		return nil, err
	}
	if o.GoodTries == 0 {
		o.GoodTries = 3
	}
	o.Names = o.Names.withDefaults()
	switch o.Dialect {
	case "", RAUC:
		if !strings.Contains(o.Names.Left, "{slot}") {
			return nil, fmt.Errorf("%w: the variable %q for tries is the same for every slot; expected {slot} in its name", boot.ErrState, o.Names.Left)
		}
		r := &raucStore{s, o}
		s.own = []string{o.Names.Order}
		for _, slot := range o.Slots {
			s.own = append(s.own, r.leftName(slot))
		}
		return scheme.New(r, o.Slots, booted)
	case Bootcount:
		if len(o.Slots) != 2 {
			return nil, fmt.Errorf("%w: %d slots configured; the dialect bootcount needs 2, since altbootcmd goes back to the other one",
				boot.ErrState, len(o.Slots))
		}
		s.own = []string{o.Names.Active, o.Names.Available, o.Names.Count, o.Names.Limit, o.Names.Bad}
		return scheme.New(&countStore{s, o}, o.Slots, booted)
	}
	return nil, fmt.Errorf("%w: U-Boot dialect %q, expected rauc or bootcount", boot.ErrState, o.Dialect)
}

// raucStore is the RAUC dialect.
type raucStore struct {
	*storage
	Options
}

// Rules implements [scheme.Store].
func (s *raucStore) Rules() scheme.Rules {
	return scheme.Rules{MaxTries: maxTries, GoodTries: s.GoodTries, CountsGood: true, Refill: 3, SwitchAtomic: s.redundant()}
}

// Load implements [scheme.Store].
func (s *raucStore) Load() (scheme.Record, []boot.Finding, error) {
	l, err := s.load()
	if err != nil {
		return nil, nil, err
	}
	found := l.findings()
	for _, name := range s.own {
		if l.env.get(name) == "" {
			found = append(found, boot.Warn("run updater mark good in the running slot", "%s is not set: the default of the boot script counts", name))
		}
	}
	for name := range strings.FieldsSeq(l.env.get(s.Names.Order)) {
		if !slices.Contains(s.Slots, name) {
			found = append(found, boot.Warn("add the slot to the configuration or remove it from "+s.Names.Order,
				"%s lists %q, which is not a configured slot", s.Names.Order, name))
		}
	}
	for _, slot := range s.Slots {
		name := s.leftName(slot)
		value := l.env.get(name)
		switch _, hex, dec := tries(value); {
		case hex == dec:
		case min(hex, dec) == 0:
			return nil, nil, fmt.Errorf("%w: the environment %s has %s=%s, which boot scripts read as %d or as %d; expected a single digit",
				boot.ErrState, l.areas[l.active], name, value, hex, dec)
		default:
			found = append(found, boot.Warn("run updater mark good in slot "+slot, "%s is %s; expected a single digit", name, value))
		}
	}
	return &raucRecord{l, s}, found, nil
}

// Repair implements [scheme.Store]. It refuses what Load refuses.
func (s *raucStore) Repair(booted string) error {
	if _, _, err := s.Load(); err != nil {
		return err
	}
	return s.storage.Repair(booted)
}

// Repair implements [scheme.Store].
func (s *storage) Repair(string) error {
	l, err := s.load()
	if err != nil {
		return err
	}
	return l.repair()
}

// Settle implements [scheme.Settler].
func (s *raucStore) Settle(changed func(scheme.Record) bool) error {
	return s.settle(func(l *loaded) bool { return changed(&raucRecord{l, s}) })
}

type raucRecord struct {
	*loaded
	*raucStore
}

func (s *raucStore) leftName(slot string) string {
	return strings.ReplaceAll(s.Names.Left, "{slot}", slot)
}

// tries reads a counter as U-Boot does in base 16 and in base 10 (lib/strto.c, simple_strtoul): digits up to the first other
// character. Scripts use either base, for test and for setexpr. n is the smaller one.
func tries(value string) (n, hex, dec int) {
	hex, dec = leading(strings.TrimPrefix(value, "0x"), 16), leading(value, 10)
	return min(hex, dec), hex, dec
}

// leading returns the number at the beginning of s, at most 65535, or 0.
func leading(s string, base int) int {
	end := 0
	for end < len(s) && end < 4 {
		if _, err := strconv.ParseUint(s[end:end+1], base, 8); err != nil {
			break
		}
		end++
	}
	n, _ := strconv.ParseUint(s[:end], base, 16)
	return int(n)
}

// Entry implements [scheme.Record].
func (r *raucRecord) Entry(slot string) scheme.Entry {
	var e scheme.Entry
	order := strings.Fields(r.env.get(r.Names.Order))
	if i := slices.Index(order, slot); i >= 0 {
		e.Priority = len(order) - i
	}
	e.Tries, _, _ = tries(r.env.get(r.leftName(slot)))
	e.Good = e.Tries >= r.GoodTries
	return e
}

// Save implements [scheme.Record].
func (r *raucRecord) Save(t *scheme.Table) error {
	e := r.env.clone()
	before := scheme.NewTable(r.Rules(), r.Slots, r.Entry)
	if order := t.Order(); !slices.Equal(order, before.Order()) {
		e.set(r.Names.Order, strings.Join(order, " "))
	}
	for _, slot := range r.Slots {
		now, old := t.Get(slot), before.Get(slot)
		byDefault := now.Priority == 0 && e.get(r.leftName(slot)) == "" // a script may give it tries
		if now.Tries != old.Tries || byDefault {
			e.set(r.leftName(slot), strconv.Itoa(now.Tries))
		}
	}
	return r.change(e)
}
