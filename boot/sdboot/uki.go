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

// release holds the fields by which the boot loader orders entries before it compares their names. Those of a unified
// kernel image (UKI) are in its .osrel section (os-release(5)).
type release struct {
	key, version string // of a UKI: IMAGE_ID or ID; the first of IMAGE_VERSION, VERSION, VERSION_ID and BUILD_ID
	machineID    string // of a Type #1 entry
	machine      uint16 // of a UKI: the boot loader ignores images for other machines
}

// compare orders as the boot loader does: entries without a key last, then by key, then the higher version first.
func (r release) compare(other release) int {
	if r.key == "" || other.key == "" {
		return cmp.Compare(min(len(other.key), 1), min(len(r.key), 1))
	}
	return cmp.Or(strings.Compare(r.key, other.key), strings.Compare(r.machineID, other.machineID), versions(other.version, r.version))
}

func (r release) String() string {
	return fmt.Sprintf("IMAGE_ID or ID %q, version %q and machine %#x", r.key, r.version, r.machine)
}

var (
	errEntry = errors.New("not an entry")               // the boot loader ignores it
	errImage = errors.New("not a unified kernel image") // the boot loader ignores it
	errCut   = errors.New("truncated")                  // the boot loader lists it, but the firmware does not start it
)

const (
	peHeader    = 96 // up to the last field of the optional header that the boot loader reads
	maxSections = 96 // Microsoft, "PE Format"
)

// parseUKI reads the parts of an image that the boot loader reads (pe.c, boot.c): the section table and .osrel. It refuses
// images that versions of the boot loader read differently: a second .osrel section, or one longer than its data. For an
// image whose sections extend beyond its size it returns the release and errCut.
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
		return release{}, fmt.Errorf("%w: no PE header", errImage)
	}
	if n == 0 || n > maxSections {
		return release{}, fmt.Errorf("%w: %d sections, expected 1 to %d", errImage, n, maxSections)
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
		return release{}, fmt.Errorf("%w: section .osrel has no PRETTY_NAME, IMAGE_ID, NAME or ID", errImage)
	}
	rel.machine = binary.LittleEndian.Uint16(pe[4:])
	for ; len(table) > 0; table = table[40:] {
		if end := int64(binary.LittleEndian.Uint32(table[20:])) + int64(binary.LittleEndian.Uint32(table[16:])); end > size {
			return rel, fmt.Errorf("%w: ends before byte %d", errCut, end)
		}
	}
	return rel, nil
}

// osRelease returns the content of the only .osrel section.
func osRelease(r io.ReaderAt, table []byte) (string, error) {
	var found []byte
	for ; len(table) > 0; table = table[40:] {
		if !bytes.HasPrefix(table, []byte(".osrel")) {
			continue
		}
		if found != nil || table[6] != 0 {
			return "", fmt.Errorf("%w: more than one .osrel section", errImage)
		}
		found = table[:40]
	}
	if found == nil {
		return "", fmt.Errorf("%w: no .osrel section", errImage)
	}
	size, raw := binary.LittleEndian.Uint32(found[8:]), binary.LittleEndian.Uint32(found[16:])
	if size == 0 || size > raw || size > maxEntry {
		return "", fmt.Errorf("%w: section .osrel has %d bytes and %d in the file, expected 1 to %d", errImage, size, raw, maxEntry)
	}
	text, err := header(r, int64(binary.LittleEndian.Uint32(found[20:])), int(size))
	text, _, _ = bytes.Cut(text, []byte{0})
	return string(text), err
}

// parseRelease parses os-release as the boot loader does; ok is false if the boot loader finds no name in it.
func parseRelease(text string) (r release, ok bool) {
	values := map[string]string{}
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\n' || r == '\r' }) {
		key, value, found := strings.Cut(strings.Trim(line, " \t"), "=")
		if !found {
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

// header reads n bytes at offset off.
func header(r io.ReaderAt, off int64, n int) ([]byte, error) {
	b := make([]byte, n)
	got, err := r.ReadAt(b, off)
	switch {
	case got == n:
		return b, nil
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%w: ends before byte %d", errImage, off+int64(n))
	}
	return nil, err
}
