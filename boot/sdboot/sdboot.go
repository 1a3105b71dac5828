// Package sdboot keeps the slot choice in the entries of systemd-boot, by boot counting (systemd, "Automatic
// Boot Assessment", src/boot/efi/boot.c). A slot has one Type #1 entry, a file of the ESP,
//
//	loader/entries/PREFIX-GENERATION-SLOT[+LEFT[-DONE]].conf
//
// made from the template loader/updater/SLOT.conf, with the generation as its version: the highest version
// boots. LEFT are the boots left; the loader counts them down in the name, and takes an entry with none
// last of all. An entry without a counter is good, and its boot writes nothing. The template's linux may be
// a kernel or a unified kernel image.
//
// The loader's renaming is the firmware's FAT driver's and is not atomic: a cut may leave neither name. So
// the known-good entry never has a counter, and an entry that is gone is a slot that does not boot. Our own
// changes are a new file that is written under another name, synced and renamed, and the end of old ones.
//
// EFI variables are not needed. LoaderEntryDefault and the default of loader.conf override the counting; where they
// are set State says so.
package sdboot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"updater/boot"
)

// Dir is the ESP. Names have slashes and no leading one. What was done is durable after Sync.
type Dir interface {
	List() ([]string, error) // the files of loader, loader/entries and loader/updater
	Read(name string) ([]byte, error)
	Write(name string, data []byte) error
	Rename(from, to string) error
	Remove(name string) error
	Sync() error
}

// Options are what the backend needs.
type Options struct {
	Dir    Dir
	Slots  []string
	Prefix string // of our entries, and their sort key; "" is "updater"
	// Default returns the EFI variable LoaderEntryDefault, "" when it is not set; nil where there are none.
	Default func() (string, error)
}

// Backend implements [boot.Backend].
type Backend struct {
	Options
	booted string
}

var _ boot.Backend = (*Backend)(nil)

const (
	maxTries      = 99
	maxGeneration = 999_999_999 // what a file name has room for
)

// New returns the backend. booted is the running slot, "" outside every slot.
func New(o Options, booted string) (*Backend, error) {
	if len(o.Slots) == 0 || booted != "" && !slices.Contains(o.Slots, booted) {
		return nil, fmt.Errorf("%w: running slot %q is not among the slots %v", boot.ErrState, booted, o.Slots)
	}
	if o.Prefix == "" {
		o.Prefix = "updater"
	}
	return &Backend{o, booted}, nil
}

// Selected is the slot of the entry that the loader says it has started (LoaderEntrySelected), "" for
// another. Loaders up to version 257 have the counter in it.
func Selected(o Options, id string) string {
	if o.Prefix == "" {
		o.Prefix = "updater"
	}
	if !strings.HasSuffix(id, ".conf") {
		id += ".conf"
	}
	e, _ := parseName(entriesDir+id, o.Prefix, o.Slots)
	return e.slot
}

// Caps implements [boot.Backend].
func (b *Backend) Caps() boot.Caps { return boot.Caps{MaxTries: maxTries, SwitchAtomic: true} }

// Booted implements [boot.Backend].
func (b *Backend) Booted(context.Context) (string, error) { return b.booted, nil }

// entries lists ours; others are the names of the rest.
func (b *Backend) entries() (own []entry, others []string, err error) {
	names, err := b.Dir.List()
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", boot.ErrState, err)
	}
	for _, name := range names {
		if e, ok := parseName(name, b.Prefix, b.Slots); ok {
			own = append(own, e)
		} else {
			others = append(others, name)
		}
	}
	return own, others, nil
}

