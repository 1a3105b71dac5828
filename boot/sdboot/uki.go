package sdboot

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// release is what the loader orders entries by before it looks at their names. That of a unified kernel image
// is in its section .osrel (os-release(5)).
type release struct {
	key, version string // of a UKI: IMAGE_ID or else ID; IMAGE_VERSION or else VERSION, VERSION_ID, BUILD_ID
	machine      uint16 // of a UKI: the loader takes those of its own alone
}

// compare is the loader's order: those without a key last, then the key; then the higher version.
func (r release) compare(other release) int {
	if r.key == "" || other.key == "" {
		return cmp.Compare(min(len(other.key), 1), min(len(r.key), 1))
	}
	return cmp.Or(strings.Compare(r.key, other.key), versions(other.version, r.version))
}

func (r release) String() string {
	return fmt.Sprintf("IMAGE_ID or ID %q, version %q and machine %#x", r.key, r.version, r.machine)
}

var (
	errImage = errors.New("not a unified kernel image") // the loader does not take it
	errCut   = errors.New("cut short")                  // the loader takes it, and the firmware does not start it
)

const (
	peHeader    = 96 // up to the fields of the optional header that the loader reads
	maxSections = 96 // Microsoft, "PE Format"
)

// parseUKI reads what the loader reads of an image (pe.c, boot.c): the section table and .osrel. It refuses what
// some version of the loader reads in another way: a second section .osrel, or one longer than its data. An image of
// size bytes with less than its sections has a release all the same, and the error errCut.
func parseUKI(r io.ReaderAt, size int64) (release, error) {
	dos, err := header(r, 0, 64)
	if err != nil {
		return release{}, err
	}
	at := int64(binary.LittleEndian.Uint32(dos[60:]))
	pe, err := header(r, at, peHeader)
	if err != nil {
		return release{}, err
	}
	magic, n := binary.LittleEndian.Uint16(pe[24:]), int(binary.LittleEndian.Uint16(pe[6:]))
	if string(dos[:2]) != "MZ" || string(pe[:4]) != "PE\x00\x00" || magic != 0x10b && magic != 0x20b {
		return release{}, fmt.Errorf("%w: it has no PE header", errImage)
	}
	if n == 0 || n > maxSections {
		return release{}, fmt.Errorf("%w: it has %d sections, expected 1 to %d", errImage, n, maxSections)
	}
	table, err := header(r, at+24+int64(binary.LittleEndian.Uint16(pe[20:])), 40*n)
	if err != nil {
		return release{}, err
	}
	text, err := osRelease(r, table)
	if err != nil {
		return release{}, err
	}
	rel, ok := parseRelease(text)
	if !ok {
		return release{}, fmt.Errorf("%w: its section .osrel has no PRETTY_NAME, IMAGE_ID, NAME or ID", errImage)
	}
	rel.machine = binary.LittleEndian.Uint16(pe[4:])
	for ; len(table) > 0; table = table[40:] {
		if end := int64(binary.LittleEndian.Uint32(table[20:])) + int64(binary.LittleEndian.Uint32(table[16:])); end > size {
			return rel, fmt.Errorf("%w: it ends before byte %d", errCut, end)
		}
	}
	return rel, nil
}

// osRelease is the content of the only section .osrel.
func osRelease(r io.ReaderAt, table []byte) (string, error) {
	var found []byte
	for ; len(table) > 0; table = table[40:] {
		if !bytes.HasPrefix(table, []byte(".osrel")) {
			continue
		}
		if found != nil || table[6] != 0 {
			return "", fmt.Errorf("%w: it has a second section .osrel", errImage)
		}
		found = table[:40]
	}
	if found == nil {
		return "", fmt.Errorf("%w: it has no section .osrel", errImage)
	}
	size, raw := binary.LittleEndian.Uint32(found[8:]), binary.LittleEndian.Uint32(found[16:])
	if size == 0 || size > raw || size > maxEntry {
		return "", fmt.Errorf("%w: its section .osrel has %d bytes and %d in the file, expected 1 to %d", errImage, size, raw, maxEntry)
	}
	text, err := header(r, int64(binary.LittleEndian.Uint32(found[20:])), int(size))
	text, _, _ = bytes.Cut(text, []byte{0})
	return string(text), err
}

// parseRelease reads os-release as the loader does; ok is false when the loader has no name for it.
func parseRelease(text string) (r release, ok bool) {
	values := map[string]string{}
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\n' || r == '\r' }) {
		key, value, found := strings.Cut(strings.Trim(line, " \t"), "=")
		if !found || strings.HasPrefix(key, "#") {
			continue
		}
		value = strings.TrimLeft(value, "=")
		if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
			value = value[1 : len(value)-1]
		}
		values[key] = value
	}
	first := func(keys ...string) (string, bool) {
		for _, k := range keys {
			if v, ok := values[k]; ok {
				return v, true
			}
		}
		return "", false
	}
	r.key, _ = first("IMAGE_ID", "ID")
	r.version, _ = first("IMAGE_VERSION", "VERSION", "VERSION_ID", "BUILD_ID")
	_, ok = first("PRETTY_NAME", "IMAGE_ID", "NAME", "ID")
	return r, ok
}

// header reads n bytes at off.
func header(r io.ReaderAt, off int64, n int) ([]byte, error) {
	b := make([]byte, n)
	got, err := r.ReadAt(b, off)
	switch {
	case got == n:
		return b, nil
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%w: it ends before byte %d", errImage, off+int64(n))
	}
	return nil, err
}
