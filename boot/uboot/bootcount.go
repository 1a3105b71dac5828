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
		found = append(found, boot.Fail("run updater mark good on the running slot, or activate one", "%s is %q, which is no configured slot", s.Names.Active, active))
	}
	if l.env.get("altbootcmd") == "" {
		found = append(found, boot.Fail("set it as docs/boot/uboot.md has it", "altbootcmd is not set: a slot that fails is tried for ever"))
	}
	return r, found, nil
}

type countRecord struct {
	*loaded
	*countStore
}

func (r *countRecord) number(name string) int {
	n, err := strconv.ParseUint(r.env.get(name), 10, 16)
	if err != nil {
		return 0
	}
	return int(n)
}

// trying says whether U-Boot counts the boots of the active slot. Any number but 0 counts, as in
// drivers/bootcount/bootcount_env.c.
func (r *countRecord) trying() bool { return r.number(r.Names.Available) != 0 }

// Entry implements [scheme.Record]: the active slot comes first; the other one, unless it is bad, is what
// altbootcmd goes back to.
func (r *countRecord) Entry(slot string) scheme.Entry {
	switch bad := slices.Contains(strings.Fields(r.env.get(r.Names.Bad)), slot); {
	case slot != r.env.get(r.Names.Active) && bad:
		return scheme.Entry{}
	case slot != r.env.get(r.Names.Active):
		return scheme.Entry{Priority: 1, Good: true}
	case r.trying():
		return scheme.Entry{Priority: 2, Tries: max(0, r.number(r.Names.Limit)-r.number(r.Names.Count))}
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
	if list := strings.Join(bad, " "); list != e.get(r.Names.Bad) {
		e.set(r.Names.Bad, list)
	}
	if len(order) > 0 {
		first := t.Get(order[0])
		// With nothing whole to go back to, the boots are not counted: altbootcmd would boot the other slot.
		counted := !first.Good && len(order) > 1
		e.set(r.Names.Active, order[0])
		if counted && (first != old.Get(order[0])) {
			e.set(r.Names.Limit, strconv.Itoa(first.Tries))
		}
		if !counted || first != old.Get(order[0]) {
			e.set(r.Names.Count, "0")
		}
		e.set(r.Names.Available, map[bool]string{true: "1", false: "0"}[counted])
	}
	if e.equal(r.env) {
		return nil
	}
	return r.save(e)
}
