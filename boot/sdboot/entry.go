package sdboot

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// kind is a kind of boot entry: the folder of the entries, the folder of their templates, which the boot loader does not
// search, and the file name extension of both.
type kind struct{ entries, templates, ext string }

var (
	type1 = kind{"loader/entries/", "loader/updater/", ".conf"}
	uki   = kind{"EFI/Linux/", "EFI/updater/", ".efi"}
	kinds = []kind{type1, uki}
)

const loaderConf = "loader/loader.conf"

func (k kind) template(slot string) string { return k.templates + slot + k.ext }

// Templates returns the names of the templates that a slot may have, on the ESP.
func Templates(slot string) []string { return []string{type1.template(slot), uki.template(slot)} }

// entry is a boot entry of a slot, named prefix-GENERATION-SLOT[+LEFT[-DONE]] with the extension .conf or .efi (systemd,
// "Automatic Boot Assessment").
type entry struct {
	name       string // of the file
	generation int
	slot       string
	counted    bool
	left       int
	order      release
	size       int64 // of an image
	fault      error // why the entry does not start; nil if it does
}

var entryName = regexp.MustCompile(`^(.+)-(\d{1,9})-([A-Za-z0-9_]+)(?:\+(\d{1,6})(?:-\d{1,6})?)?$`)

// list reports whether the boot loader treats a file as an entry of this kind (boot.c, valid_type1_filename and
// config_load_type2_entries): names are not case-sensitive, and some are reserved.
func (k kind) list(name string) (base string, ok bool) {
	base, ok = strings.CutPrefix(name, k.entries)
	lower := strings.ToLower(base)
	if !ok || !strings.HasSuffix(lower, k.ext) || strings.HasPrefix(base, ".") || strings.HasPrefix(lower, "auto-") {
		return "", false
	}
	return base[:len(base)-len(k.ext)], true
}

// parseName parses a file name; ok is false for a foreign entry.
func (k kind) parseName(name, prefix string, slots []string) (e entry, ok bool) {
	base, ok := k.list(name)
	m := entryName.FindStringSubmatch(base)
	if !ok || m == nil || !strings.EqualFold(m[1], prefix) {
		return e, false
	}
	i := slices.IndexFunc(slots, func(s string) bool { return strings.EqualFold(s, m[3]) })
	if i < 0 {
		return e, false
	}
	e = entry{name: name, slot: slots[i], counted: m[4] != ""}
	e.generation, _ = strconv.Atoi(m[2])
	e.left, _ = strconv.Atoi(m[4])
	return e, true
}

// fileName returns the file name of an entry; tries of 0 means no counter.
func (k kind) fileName(prefix string, generation int, slot string, tries int) string {
	counter := ""
	if tries > 0 {
		counter = fmt.Sprintf("+%d", tries)
	}
	return fmt.Sprintf("%s%s-%d-%s%s%s", k.entries, prefix, generation, slot, counter, k.ext)
}

func (e entry) bad() bool { return e.counted && e.left == 0 }

// dead reports whether the boot loader ignores the entry.
func (e entry) dead() bool { return errors.Is(e.fault, errImage) || errors.Is(e.fault, errEntry) }

// bootable reports whether the boot loader boots the entry before those without tries left.
func (e entry) bootable() bool { return !e.dead() && !e.bad() }

// id is the boot loader's identifier of the entry.
func (e entry) id() string { return strings.ToLower(path.Base(e.name)) }

// sorted returns the entries in the order of the boot loader (boot.c, config_entry_compare): those without tries left come
// last; then the sort key and version decide, then the file name, the later version first.
func sorted(entries []entry) []entry {
	list := slices.DeleteFunc(slices.Clone(entries), entry.dead)
	sort.SliceStable(list, func(i, j int) bool {
		a, b := list[i], list[j]
		if a.bad() != b.bad() {
			return b.bad()
		}
		return cmp.Or(a.order.compare(b.order), versions(b.id(), a.id())) < 0
	})
	return list
}

// field returns the value of a key in an entry or in loader.conf, "" if it is missing. As in the boot loader (util.c,
// line_get_key_value), the last one counts, CR ends a line, and quotes around a value are removed.
func field(text, key string) string {
	const blank = " \t"
	found := ""
	text, _, _ = strings.Cut(text, "\x00")
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\n' || r == '\r' }) {
		rest := strings.TrimPrefix(strings.Trim(line, blank), key)
		value := strings.TrimLeft(rest, blank)
		if value == rest { // another key, or no value
			continue
		}
		if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
			value = value[1 : len(value)-1]
		}
		found = value
	}
	return found
}

// conf returns the fields by which the boot loader orders a Type #1 entry, and why it ignores the entry, nil if it does
// not (boot.c, boot_entry_add_type1).
func conf(text string) (order release, fault error) {
	order = release{key: field(text, "sort-key"), machineID: field(text, "machine-id"), version: field(text, "version")}
	programs := 0
	for _, key := range []string{"linux", "efi", "uki"} {
		if field(text, key) != "" {
			programs++
		}
	}
	if programs != 1 {
		fault = fmt.Errorf("%w: %d of the keys linux, efi and uki, expected one", errEntry, programs)
	}
	return order, fault
}

// fill returns the entry for a template, with the sort key and the generation as version. The template contains neither.
func fill(template, sortKey string, generation int) string {
	return strings.TrimRight(template, "\n") + fmt.Sprintf("\nsort-key %s\nversion %d\n", sortKey, generation)
}