// State implements [boot.Backend].
func (b *Backend) State(context.Context) (boot.State, error) {
	own, others, err := b.entries()
	if err != nil {
		return boot.State{}, err
	}
	st := boot.State{Booted: b.booted, Boots: boots(own, 3)}
	st.Next = st.Boots[0]
	order := sorted(own)
	for _, s := range b.Slots {
		state := boot.SlotState{Name: s}
		for i, e := range slices.Backward(order) { // the first one of the slot counts
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
	found, err := b.findings(own, others)
	st.Findings = append(found, boot.Disagreements(st)...)
	return st, err
}

// boots plays the loader n times.
func boots(entries []entry, n int) []string {
	entries = slices.Clone(entries)
	var list []string
	for range n {
		if len(entries) == 0 {
			list = append(list, "")
			continue
		}
		entries = sorted(entries)
		list = append(list, entries[0].slot)
		entries[0] = entries[0].booted()
	}
	return list
}

func (b *Backend) findings(own []entry, others []string) ([]boot.Finding, error) {
	var found []boot.Finding
	for _, s := range b.Slots {
		n := 0
		for _, e := range own {
			if e.slot == s {
				n++
			}
		}
		if n > 1 {
			found = append(found, boot.Warn(boot.RemedyRepair, "slot %s has %d entries; one without a counter defeats the counting of the other", s, n))
		}
		if !slices.Contains(others, templatesDir+s+".conf") {
			found = append(found, boot.Warn("put it on the ESP, see docs/boot/systemd-boot.md", "slot %s has no template %s%s.conf", s, templatesDir, s))
		}
	}
	for _, name := range others {
		if !strings.HasPrefix(name, entriesDir) || !strings.HasSuffix(name, ".conf") {
			continue
		}
		text, err := b.Dir.Read(name)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", boot.ErrState, err)
		}
		if key := field(string(text), "sort-key"); key != "" && key < b.Prefix {
			found = append(found, boot.Warn("give it a later sort-key, or none", "%s has sort-key %s and boots before every slot", name, key))
		}
	}
	if slices.Contains(others, loaderConf) {
		text, err := b.Dir.Read(loaderConf)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", boot.ErrState, err)
		}
		if d := field(string(text), "default"); d != "" {
			found = append(found, boot.Finding{Severity: boot.Failure, Evidence: fmt.Sprintf("%s has default %s, which overrides the counting of tries", loaderConf, d), Remedy: "remove that line"})
		}
	}
	if b.Default == nil {
		return found, nil
	}
	d, err := b.Default()
	if err == nil && d != "" {
		found = append(found, boot.Finding{Severity: boot.Failure, Evidence: fmt.Sprintf("the EFI variable LoaderEntryDefault is %s, which overrides the counting of tries", d), Remedy: "run bootctl set-default ''"})
	}
	return found, err
}

// template is what a slot's entries are made of. It is looked at before anything is changed.
func (b *Backend) template(slot string) (string, error) {
	if err := boot.RefuseUnknown(slot, b.Slots); err != nil {
		return "", err
	}
	name := templatesDir + slot + ".conf"
	text, err := b.Dir.Read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: slot %s has no template %s on the ESP", boot.ErrState, slot, name)
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", boot.ErrState, err)
	}
	if field(string(text), "linux") == "" || field(string(text), "version") != "" || field(string(text), "sort-key") != "" {
		return "", fmt.Errorf("%w: template %s: expected linux, and neither version nor sort-key, which are ours", boot.ErrState, name)
	}
	return string(text), nil
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

// disable removes a slot's entries: one with no tries left would still boot when there is no other.
func (b *Backend) disable(slot string) error {
	if _, err := b.template(slot); err != nil {
		return err
	}
	own, _, err := b.entries()
	if err != nil {
		return err
	}
	usable := func(e entry) bool { return !e.bad() }
	if slices.ContainsFunc(own, usable) && !slices.ContainsFunc(own, func(e entry) bool { return e.slot != slot && usable(e) }) {
		return boot.RefuseLast(slot)
	}
	return b.remove(own, func(e entry) bool { return e.slot == slot })
}

