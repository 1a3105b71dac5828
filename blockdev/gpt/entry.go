package gpt

import (
	"fmt"
	"sort"
	"unicode/utf16"
)

// The fields of an entry (UEFI 2.10, table 5.6). A longer one has reserved bytes after them.
const (
	minEntry      = 128
	offPartGUID   = 16
	offFirstLBA   = 32
	offLastLBA    = 40
	offAttributes = 48
	offName       = 56
	maxName       = 36 // UTF-16 units
)

// Entry is a partition. First and Last are sectors, both inclusive.
type Entry struct {
	Number      int // from 1
	Type, GUID  GUID
	First, Last int64
	Attributes  uint64
	Name        string // PARTLABEL, untrusted text: escape it before printing
}

func (e Entry) String() string {
	return fmt.Sprintf("partition %d (sectors %d-%d)", e.Number, e.First, e.Last)
}

// Count is the number of entries, used and unused.
func (t *Table) Count() int { return len(t.entries) / t.width() }

func (t *Table) width() int { return int(le.Uint32(t.header[offWidth:])) }

// entry is the bytes of an entry; number counts from 1 to Count.
func (t *Table) entry(number int) []byte { return t.entries[(number-1)*t.width():][:t.width()] }

// Entries lists the used entries in their order, unchecked.
func (t *Table) Entries() []Entry {
	var list []Entry
	for n := range t.Count() {
		e := t.entry(n + 1)
		if GUID(e) == (GUID{}) {
			continue
		}
		list = append(list, Entry{
			Number: n + 1, Type: GUID(e), GUID: GUID(e[offPartGUID:]), Attributes: le.Uint64(e[offAttributes:]), Name: decodeName(e[offName:minEntry]),
			First: int64(min(le.Uint64(e[offFirstLBA:]), 1<<62)), Last: int64(min(le.Uint64(e[offLastLBA:]), 1<<62)),
		})
	}
	return list
}

// Partitions lists the used entries in their order. An entry that is not inside a disk of so many sectors, or overlaps another
// one or this copy of the table, is an error.
func (t *Table) Partitions(sectors int64) ([]Entry, error) {
	list := t.Entries()
	for _, e := range list {
		if e.First <= primaryLBA || e.First > e.Last || e.Last >= sectors {
			return nil, fmt.Errorf("%s is not inside the disk of %d sectors", e, sectors)
		}
	}
	return list, overlap(append(t.places(), list...))
}

// places are the sectors of this copy, as entries without a number.
func (t *Table) places() []Entry {
	name := fmt.Sprintf("the %s partition table", copyName(t.HeaderLBA()))
	return []Entry{
		{Name: name, First: t.HeaderLBA(), Last: t.HeaderLBA()},
		{Name: name, First: t.EntriesLBA(), Last: t.EntriesLBA() + t.EntrySectors() - 1},
	}
}

// overlap finds two ranges that share a sector. Its error names ranges without a number by Name.
func overlap(ranges []Entry) error {
	name := func(e Entry) string {
		if e.Number == 0 {
			return e.Name
		}
		return e.String()
	}
	sort.SliceStable(ranges, func(i, j int) bool { return ranges[i].First < ranges[j].First })
	for i := range len(ranges) - 1 { // sorted by First, so comparing neighbours is enough
		if a, b := ranges[i], ranges[i+1]; b.First <= a.Last {
			return fmt.Errorf("%s overlaps %s", name(b), name(a))
		}
	}
	return nil
}

// Attributes are the 64 attribute bits of an entry; number counts from 1 to Count.
func (t *Table) Attributes(number int) uint64 { return le.Uint64(t.entry(number)[offAttributes:]) }

// SetAttributes changes the attribute bits of an entry in memory.
func (t *Table) SetAttributes(number int, bits uint64) {
	le.PutUint64(t.entry(number)[offAttributes:], bits)
}

// setEntry fills an entry.
func (t *Table) setEntry(e Entry) error {
	if e.Number < 1 || e.Number > t.Count() {
		return fmt.Errorf("partition %d: the table has entries 1 to %d", e.Number, t.Count())
	}
	name := utf16.Encode([]rune(e.Name))
	if len(name) > maxName {
		return fmt.Errorf("partition %d: name %q has %d UTF-16 units, expected at most %d", e.Number, e.Name, len(name), maxName)
	}
	b := t.entry(e.Number)
	if GUID(b) != (GUID{}) {
		return fmt.Errorf("partition number %d is used twice", e.Number)
	}
	copy(b, e.Type[:])
	copy(b[offPartGUID:], e.GUID[:])
	le.PutUint64(b[offFirstLBA:], uint64(e.First))
	le.PutUint64(b[offLastLBA:], uint64(e.Last))
	le.PutUint64(b[offAttributes:], e.Attributes)
	for i, u := range name {
		le.PutUint16(b[offName+2*i:], u)
	}
	return nil
}

// decodeName reads UTF-16 up to a NUL. A lone surrogate becomes U+FFFD.
func decodeName(b []byte) string {
	var units []uint16
	for ; len(b) >= 2 && le.Uint16(b) != 0; b = b[2:] {
		units = append(units, le.Uint16(b))
	}
	return string(utf16.Decode(units))
}
