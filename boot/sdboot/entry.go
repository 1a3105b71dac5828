package sdboot

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// entry is one of our boot entries, by its file name: prefix-GENERATION-SLOT[+LEFT[-DONE]].conf (systemd,
// "Automatic Boot Assessment").
type entry struct {
	name       string // of the file
	generation int
	slot       string
	counted    bool
	left, done int
}

// Entries are below loader/entries; templates, which no loader reads, below loader/updater.
const (
	entriesDir   = "loader/entries/"
	templatesDir = "loader/updater/"
	loaderConf   = "loader/loader.conf"
)

var entryName = regexp.MustCompile(`^loader/entries/(.+)-(\d{1,9})-([A-Za-z0-9_]+)(?:\+(\d{1,6})(?:-(\d{1,6}))?)?\.conf$`)

// parseName reads a file name; ok is false for entries of others.
func parseName(name, prefix string, slots []string) (e entry, ok bool) {
	m := entryName.FindStringSubmatch(name)
	if m == nil || m[1] != prefix || !slices.Contains(slots, m[3]) {
		return e, false
	}
	e = entry{name: name, slot: m[3], counted: m[4] != ""}
	e.generation, _ = strconv.Atoi(m[2])
	e.left, _ = strconv.Atoi(m[4])
	e.done, _ = strconv.Atoi(m[5])
	return e, true
}

// fileName is the name of an entry.
func fileName(prefix string, generation int, slot string, tries int) string {
	counter := ""
	if tries > 0 {
		counter = fmt.Sprintf("+%d", tries)
	}
	return fmt.Sprintf("%s%s-%d-%s%s.conf", entriesDir, prefix, generation, slot, counter)
}

func (e entry) bad() bool { return e.counted && e.left == 0 }

// booted is the entry after one boot: the loader has renamed it (boot.c, config_entry_bump_counters).
func (e entry) booted() entry {
	if e.counted && e.left > 0 {
		e.left, e.done = e.left-1, e.done+1
	}
	return e
}

// sorted puts entries in the loader's order (boot.c, config_entry_compare): bad ones last, then the higher
// version, then the name that is later.
func sorted(entries []entry) []entry {
	list := slices.Clone(entries)
	slices.SortStableFunc(list, func(a, b entry) int {
		if a.bad() != b.bad() {
			return map[bool]int{true: 1, false: -1}[a.bad()]
		}
		return cmp.Or(cmp.Compare(b.generation, a.generation), strings.Compare(b.name, a.name))
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