// Activate implements [boot.Backend]. The booted slot, when it is good, stays without a counter.
func (b *Backend) Activate(_ context.Context, slot string, tries int) error {
	if tries < 1 || tries > maxTries {
		return fmt.Errorf("%w: %d tries asked for, expected 1 to %d", boot.ErrRefused, tries, maxTries)
	}
	template, err := b.template(slot)
	if err != nil {
		return err
	}
	own, _, err := b.entries()
	if err != nil {
		return err
	}
	generation := 1
	for _, e := range own {
		generation = max(generation, e.generation+1)
		if slot == b.booted && e.slot == slot && !e.counted {
			tries = 0
		}
	}
	if generation > maxGeneration {
		return fmt.Errorf("%w: generation %d is used up; give the entry of slot %s a name with a small one", boot.ErrState, maxGeneration, b.booted)
	}
	name := fileName(b.Prefix, generation, slot, tries)
	if err := b.create(name, fill(template, b.Prefix, generation)); err != nil {
		return err
	}
	return b.remove(own, func(e entry) bool { return e.slot == slot })
}

// MarkGood implements [boot.Backend]: an entry without a counter is there before the counted one goes.
func (b *Backend) MarkGood(_ context.Context, slot string) error {
	if err := boot.RefuseOthers(slot, b.booted); err != nil {
		return err
	}
	own, _, err := b.entries()
	if err != nil {
		return err
	}
	own = slices.DeleteFunc(sorted(own), func(e entry) bool { return e.slot != slot })
	if len(own) == 1 && !own[0].counted {
		return nil
	}
	template, err := b.template(slot)
	if err != nil {
		return err
	}
	generation := 1
	for _, e := range own {
		generation = max(generation, e.generation)
	}
	name := fileName(b.Prefix, generation, slot, 0)
	if !slices.ContainsFunc(own, func(e entry) bool { return e.name == name }) {
		if err := b.create(name, fill(template, b.Prefix, generation)); err != nil {
			return err
		}
	}
	return b.remove(own, func(e entry) bool { return e.name != name })
}

// Repair implements [boot.Backend]: of several entries of a slot the newest stays; a running slot without any gets one.
func (b *Backend) Repair(ctx context.Context) error {
	own, _, err := b.entries()
	if err != nil {
		return err
	}
	newest := map[string]entry{}
	for _, e := range sorted(own) {
		if old, ok := newest[e.slot]; !ok || e.generation > old.generation {
			newest[e.slot] = e
		}
	}
	if err := b.remove(own, func(e entry) bool { return newest[e.slot].name != e.name }); err != nil {
		return err
	}
	if _, ok := newest[b.booted]; ok || b.booted == "" {
		return nil
	}
	return b.MarkGood(ctx, b.booted)
}

// create makes a file that is whole when it has its name, and reads it back.
func (b *Backend) create(name, text string) error {
	tmp := name + ".new"
	for _, step := range []func() error{
		func() error { return b.Dir.Write(tmp, []byte(text)) },
		b.Dir.Sync,
		func() error { return b.Dir.Rename(tmp, name) },
		b.Dir.Sync,
	} {
		if err := step(); err != nil {
			return fmt.Errorf("%w: making %s: %w", boot.ErrState, name, err)
		}
	}
	got, err := b.Dir.Read(name)
	if err != nil || string(got) != text {
		return errors.Join(fmt.Errorf("%w: %s does not hold what was written", boot.ErrState, name), err)
	}
	return nil
}

// remove ends entries, durably.
func (b *Backend) remove(own []entry, which func(entry) bool) error {
	gone := false
	for _, e := range own {
		if !which(e) {
			continue
		}
		if err := b.Dir.Remove(e.name); err != nil {
			return fmt.Errorf("%w: removing %s: %w", boot.ErrState, e.name, err)
		}
		gone = true
	}
	if !gone {
		return nil
	}
	if err := b.Dir.Sync(); err != nil {
		return fmt.Errorf("%w: %w", boot.ErrState, err)
	}
	return nil
}
