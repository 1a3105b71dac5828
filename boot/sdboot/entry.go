package sdboot

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// kind is what a device's entries are: where they lie, where their templates lie, which no loader looks for
// entries in, and how the names of both end.
type kind struct{ entries, templates, ext string }

var (
	type1 = kind{"loader/entries/", "loader/updater/", ".conf"}
	uki   = kind{"EFI/Linux/", "EFI/updater/", ".efi"}
	kinds = []kind{type1, uki}
)

const loaderConf = "loader/loader.conf"

func (k kind) template(slot string) string { return k.templates + slot + k.ext }

// entry is one of our boot entries, by its file name: prefix-GENERATION-SLOT[+LEFT[-DONE]], and .conf or .efi
// (systemd, "Automatic Boot Assessment").
type entry struct {
	name       string // of the file
	generation int
	slot       string
	counted    bool
	left, done int
	order      release
	size       int64 // of an image
	fault      error // what is wrong with an image
}

var entryName = regexp.MustCompile(`^(.+)-(\d{1,9})-([A-Za-z0-9_]+)(?:\+(\d{1,6})(?:-(\d{1,6}))?)?$`)

// parseName reads a file name; ok is false for entries of others.
func (k kind) parseName(name, prefix string, slots []string) (e entry, ok bool) {
	base, isEntry := strings.CutPrefix(name, k.entries)
	base, isKind := strings.CutSuffix(base, k.ext)
	m := entryName.FindStringSubmatch(base)
	if !isEntry || !isKind || m == nil || m[1] != prefix || !slices.Contains(slots, m[3]) {
		return e, false
	}
	e = entry{name: name, slot: m[3], counted: m[4] != ""}
	e.generation, _ = strconv.Atoi(m[2])
	e.left, _ = strconv.Atoi(m[4])
	e.done, _ = strconv.Atoi(m[5])
	e.order = release{key: prefix, version: m[2]} // of a .conf; that of an image is inside of it
	return e, true
}

// fileName is the name of an entry.
func (k kind) fileName(prefix string, generation int, slot string, tries int) string {
	counter := ""
	if tries > 0 {
		counter = fmt.Sprintf("+%d", tries)
	}
	return fmt.Sprintf("%s%s-%d-%s%s%s", k.entries, prefix, generation, slot, counter, k.ext)
}

func (e entry) bad() bool { return e.counted && e.left == 0 }

// dead: the loader does not take it.
func (e entry) dead() bool { return errors.Is(e.fault, errImage) }

// bootable: the loader takes it, and before the bad ones.
func (e entry) bootable() bool { return !e.dead() && !e.bad() }

// id is what the loader calls an entry.
func (e entry) id() string { return strings.ToLower(path.Base(e.name)) }

// booted is the entry after one boot: the loader has renamed it (boot.c, config_entry_bump_counters).
func (e entry) booted() entry {
	if e.counted && e.left > 0 {
		e.left, e.done = e.left-1, e.done+1
	}
	return e
}

// sorted puts the entries that the loader takes in its order (boot.c, config_entry_compare): bad ones last, then by
// what they say of themselves, then the name of the later version.
func sorted(entries []entry) []entry {
	list := slices.DeleteFunc(slices.Clone(entries), entry.dead)
	slices.SortStableFunc(list, func(a, b entry) int {
		if a.bad() != b.bad() {
			return map[bool]int{true: 1, false: -1}[a.bad()]
		}
		return cmp.Or(a.order.compare(b.order), versions(b.id(), a.id()))
	})
	return list
}

// field is the value of a key in an entry, "" when it is missing.
func field(text, key string) string {
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSpace(strings.ReplaceAll(line, "\t", " ")), " "); ok && k == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// fill makes an entry of a slot's template: with our sort key and the generation as version, both of which
// the template must leave out.
func fill(template, sortKey string, generation int) string {
	return strings.TrimRight(template, "\n") + fmt.Sprintf("\nsort-key %s\nversion %d\n", sortKey, generation)
}
