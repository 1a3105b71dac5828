// Package sdboot keeps the slot choice in the entries of systemd-boot, by boot counting (systemd, "Automatic
// Boot Assessment", src/boot/efi/boot.c). A slot has one entry, a file of the ESP, made from a template:
//
//	loader/entries/PREFIX-GENERATION-SLOT[+LEFT[-DONE]].conf   from loader/updater/SLOT.conf, or
//	EFI/Linux/PREFIX-GENERATION-SLOT[+LEFT[-DONE]].efi         from EFI/updater/SLOT.efi
//
// The first is a Type #1 entry, with the generation as its version. The second is a copy of a unified kernel image
// (Type #2): the loader orders those by what their section .osrel says, and then by the file name. So the sort key and the
// version in .osrel must be the same in every slot, best without a version, and the generation in the name decides. All
// slots of a device have the same kind of template.
//
// The highest generation boots. LEFT are the boots left; the loader counts them down in the name, and takes an
// entry with none last of all. An entry without a counter is good, and its boot writes nothing. The linux of a
// template for Type #1 may be a kernel or a unified kernel image.
//
// The loader's renaming is the firmware's FAT driver's and is not atomic: a cut may leave neither name. So
// the known-good entry never has a counter, and an entry that is gone is a slot that does not boot. Our own
// changes are a new file that is written under another name, synced and renamed, and the end of old ones.
//
// EFI variables are not needed. LoaderEntryDefault and the default of loader.conf override the counting; where they
// are set State says so.
package sdboot

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"updater/boot"
)

// Dir is the ESP. Names have slashes and no leading one. What was done is durable after Sync.
type Dir interface {
	List() ([]string, error) // the files of loader, and of the folders of entries and templates
	// Open opens a file as the medium holds it. The error of one that is not there wraps fs.ErrNotExist.
	Open(name string) (File, error)
	Write(name string, r io.Reader) error
	Rename(from, to string) error
	Remove(name string) error
	Sync() error
	Free() (int64, error) // bytes that new files may take
}

// File is an open file of the ESP.
type File = interface {
	io.ReadSeekCloser
	io.ReaderAt
}

// Options are what the backend needs.
type Options struct {
	Dir    Dir
	Slots  []string
	Prefix string // of our entries, and the sort key of those of Type #1; "" is "updater"
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
	for i, s := range o.Slots {
		if slices.ContainsFunc(o.Slots[:i], func(other string) bool { return strings.EqualFold(s, other) }) {
			return nil, fmt.Errorf("%w: the slots %v differ in upper and lower case alone, which FAT and the loader do not tell apart", boot.ErrState, o.Slots)
		}
	}
	if o.Prefix == "" {
		o.Prefix = "updater"
	}
	return &Backend{o, booted}, nil
}

// Selected is the slot of the entry that the loader says it has started (LoaderEntrySelected), "" for
// another. The loader says it in lower case; up to version 257 the counter is in it.
func Selected(o Options, id string) string {
	if o.Prefix == "" {
		o.Prefix = "updater"
	}
	image, _, profile := strings.Cut(id, uki.ext+"@")
	if profile {
		id = image
	}
	m := entryName.FindStringSubmatch(strings.TrimSuffix(strings.TrimSuffix(id, type1.ext), uki.ext))
	if m == nil || !strings.EqualFold(m[1], o.Prefix) {
		return ""
	}
	if i := slices.IndexFunc(o.Slots, func(s string) bool { return strings.EqualFold(s, m[3]) }); i >= 0 {
		return o.Slots[i]
	}
	return ""
}

// Caps implements [boot.Backend].
func (b *Backend) Caps() boot.Caps { return boot.Caps{MaxTries: maxTries, SwitchAtomic: true} }

// Booted implements [boot.Backend].
func (b *Backend) Booted(context.Context) (string, error) { return b.booted, nil }

// Invalidate implements [boot.Backend]. It refuses a unified kernel image for which there is no room, or that the
// loader would not order by its generation, while nothing is lost yet.
func (b *Backend) Invalidate(_ context.Context, slot string) error {
	if err := boot.RefuseRunning(slot, b.booted); err != nil {
		return err
	}
	return b.disable(slot, func(f files, t template) error {
		return cmp.Or(f.ordered(t), b.room(f, t, slot, 2))
	})
}

