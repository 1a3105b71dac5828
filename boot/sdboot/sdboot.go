// Package sdboot keeps the slot choice in the boot entries of systemd-boot, with boot counting (systemd, "Automatic Boot
// Assessment"; src/boot/efi/boot.c). Each slot has one entry, a file on the ESP, which is made from a template:
//
//	loader/entries/PREFIX-GENERATION-SLOT[+LEFT[-DONE]].conf   from loader/updater/SLOT.conf, or
//	EFI/Linux/PREFIX-GENERATION-SLOT[+LEFT[-DONE]].efi         from EFI/updater/SLOT.efi
//
// The first is a Type #1 entry with the generation as its version; its key linux may name a kernel or a unified kernel
// image. The second is a copy of a unified kernel image (Type #2). The boot loader orders images by the identifier and
// version in their .osrel section and then by file name. Both must therefore be the same in all slots, preferably without
// a version, so that the generation in the name decides. All slots of a device use the same kind of template.
//
// The highest generation boots. LEFT is the number of boots left: the boot loader counts it down by renaming the file, and
// boots an entry with 0 left only if there is no other. An entry without a counter is good; its boot writes nothing.
//
// The boot loader renames through the FAT driver of the firmware, which is not atomic: a power cut may leave neither name.
// The known-good entry therefore never has a counter, and a slot whose entry is gone does not boot. This package writes a
// new entry under a temporary name, syncs it, renames it, and removes the old entries last.
//
// EFI variables are not needed. If LoaderEntryDefault or the default of loader.conf is set, it overrides boot counting, and
// State reports it.
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

// Dir accesses the ESP. Names use slashes, without a leading one. Changes are durable after Sync.
type Dir interface {
	List() ([]string, error) // files in loader and in the folders of entries and templates
	// Open opens a file for reading past the page cache. The error for a missing file wraps [fs.ErrNotExist].
	Open(name string) (File, error)
	Write(name string, r io.Reader) error
	Rename(from, to string) error
	Remove(name string) error
	Sync() error
	Free() (int64, error) // free space in bytes
}

// File is an open file on the ESP.
type File = interface {
	io.ReadSeekCloser
	io.ReaderAt
}

// Options configure the backend.
type Options struct {
	Dir    Dir
	Slots  []string
	Prefix string // prefix of entry names, and the sort key of Type #1 entries; "" means "updater"
	// Beside is the suffix of a template that an install writes before it replaces the old one; "" if no install does.
	Beside string
	// Default returns the EFI variable LoaderEntryDefault, "" if it is not set. It is nil without EFI variables.
	Default func() (string, error)
}

// Backend implements [boot.Backend].
type Backend struct {
	Options
	booted string
}

var (
	_ boot.Backend  = (*Backend)(nil)
	_ boot.Restorer = (*Backend)(nil)
)

const (
	maxTries      = 99
	maxGeneration = 999_999_999 // entryName allows 9 digits
)

// New returns the backend on o. booted is the running slot, "" outside every slot.
func New(o Options, booted string) (*Backend, error) {
	if len(o.Slots) == 0 || booted != "" && !slices.Contains(o.Slots, booted) {
		return nil, fmt.Errorf("%w: running slot %q is not configured; expected one of %v", boot.ErrState, booted, o.Slots)
	}
	for i, s := range o.Slots {
		if slices.ContainsFunc(o.Slots[:i], func(other string) bool { return strings.EqualFold(s, other) }) {
			return nil, fmt.Errorf("%w: slots %v differ only in case, which FAT and systemd-boot ignore", boot.ErrState, o.Slots)
		}
	}
	if o.Prefix == "" {
		o.Prefix = "updater"
	}
	return &Backend{o, booted}, nil
}

// Selected returns the slot of the entry that the boot loader has started, given the EFI variable LoaderEntrySelected; "" if
// it is not a slot's. The identifier is in lower case and, up to version 257, contains the counter.
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

// Invalidate implements [boot.Backend]. It refuses if the ESP has no room for the slot's unified kernel image, or if the
// boot loader would not order the image by generation, so that Activate does not fail for these reasons later. If an install is
// about to replace the template, only the new size counts.
func (b *Backend) Invalidate(_ context.Context, slot string) error {
	if err := boot.RefuseRunning(slot, b.booted); err != nil {
		return err
	}
	return b.disable(slot, func(f files) error {
		if next := f.template(slot) + b.Beside; b.Beside != "" && slices.Contains(f.others, next) {
			size, err := b.size(next)
			return cmp.Or(err, b.room(f, template{name: next, size: size}, slot, 2))
		}
		t, err := b.template(f, slot)
		return cmp.Or(err, f.ordered(t), b.room(f, t, slot, 2))
	})
}

// MarkBad implements [boot.Backend].
func (b *Backend) MarkBad(_ context.Context, slot string) error { return b.disable(slot, nil) }

