package sdboot

import (
	"context"
	"slices"
	"strconv"

	"updater/boot"
)

// State implements [boot.Backend].
func (b *Backend) State(context.Context) (boot.State, error) {
	f, err := b.files()
	if err != nil {
		return boot.State{}, err
	}
	st := boot.State{Booted: b.booted, Boots: boots(f.own, 3)}
	st.Next = st.Boots[0]
	order := sorted(f.own)
	for _, s := range b.Slots {
		state := boot.SlotState{Name: s}
		for i, e := range slices.Backward(order) { // the first entry of the slot overwrites the others
			if e.slot == s {
				state.Bootable, state.Good = !e.bad(), !e.counted
				state.Priority = len(order) - i
				state.TriesLeft = e.left
				if !e.counted {
					state.TriesLeft = -1
				}
			}
		}
		st.Slots = append(st.Slots, state)
	}
	found, err := b.findings(f)
	st.Findings = append(found, boot.Disagreements(st)...)
	return st, err
}

// boots simulates n boots. Each of them counts down by renaming the entry (boot.c, config_entry_bump_counters).
func boots(entries []entry, n int) []string {
	list := make([]string, n)
	for i := range list {
		if entries = sorted(entries); len(entries) > 0 {
			list[i], entries[0].left = entries[0].slot, max(entries[0].left-1, 0)
		}
	}
	return list
}

const readPage = "see docs/boot/systemd-boot.md"

func (b *Backend) findings(f files) ([]boot.Finding, error) {
	var found []boot.Finding
	for _, s := range b.Slots {
		n := 0
		for _, e := range f.own {
			if e.slot == s {
				n++
			}
		}
		if n > 1 {
			found = append(found, boot.Warn(boot.RemedyRepair, "slot %s has %d entries; an entry without a counter defeats the counter of another", s, n))
		}
		if name := f.template(s); !slices.Contains(f.others, name) {
			found = append(found, boot.Warn("copy it to the ESP, "+readPage, "slot %s has no template %s", s, name))
		}
	}
	key := b.Prefix
	if f.kind == type1 {
		found = append(found, b.edited(f)...)
	} else {
		images, first, err := b.images(f)
		if err != nil {
			return nil, err
		}
		found, key = append(found, images...), first
	}
	earlier, err := b.earlier(f, key)
	if err != nil {
		return nil, err
	}
	found = append(found, earlier...)
	overrides, err := b.overrides(f)
	return append(found, overrides...), err
}

// edited reports Type #1 entries that the boot loader ignores or does not order by generation.
func (b *Backend) edited(f files) []boot.Finding {
	var found []boot.Finding
	for _, e := range f.own {
		again := "activate slot " + e.slot + " again"
		switch {
		case e.dead():
			found = append(found, boot.Fail(again, "the boot loader ignores the entry %s: %v", e.name, e.fault))
		case e.order.key != b.Prefix || e.order.version != strconv.Itoa(e.generation):
			found = append(found, boot.Warn(again,
				"the entry %s has sort-key %q and version %q; expected %s and %d, so that the generation decides which one boots",
				e.name, e.order.key, e.order.version, b.Prefix, e.generation))
		}
	}
	return found
}

// images checks the images of the slots, both entries and templates. key is their sort key.
func (b *Backend) images(f files) (found []boot.Finding, key string, err error) {
	fail := func(remedy, format string, a ...any) {
		found = append(found, boot.Fail(remedy, format, a...))
	}
	var all []template
	for _, e := range f.own {
		switch again := "activate slot " + e.slot + " again"; {
		case e.dead():
			fail(again, "the boot loader ignores the entry: %v", e.fault)
			continue
		case e.fault != nil:
			fail(again, "the entry does not start: %v", e.fault)
		}
		all = append(all, template{name: e.name, order: e.order})
	}
	for _, s := range b.Slots {
		name := f.template(s)
		if !slices.Contains(f.others, name) {
			continue
		}
		t, fault, err := b.image(name)
		if err != nil {
			return nil, "", err
		}
		if fault != nil {
			fail("replace it, "+readPage, "the boot loader would not start the template: %v", fault)
			continue
		}
		all = append(all, t)
	}
	for _, t := range all {
		if err := ordered(t, []entry{{name: all[0].name, order: all[0].order}}); err != nil {
			fail("build the images of all slots with the same IMAGE_ID or ID and without a version in .osrel, "+readPage, "%v", err)
		}
	}
	if len(all) > 0 {
		key = all[0].order.key
	}
	return found, key, nil
}

// earlier reports foreign entries that the boot loader orders before or among the slots.
func (b *Backend) earlier(f files, key string) ([]boot.Finding, error) {
	var found []boot.Finding
	for _, name := range f.others {
		other := ""
		switch {
		case isEntry(type1, name):
			text, err := b.text(name)
			if err != nil {
				return nil, err
			}
			if order, fault := conf(text); fault == nil {
				other = order.key
			}
		case isEntry(uki, name):
			t, _, err := b.image(name)
			if err != nil {
				return nil, err
			}
			other = t.order.key
		}
		const remedy = "give it a later sort-key, or none"
		switch {
		case other == "":
		case other < key:
			found = append(found, boot.Warn(remedy, "%s has sort-key %s and boots before every slot", name, other))
		case other == key:
			found = append(found, boot.Warn(remedy, "%s has the sort-key of the slots, %s: its version decides whether it boots before them", name, key))
		}
	}
	return found, nil
}

func isEntry(k kind, name string) bool {
	_, ok := k.list(name)
	return ok
}

// overrides reports settings that take precedence over the order of the entries.
func (b *Backend) overrides(f files) ([]boot.Finding, error) {
	var found []boot.Finding
	if slices.Contains(f.others, loaderConf) {
		text, err := b.text(loaderConf)
		if err != nil {
			return nil, err
		}
		if d := field(text, "default"); d != "" {
			found = append(found, boot.Fail("remove that line", "%s has default %s, which overrides boot counting", loaderConf, d))
		}
	}
	if b.Default == nil {
		return found, nil
	}
	d, err := b.Default()
	if d != "" {
		found = append(found, boot.Fail("run bootctl set-default ''", "the EFI variable LoaderEntryDefault is %s, which overrides boot counting", d))
	}
	return found, err
}
