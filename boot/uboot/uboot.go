// Package uboot keeps the slot choice in U-Boot's environment, in one of two dialects.
//
// [RAUC] has the variables of RAUC's U-Boot integration (RAUC manual, "U-Boot"): BOOT_ORDER lists the slots,
// the first whose BOOT_x_LEFT is above 0 boots, and the script takes one off and saves the environment before
// it does. So every boot spends a try, also of a good slot, and mark-good must run on each. With none left
// the usual script refills all.
//
// [Bootcount] has U-Boot's own boot counting (doc/README.bootcount): the variable active names the slot that
// boots; while upgrade_available is 1 U-Boot counts bootcount up, and above bootlimit it runs altbootcmd,
// which goes back to the other slot. A good boot writes nothing. What cannot be said in these variables, that
// the other slot is incomplete, is in updater_bad, for us alone: U-Boot chooses the other slot only while
// upgrade_available is 1, which it never is then.
//
// A redundant environment has two copies with a checksum and a flag each. Only the copy that is not in use
// is written: until that write is whole, the other copy counts. So every change is old-or-new, whatever the
// power does. A single copy has no such promise beyond one sector: a torn write gives U-Boot's built-in
// environment. State says so.
package uboot

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
	RAUC      Dialect = "rauc"
	Bootcount Dialect = "bootcount"
)

// Names are the names of the variables; "" is the usual one.
type Names struct {
	Order     string // BOOT_ORDER
	Left      string // BOOT_{slot}_LEFT
	Active    string // active
	Available string // upgrade_available
	Count     string // bootcount
	Limit     string // bootlimit
	Bad       string // updater_bad
}

// Options are what the backend needs.
type Options struct {
	Areas     []boot.Area // one, or two of a redundant environment, each exactly as big as it
	Flags     Flags       // "" is Incremental
	Slots     []string
	Dialect   Dialect // "" is RAUC
	Names     Names
	GoodTries int // RAUC: tries of a slot that is marked good, at least those of a new one; 0 is 3
}

// maxTries keeps the counter one digit: RAUC reads it in base 16, U-Boot's own bootmeth in base 10.
const maxTries = 9

// New returns the backend. booted is the running slot, "" outside every slot.
func New(o Options, booted string) (*scheme.Backend, error) {
	s, err := newStorage(o.Areas, o.Flags)
	if err != nil {
		return nil, err
	}
	if o.GoodTries == 0 {
		o.GoodTries = 3
	}
	for _, d := range []struct {
		name *string
		is   string
	}{
		{&o.Names.Order, "BOOT_ORDER"}, {&o.Names.Left, "BOOT_{slot}_LEFT"}, {&o.Names.Active, "active"}, {&o.Names.Available, "upgrade_available"},
		{&o.Names.Count, "bootcount"}, {&o.Names.Limit, "bootlimit"}, {&o.Names.Bad, "updater_bad"},
	} {
		if *d.name == "" {
			*d.name = d.is
		}
	}
	switch o.Dialect {
	case "", RAUC:
		if !strings.Contains(o.Names.Left, "{slot}") {
			return nil, fmt.Errorf("%w: the variable of the tries %q is the same for every slot; expected {slot} in it", boot.ErrState, o.Names.Left)
		}
		return scheme.New(&raucStore{s, o}, o.Slots, booted)
	case Bootcount:
		if len(o.Slots) != 2 {
			return nil, fmt.Errorf("%w: %d slots; altbootcmd goes back to the other one, which takes two", boot.ErrState, len(o.Slots))
		}
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
	for name := range strings.FieldsSeq(l.env.get(s.Names.Order)) {
		if !slices.Contains(s.Slots, name) {
			found = append(found, boot.Warn("add the slot to the configuration or take it out of "+s.Names.Order, "%s has %q, which is no configured slot", s.Names.Order, name))
		}
	}
	return &raucRecord{l, s}, found, nil
}

// Repair implements [scheme.Store].
func (s *storage) Repair(string) error {
	l, err := s.load()
	if err != nil {
		return err
	}
	return l.repair()
}

type raucRecord struct {
	*loaded
	*raucStore
}

func (s *raucStore) leftName(slot string) string {
	return strings.ReplaceAll(s.Names.Left, "{slot}", slot)
}

// Entry implements [scheme.Record]. A counter that is no number counts as none, as in U-Boot's test.
func (r *raucRecord) Entry(slot string) scheme.Entry {
	var e scheme.Entry
	order := strings.Fields(r.env.get(r.Names.Order))
	if i := slices.Index(order, slot); i >= 0 {
		e.Priority = len(order) - i
	}
	if n, err := strconv.ParseUint(r.env.get(r.leftName(slot)), 16, 16); err == nil {
		e.Tries = int(n)
	}
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
		if now, old := t.Get(slot), before.Get(slot); now.Tries != old.Tries || (now.Priority > 0) != (old.Priority > 0) {
			e.set(r.leftName(slot), strconv.Itoa(now.Tries))
		}
	}
	if e.equal(r.env) {
		return nil
	}
	return r.save(e)
}
