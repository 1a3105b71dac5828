package grub

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"updater/boot"
)

// signature is the first line of an environment block (GRUB, include/grub/lib/envblk.h).
const signature = "# GRUB Environment Block\n"

// maxBlock bounds a block; grub-editenv makes 1024 bytes.
const maxBlock = 64 << 10

// block is an environment block: its lines as they are, so that what is not ours survives byte for byte.
type block struct {
	lines []string // without newline; comments and "name=value", escaped
	size  int
}

// parseBlock reads a block. Padding is '#' to the end; a line is a comment or name=value, in which a
// backslash quotes the next character, a newline too.
func parseBlock(data []byte) (*block, error) {
	if len(data) < len(signature)+1 || len(data) > maxBlock {
		return nil, fmt.Errorf("has %d bytes, expected %d to %d", len(data), len(signature)+1, maxBlock)
	}
	if !bytes.HasPrefix(data, []byte(signature)) {
		return nil, fmt.Errorf("does not begin with %q", strings.TrimSpace(signature))
	}
	b := &block{size: len(data)}
	rest := string(data[len(signature):])
	for {
		if strings.Trim(rest, "#") == "" {
			return b, nil
		}
		end := lineEnd(rest)
		if end < 0 {
			return nil, fmt.Errorf("ends inside a line: %.40q", rest)
		}
		line := rest[:end]
		if line != "" && !strings.HasPrefix(line, "#") && !strings.Contains(line, "=") {
			return nil, fmt.Errorf("line %.40q is neither a comment nor name=value", line)
		}
		b.lines, rest = append(b.lines, line), rest[end+1:]
	}
}

// lineEnd is the index of the first newline that is not quoted, -1 when there is none.
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

// get returns a variable's value; the last assignment counts, as in GRUB.
func (b *block) get(name string) string {
	for _, line := range slices.Backward(b.lines) {
		if v, ok := strings.CutPrefix(line, name+"="); ok {
			return unescape(v)
		}
	}
	return ""
}

// set changes a variable where it stands, or adds it before all others, so that ours lie in the first sector.
func (b *block) set(name, value string) {
	line := name + "=" + escape(value)
	for i, old := range slices.Backward(b.lines) {
		if strings.HasPrefix(old, name+"=") {
			b.lines[i] = line
			return
		}
	}
	at := 0
	for at < len(b.lines) && strings.HasPrefix(b.lines[at], "#") {
		at++
	}
	b.lines = append(b.lines[:at], append([]string{line}, b.lines[at:]...)...)
}

// used is how many bytes the block needs without its padding.
func (b *block) used() int {
	n := len(signature)
	for _, l := range b.lines {
		n += len(l) + 1
	}
	return n
}

// encode gives the block in its fixed size.
func (b *block) encode() ([]byte, error) {
	if b.used() > b.size {
		return nil, fmt.Errorf("%w: the environment block of %d bytes has no room for %d", boot.ErrState, b.size, b.used())
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