// disable removes the entries of a slot. An entry with no tries left would still boot if there is no other.
func (b *Backend) disable(slot string, accept func(files) error) error {
	if err := boot.RefuseUnknown(slot, b.Slots); err != nil {
		return err
	}
	f, err := b.files()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(f.own, entry.bootable) && !slices.ContainsFunc(f.own, func(e entry) bool { return e.slot != slot && e.bootable() }) {
		return boot.RefuseLast(slot)
	}
	if accept != nil {
		if err := accept(f); err != nil {
			return err
		}
	}
	if err := b.remove(f.own, func(e entry) bool { return e.slot == slot }); err != nil {
		return err
	}
	return b.verify("slot "+slot+" still has an entry", func(f files) bool {
		return !slices.ContainsFunc(f.own, func(e entry) bool { return e.slot == slot })
	})
}

// verify lists the ESP again after a change and checks what the boot loader makes of it.
func (b *Backend) verify(otherwise string, holds func(files) bool) error {
	f, err := b.files()
	if err == nil && !holds(f) {
		err = fmt.Errorf("%w: after the change %s", boot.ErrState, otherwise)
	}
	return err
}

// Activate implements [boot.Backend]. If the slot is running and good, its entry stays without a counter.
func (b *Backend) Activate(_ context.Context, slot string, tries int) error {
	if tries < 1 || tries > maxTries {
		return fmt.Errorf("%w: %d tries requested; expected 1 to %d", boot.ErrRefused, tries, maxTries)
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
		return fmt.Errorf("%w: generation %d is the last; rename the entry of slot %s to a lower generation", boot.ErrState, maxGeneration, b.booted)
	}
	if err := cmp.Or(f.ordered(t), b.room(f, t, "", 1), b.room(f, t, slot, 2)); err != nil {
		return err
	}
	if err := b.create(f, t, generation, f.fileName(b.Prefix, generation, slot, tries)); err != nil {
		return err
	}
	if err := b.remove(f.own, func(e entry) bool { return e.slot == slot }); err != nil {
		return err
	}
	return b.verify("slot "+slot+" does not boot next", func(f files) bool { return boots(f.own, 1)[0] == slot })
}

// MarkGood implements [boot.Backend]. It creates an entry without a counter before it removes the counted one. A unified
// kernel image is copied from the entry that booted, which is known to work, not from the template.
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
	if !slices.ContainsFunc(own, func(e entry) bool { return strings.EqualFold(e.name, name) && e.fault == nil }) {
		if err := cmp.Or(f.ordered(t), b.room(f, t, "", 1)); err != nil {
			return err
		}
		if err := b.create(f, t, generation, name); err != nil {
			return err
		}
	}
	if err := b.remove(own, func(e entry) bool { return !strings.EqualFold(e.name, name) }); err != nil {
		return err
	}
	return b.verify("slot "+slot+" has no good entry", func(f files) bool {
		return slices.ContainsFunc(f.own, func(e entry) bool { return e.slot == slot && e.bootable() && !e.counted })
	})
}

// RestoreFallback implements [boot.Restorer]. It creates an entry without a counter, of a generation before those of the other slots.
func (b *Backend) RestoreFallback(_ context.Context, slot string) error {
	f, t, err := b.open(slot)
	if err != nil {
		return err
	}
	next := boots(f.own, 1)[0]
	if err := cmp.Or(boot.RefuseRunning(slot, b.booted), boot.RefuseNoFallback(slot, next)); err != nil {
		return err
	}
	generation := maxGeneration
	for _, e := range f.own {
		if e.slot == slot && e.bootable() && !e.counted {
			return nil
		}
		if e.slot != slot && e.bootable() {
			generation = min(generation, e.generation-1)
		}
	}
	if generation < 0 {
		return fmt.Errorf("%w: slot %s has no generation before that of slot %s; an install activates it", boot.ErrRefused, slot, next)
	}
	if err := cmp.Or(f.ordered(t), b.room(f, t, slot, 1)); err != nil {
		return err
	}
	if err := b.remove(f.own, func(e entry) bool { return e.slot == slot }); err != nil {
		return err
	}
	if err := b.create(f, t, generation, f.fileName(b.Prefix, generation, slot, 0)); err != nil {
		return err
	}
	return b.verify("slot "+slot+" is not the fallback", func(f files) bool {
		return boots(f.own, 1)[0] == next && slices.ContainsFunc(f.own, func(e entry) bool { return e.slot == slot && e.bootable() })
	})
}

// Repair implements [boot.Backend]. An interrupted activation leaves two entries of a slot. Repair keeps the newest entry that has tries left,
// because it may be the only fallback, or else the newest. It marks the running slot good if that slot has no intact entry, or if its newest
// entry has no tries left and an older one boots.
func (b *Backend) Repair(ctx context.Context) error {
	f, err := b.files()
	if err != nil {
		return err
	}
	keep := newest(slices.DeleteFunc(slices.Clone(f.own), func(e entry) bool {
		return e.bad() && slices.ContainsFunc(f.own, func(o entry) bool { return o.slot == e.slot && o.bootable() })
	}))
	e, ok := keep[b.booted]
	spent := ok && newest(f.own)[b.booted].name != e.name // MarkGood takes its generation
	if err := b.remove(f.own, func(e entry) bool { return keep[e.slot].name != e.name && (!spent || e.slot != b.booted) }); err != nil {
		return err
	}
	if b.booted == "" || ok && e.fault == nil && !spent {
		return nil
	}
	return b.MarkGood(ctx, b.booted)
}

// newest returns the newest entry of each slot. An intact entry takes precedence over a damaged one, and an entry without a
// counter over one with a counter in the same generation.
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
