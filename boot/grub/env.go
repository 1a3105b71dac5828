package grub

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"updater/boot"
)

// signature is the first line of an environment block (GRUB, include/grub/lib/envblk.h).
const signature = "# GRUB Environment Block\n"

// maxBlock is the largest block in bytes; grub-editenv creates 1024.
const maxBlock = 64 << 10

// block is an environment block. Its lines are kept as they are, so that foreign content survives byte for byte.
type block struct {
	lines []string // without newline: comments and "name=value", escaped
	size  int
}

// parseBlock splits a block into lines as GRUB does (grub-core/lib/envblk.c, find_next_line): a backslash quotes the next
// character, even a newline. # characters up to the end are padding.
func parseBlock(data []byte) (*block, error) {
	if len(data) <= len(signature) {
		return nil, fmt.Errorf("has %d bytes, expected more than %d", len(data), len(signature))
	}
	if !bytes.HasPrefix(data, []byte(signature)) {
		return nil, fmt.Errorf("does not begin with %q", strings.TrimSpace(signature))
	}
	b := &block{size: len(data)}
	rest := string(data[len(signature):])
	for strings.Trim(rest, "#") != "" {
		end := lineEnd(rest)
		if end < 0 {
			// GRUB still loads the lines before, but grub_envblk_set treats the block as broken.
			return nil, fmt.Errorf("ends inside a line: %.40q", rest)
		}
		b.lines, rest = append(b.lines, rest[:end]), rest[end+1:]
	}
	return b, nil
}

// lineEnd returns the index of the first unquoted newline, -1 if there is none.
func lineEnd(s string) int {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '\n':
			return i
		}
	}
	return -1
}

// loaded returns the index of the line from which load_env reads a variable, -1 for none. It runs through the lines as
// grub_envblk_iterate does: a line without = becomes a part of the next variable's name, and the last assignment counts.
// Names and values are C strings.
func (b *block) loaded(name string) int {
	found, prefix := -1, ""
	for i, line := range b.lines {
		if prefix == "" && strings.HasPrefix(line, "#") {
			continue
		}
		n, _, ok := strings.Cut(line, "=")
		if !ok {
			prefix += line + "\n"
			continue
		}
		if n, _, _ = strings.Cut(prefix+n, "\x00"); n == name {
			found = i
		}
		prefix = ""
	}
	return found
}

// saved returns the index of the line that save_env changes, -1 for none: the first one that begins with the name
// (grub_envblk_set).
func (b *block) saved(name string) int {
	return slices.IndexFunc(b.lines, func(line string) bool { return strings.HasPrefix(line, name+"=") })
}

var errAmbiguous = errors.New("ambiguously")

// check refuses a variable that load_env and save_env find in different lines: GRUB would not load the value that it saves.
func (b *block) check(name string) error {
	if load, save := b.loaded(name), b.saved(name); load != save {
		return fmt.Errorf("sets %s %w: GRUB's load_env reads %s, its save_env changes %s", name, errAmbiguous, lineNumber(load), lineNumber(save))
	}
	return nil
}

func lineNumber(i int) string {
	if i < 0 {
		return "no line"
	}
	return fmt.Sprintf("line %d", i+2) // behind the signature
}

// get returns the value that GRUB loads for a variable, "" for none.
func (b *block) get(name string) string {
	i := b.loaded(name)
	if i < 0 {
		return ""
	}
	_, value, _ := strings.Cut(b.lines[i], "=")
	value, _, _ = strings.Cut(unescape(value), "\x00")
	return value
}

// set sets a variable in its line, or in a new line before all others, so that it lies in the first sector.
func (b *block) set(name, value string) {
	line := name + "=" + escape(value)
	if i := b.loaded(name); i >= 0 {
		b.lines[i] = line
		return
	}
	at := 0
	for at < len(b.lines) && strings.HasPrefix(b.lines[at], "#") {
		at++
	}
	b.lines = slices.Insert(b.lines, at, line)
}

// remove removes every line that GRUB may take for a variable, and those that hide one.
func (b *block) remove(name string) {
	b.lines = slices.DeleteFunc(b.lines, func(line string) bool {
		n, _, ok := strings.Cut(line, "=")
		n, _, _ = strings.Cut(n, "\x00")
		return n == name || !ok && !strings.HasPrefix(line, "#")
	})
}

// used returns the number of bytes of the block without its padding.
func (b *block) used() int {
	n := len(signature)
	for _, l := range b.lines {
		n += len(l) + 1
	}
	return n
}

// encode returns the block in its fixed size.
func (b *block) encode() ([]byte, error) {
	if b.used() > b.size {
		return nil, fmt.Errorf("%w: the environment block needs %d bytes, but has room for %d", boot.ErrState, b.used(), b.size)
	}
	var out strings.Builder
	out.WriteString(signature)
	for _, l := range b.lines {
		out.WriteString(l + "\n")
	}
	return []byte(out.String() + strings.Repeat("#", b.size-b.used())), nil
}

func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, "\n", "\\\n").Replace(s)
}

func unescape(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		out.WriteByte(s[i])
	}
	return out.String()
}
