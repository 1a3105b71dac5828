package release

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// format is the version of every document that this package reads and writes.
const format = 1

// MaxSize limits a document, in bytes, without its signature.
const MaxSize = 1 << 20

// Limits on the content of a document. Lengths are in bytes.
const (
	maxName   = 64   // a role, a slot, a key of [meta]
	maxLabel  = 255  // product, version, a hardware revision
	maxText   = 1024 // notes, a file name, a value of [meta]
	maxList   = 64   // strings of an array
	maxImages = 128  // of a release
	maxRoles  = 32   // of a release
	maxMeta   = 64   // keys of [meta]

	maxIndex = 1<<63 - 1 // a rollback index, the number of a keyring

	maxEntries      = 1024     // releases of a channel
	maxCertificates = 64       // of a keyring
	maxCertificate  = 64 << 10 // bytes of one
)

// printable accepts one line of text.
func printable(s string, limit int) error {
	switch {
	case len(s) > limit:
		return fmt.Errorf("has %d bytes, expected at most %d", len(s), limit)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("is %.80q, expected one line of printable text", s)
	}
	return nil
}

// plain accepts text that is not empty and has no blanks around it.
func plain(limit int) func(string) error {
	return func(s string) error {
		if s == "" || strings.TrimSpace(s) != s {
			return fmt.Errorf("is %.80q, expected text without blanks around it", s)
		}
		return printable(s, limit)
	}
}

// name accepts names that a role or a slot may have on a command line, in a path and in an address.
func name(s string) error {
	if len(s) > maxName || !isBare(strings.ReplaceAll(s, ".", "_")) || s[0] == '.' || s[0] == '-' {
		return fmt.Errorf("is %.80q, expected up to %d letters, digits, '_', '-' and '.'", s, maxName)
	}
	return nil
}

// digest accepts a sha256 as lower-case hex digits.
func digest(s string) error {
	if b, err := hex.DecodeString(s); err != nil || len(b) != 32 || strings.ToLower(s) != s {
		return fmt.Errorf("is %.80q, expected 64 lower-case hex digits", s)
	}
	return nil
}

// path accepts a file name relative to the document that stays below its folder, on a file system as in an address: no
// scheme, host, query, escape, absolute path, "." or "..".
func path(s string) error {
	if err := plain(maxText)(s); err != nil {
		return err
	}
	if strings.ContainsAny(s, `\:%?#`) {
		return fmt.Errorf("is %.80q, expected a relative file name without \\ : %% ? #", s)
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || part == "." || part == ".." || strings.TrimSpace(part) != part {
			return fmt.Errorf("is %.80q, expected a relative file name without empty, \".\" and \"..\" segments", s)
		}
	}
	return nil
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
