package uboot

import (
	"slices"
	"strconv"
	"strings"

	"updater/boot"
	"updater/boot/scheme"
)

// countStore is the bootcount dialect.
type countStore struct {
	*storage
	Options
}

// Rules implements [scheme.Store].
func (s *countStore) Rules() scheme.Rules {
	return scheme.Rules{MaxTries: maxTries, SwitchAtomic: s.redundant()}
}

// Load implements [scheme.Store].
func (s *countStore) Load() (scheme.Record, []boot.Finding, error) {
	l, err := s.load()
	if err != nil {
		return nil, nil, err
	}
	r := &countRecord{l, s}
	found := l.findings()
	if active := l.env.get(s.Names.Active); !slices.Contains(s.Slots, active) {
		found = append(found, boot.Fail("run updater mark good in the running slot, or activate a slot",
			"%s is %q, which is not a configured slot", s.Names.Active, active))
	}
	if l.env.get("altbootcmd") == "" {
		found = append(found, boot.Fail("set it as in docs/boot/uboot.md", "altbootcmd is not set: U-Boot never falls back from a slot that fails"))
	}
	if r.trying() && r.number(s.Names.Limit) == 0 {
		found = append(found, boot.Fail("activate the slot again", "%s is not set while %s is: U-Boot never falls back from slot %s",
			s.Names.Limit, s.Names.Available, l.env.get(s.Names.Active)))
	}
	return r, found, nil
}

// Settle implements [scheme.Settler].
func (s *countStore) Settle(changed func(scheme.Record) bool) error {
	return s.settle(func(l *loaded) bool { return changed(&countRecord{l, s}) })
}

type countRecord struct {
	*loaded
	*countStore
}

// number reads a variable as U-Boot does (env/common.c, env_get_ulong).
func (r *countRecord) number(name string) int { return leading(r.env.get(name), 10) }

// trying reports whether U-Boot counts the boots of the active slot (drivers/bootcount/bootcount_env.c).
func (r *countRecord) trying() bool { return r.number(r.Names.Available) != 0 }

// left returns the boots of the active slot before U-Boot runs altbootcmd. A limit of 0 is no limit (common/autoboot.c).
func (r *countRecord) left() int {
	limit := r.number(r.Names.Limit)
	if limit == 0 {
		return unlimited
	}
	return max(0, limit-r.number(r.Names.Count))
}

// unlimited is more than the tries of any slot.
const unlimited = 1 << 16

// Entry implements [scheme.Record]: the active slot comes first; the other slot is the one to which altbootcmd goes back,
// unless it is bad. U-Boot boots a bad slot that is active, too, as long as it has tries or is not counted.
func (r *countRecord) Entry(slot string) scheme.Entry {
	switch bad := slices.Contains(strings.Fields(r.env.get(r.Names.Bad)), slot); {
	case bad && (slot != r.env.get(r.Names.Active) || r.trying() && r.left() == 0):
		return scheme.Entry{}
	case slot != r.env.get(r.Names.Active):
		return scheme.Entry{Priority: 1, Good: true}
	case r.trying():
		return scheme.Entry{Priority: 2, Tries: r.left()}
	}
	return scheme.Entry{Priority: 2, Good: true}
}

// Save implements [scheme.Record].
func (r *countRecord) Save(t *scheme.Table) error {
	old := scheme.NewTable(r.Rules(), r.Slots, r.Entry)
	same := true
	for _, s := range r.Slots {
		same = same && old.Get(s) == t.Get(s)
	}
	if same {
		return nil
	}
	e, order := r.env.clone(), t.Order()
	bad := slices.DeleteFunc(slices.Clone(r.Slots), func(s string) bool { return t.Get(s).Priority > 0 })
	e.set(r.Names.Bad, strings.Join(bad, " "))
	if len(order) > 0 {
		first := t.Get(order[0])
		// Without an intact slot to go back to, boots are not counted: altbootcmd would boot the other slot.
		counted := !first.Good && len(order) > 1
		e.set(r.Names.Active, order[0])
		switch {
		case !counted:
			e.set(r.Names.Count, "0")
		case first != old.Get(order[0]):
			limit := max(r.number(r.Names.Limit), first.Tries, 1)
			if order[0] != r.env.get(r.Names.Active) {
				limit = max(first.Tries, 1)
			}
			e.set(r.Names.Limit, strconv.Itoa(limit))
			e.set(r.Names.Count, strconv.Itoa(limit-first.Tries))
		}
		available := "0"
		if counted {
			available = "1"
		}
		e.set(r.Names.Available, available)
	}
	return r.change(e)
}
