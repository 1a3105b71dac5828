package uboot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"

	"updater/boot"
)

// maxEnv is the largest environment in bytes; those of U-Boot have 8 to 128 KiB.
const maxEnv = 1 << 20

// env is the data of one copy.
type env struct {
	entries []string // as stored, in their order; a usual one is "name=value"
	flag    byte     // of a redundant copy
}

// flagOffset is the offset of the flag byte in a redundant copy.
const flagOffset = 4

// headerSize is the size of the bytes before the data: the checksum, and in a redundant copy a flag byte (U-Boot,
// include/env_internal.h).
func headerSize(redundant bool) int {
	if redundant {
		return 5
	}
	return 4
}

// checksum reports a copy that U-Boot would not use. The checksum covers the data to the end of the copy.
func checksum(raw []byte, redundant bool) error {
	head := headerSize(redundant)
	if len(raw) < head+2 {
		return fmt.Errorf("has %d bytes, expected at least %d", len(raw), head+2)
	}
	if want, got := binary.LittleEndian.Uint32(raw), crc32.ChecksumIEEE(raw[head:]); want != got {
		return fmt.Errorf("has checksum %08x, but its data has %08x", want, got)
	}
	return nil
}

// parse splits the data of a copy with a valid checksum into its entries: strings that end in NUL. An empty one ends the
// environment; padding of any content follows.
func parse(raw []byte, redundant bool) (*env, error) {
	e, data := new(env), raw[headerSize(redundant):]
	if redundant {
		e.flag = raw[flagOffset]
	}
	if data[0] == 0 {
		// U-Boot goes on behind a first entry that is empty (himport_r), libubootenv does not.
		if rest, _, _ := bytes.Cut(data[1:], []byte{0, 0}); bytes.Contains(rest, []byte("=")) {
			return nil, errors.New("begins with an empty entry, which U-Boot skips and its tools take as the end")
		}
		return e, nil
	}
	for len(data) > 0 && data[0] != 0 {
		entry, rest, ok := bytes.Cut(data, []byte{0})
		if !ok {
			return nil, fmt.Errorf("ends inside the entry %.40q", data)
		}
		e.entries, data = append(e.entries, string(entry)), rest
	}
	for _, entry := range e.entries {
		if name, value := split(entry); name == "" && value != "" {
			return nil, fmt.Errorf("has the entry %.40q without a name, for which U-Boot rejects all of it", entry)
		}
	}
	return e, nil
}

// split returns the name and value of an entry as U-Boot reads them (lib/hashtable.c, himport_r): blanks before the name
// are skipped, a name that begins with # is a comment. An entry without a value removes the variable. A comment has neither.
// The value is as stored: U-Boot treats a backslash as a quote, so [env.check] refuses it.
func split(entry string) (name, value string) {
	entry = strings.TrimLeft(entry, " \t")
	if strings.HasPrefix(entry, "#") {
		return "", ""
	}
	name, value, _ = strings.Cut(entry, "=")
	return name, value
}

// get returns the value that U-Boot has for a variable, "" for none: the last entry counts.
func (e *env) get(name string) string {
	for _, entry := range slices.Backward(e.entries) {
		if n, value := split(entry); n == name {
			return value
		}
	}
	return ""
}

// tool returns the value that libubootenv has for a variable (src/uboot_env.c, libuboot_load): the last entry counts; one
// without = is skipped; nothing is quoted and no blank is skipped.
func (e *env) tool(name string) string {
	for _, entry := range slices.Backward(e.entries) {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// special are the characters that U-Boot's shell or the format itself may change in a value.
const special = "\\\"'$;&|<>(){}#`*?"

// check refuses a variable that U-Boot and libubootenv read differently, or that U-Boot's shell would not see as it is.
func (e *env) check(name string) error {
	value := e.get(name)
	if tool := e.tool(name); tool != value {
		return fmt.Errorf("sets %s ambiguously: U-Boot reads %.40q, its tools read %.40q", name, value, tool)
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune(special, r) }) {
		return fmt.Errorf("has %.40q in %s; expected letters, digits and spaces", value, name)
	}
	return nil
}

// checkAll returns the first refusal of [env.check].
func (e *env) checkAll(names []string) error {
	for _, name := range names {
		if err := e.check(name); err != nil {
			return err
		}
	}
	return nil
}

// count returns how many entries set a variable.
func (e *env) count(name string) int {
	n := 0
	for _, entry := range e.entries {
		if own, _ := split(entry); own == name {
			n++
		}
	}
	return n
}

// set sets a variable in the place of its last entry and removes the other ones. A new variable comes first, so that the
// change of a single copy lies in its first sector. An empty value removes the variable, as in U-Boot.
func (e *env) set(name, value string) {
	at := 0
	var rest []string
	for _, entry := range e.entries {
		if n, _ := split(entry); n == name {
			at = len(rest)
		} else {
			rest = append(rest, entry)
		}
	}
	if value != "" {
		rest = slices.Insert(rest, at, name+"="+value)
	}
	e.entries = rest
}

// encode returns a copy of size bytes with zero padding.
func (e *env) encode(size int64, redundant bool) ([]byte, error) {
	head := headerSize(redundant)
	used := e.used(redundant)
	if int64(used) > size {
		return nil, fmt.Errorf("%w: the environment needs %d bytes, but has room for %d", boot.ErrState, used-head, size-int64(head))
	}
	out := make([]byte, head, size)
	for _, v := range e.entries {
		out = append(append(out, v...), 0)
	}
	out = out[:size]
	binary.LittleEndian.PutUint32(out, crc32.ChecksumIEEE(out[head:]))
	if redundant {
		out[flagOffset] = e.flag
	}
	return out, nil
}

// used returns the number of bytes of a copy without its padding.
func (e *env) used(redundant bool) int {
	n := headerSize(redundant) + 1
	for _, v := range e.entries {
		n += len(v) + 1
	}
	return n
}

func (e *env) equal(o *env) bool { return slices.Equal(e.entries, o.entries) }

func (e *env) clone() *env { return &env{slices.Clone(e.entries), e.flag} }

// keepPadding copies the old padding behind the entries of a single copy, so that only sectors with entries change, and
// renews the checksum.
func keepPadding(data, old []byte, e *env) {
	used := e.used(false)
	copy(data[used:], old[used:])
	binary.LittleEndian.PutUint32(data, crc32.ChecksumIEEE(data[headerSize(false):]))
}
