package sdboot

import (
	"cmp"
	"strings"
)

// versions compares version strings as the boot loader does (UAPI.10 version format; strverscmp_improved): by segments of
// digits and of letters. A segment behind "~" is the oldest, then "-", "^" and "."; other characters only separate.
func versions(a, b string) int {
	for {
		a, b = strings.TrimLeftFunc(a, separates), strings.TrimLeftFunc(b, separates)
		for _, mark := range "~-^." {
			if mark == '-' && (a == "" || b == "") { // the longer one is newer
				return cmp.Compare(min(len(a), 1), min(len(b), 1))
			}
			x, y := strings.HasPrefix(a, string(mark)), strings.HasPrefix(b, string(mark))
			switch {
			case x && !y:
				return -1
			case y && !x:
				return 1
			case x:
				a, b = a[1:], b[1:]
			}
		}
		number := lead(a, digit) != "" || lead(b, digit) != ""
		kind := letter
		if number {
			kind = digit
		}
		x, y := lead(a, kind), lead(b, kind)
		a, b = a[len(x):], b[len(y):]
		order := strings.Compare(x, y)
		if number {
			order = cmp.Or(cmp.Compare(min(len(x), 1), min(len(y), 1)), numbers(x, y))
		}
		if order != 0 {
			return order
		}
	}
}

func numbers(x, y string) int {
	x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
	return cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(x, y))
}

// lead returns the longest prefix of s of one kind of character.
func lead(s string, kind func(rune) bool) string {
	return s[:len(s)-len(strings.TrimLeftFunc(s, kind))]
}

func digit(r rune) bool     { return '0' <= r && r <= '9' }
func letter(r rune) bool    { return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' }
func separates(r rune) bool { return !digit(r) && !letter(r) && !strings.ContainsRune("~-^.", r) }