// MarkBad implements [boot.Backend].
func (b *Backend) MarkBad(_ context.Context, slot string) error { return b.disable(slot, nil) }

// disable removes a slot's entries: one with no tries left would still boot when there is no other.
func (b *Backend) disable(slot string, accept func(files, template) error) error {
	f, t, err := b.open(slot)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(f.own, entry.bootable) && !slices.ContainsFunc(f.own, func(e entry) bool { return e.slot != slot && e.bootable() }) {
		return boot.RefuseLast(slot)
	}
	if accept != nil {
		if err := accept(f, t); err != nil {
			return err
		}
	}
	return b.remove(f.own, func(e entry) bool { return e.slot == slot })
}

// Activate implements [boot.Backend]. The booted slot, when it is good, stays without a counter.
func (b *Backend) Activate(_ context.Context, slot string, tries int) error {
	if tries < 1 || tries > maxTries {
		return fmt.Errorf("%w: %d tries asked for, expected 1 to %d", boot.ErrRefused, tries, maxTries)
	}
	f, t, err := b.open(slot)
	if err != nil {
		return err
	}
	generation := 1
	for _, e := range f.own {
		generation = max(generation, e.generation+1)
		if slot == b.booted && e.slot == slot && !e.counted {
			tries = 0
		}
	}
	if generation > maxGeneration {
		return fmt.Errorf("%w: generation %d is used up; give the entry of slot %s a name with a small one", boot.ErrState, maxGeneration, b.booted)
	}
	if err := cmp.Or(f.ordered(t), b.room(f, t, "", 1), b.room(f, t, slot, 2)); err != nil {
		return err
	}
	if err := b.create(f, t, generation, f.fileName(b.Prefix, generation, slot, tries)); err != nil {
		return err
	}
	return b.remove(f.own, func(e entry) bool { return e.slot == slot })
}

// MarkGood implements [boot.Backend]: an entry without a counter is there before the counted one goes. Of unified
// kernel images it is a copy of the one that has booted, which is known to work, whatever became of the template.
func (b *Backend) MarkGood(_ context.Context, slot string) error {
	if err := boot.RefuseOthers(slot, b.booted); err != nil {
		return err
	}
	f, err := b.files()
	if err != nil {
		return err
	}
	own := slices.DeleteFunc(slices.Clone(f.own), func(e entry) bool { return e.slot != slot })
	if len(own) == 1 && !own[0].counted && own[0].fault == nil {
		return nil
	}
	generation := 1
	booted, known := newest(own)[slot]
	if known {
		generation = booted.generation
	}
	var t template
	if f.kind == uki && known && booted.fault == nil {
		t, err = b.readTemplate(f.kind, booted.name)
	} else {
		t, err = b.template(f, slot)
	}
	if err != nil {
		return err
	}
	name := f.fileName(b.Prefix, generation, slot, 0)
	if !slices.ContainsFunc(own, func(e entry) bool { return e.name == name && e.fault == nil }) {
		if err := cmp.Or(f.ordered(t), b.room(f, t, "", 1)); err != nil {
			return err
		}
		if err := b.create(f, t, generation, name); err != nil {
			return err
		}
	}
	return b.remove(own, func(e entry) bool { return e.name != name })
}

// Repair implements [boot.Backend]: of several entries of a slot the newest stays; a running slot without any gets one.
func (b *Backend) Repair(ctx context.Context) error {
	f, err := b.files()
	if err != nil {
		return err
	}
	keep := newest(f.own)
	if err := b.remove(f.own, func(e entry) bool { return keep[e.slot].name != e.name }); err != nil {
		return err
	}
	if e, ok := keep[b.booted]; ok && e.fault == nil || b.booted == "" {
		return nil
	}
	return b.MarkGood(ctx, b.booted)
}

// newest is the newest entry of each slot, a whole one where there is any; of two of a generation the good one.
func newest(own []entry) map[string]entry {
	list := map[string]entry{}
	for _, e := range own {
		old, ok := list[e.slot]
		newer := e.generation > old.generation || e.generation == old.generation && !e.counted
		if whole := e.fault == nil; !ok || whole && old.fault != nil || whole == (old.fault == nil) && newer {
			list[e.slot] = e
		}
	}
	return list
}
