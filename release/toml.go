package release

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// statement is one line of a document: a table header, or a key with its value.
type statement struct {
	line   int
	header string // "[meta]", "[[image]]"; "" for a key
	key    string
	value  any // string, int64, bool, time.Time, []string
}

// scanner reads the plain spelling of TOML 1.0 that the package documentation names, a statement at a time. It does not know the
// keys and tables of a document.
type scanner struct {
	text string // the rest
	line int    // number of the last line that was cut off, from 1
}

// plainText refuses bytes that are not UTF-8 and control characters, which TOML allows nowhere.
func plainText(data []byte) error {
	line := 1
	for rest := data; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		switch {
		case r == utf8.RuneError && n == 1:
			return &SyntaxError{Line: line, Msg: fmt.Sprintf("byte %#02x is not UTF-8", rest[0])}
		case r == '\n':
			line++
		case r == '\r' && len(rest) > 1 && rest[1] == '\n', r == '\t':
		case unicode.IsControl(r):
			return &SyntaxError{Line: line, Msg: fmt.Sprintf("control character %U", r)}
		}
		rest = rest[n:]
	}
	return nil
}

// cut cuts the next line off.
func (s *scanner) cut() (line string, ok bool) {
	if s.text == "" {
		return "", false
	}
	line, s.text, _ = strings.Cut(s.text, "\n")
	s.line++
	return strings.TrimSuffix(line, "\r"), true
}

// next reads the next statement; ok is false at the end.
func (s *scanner) next() (st statement, ok bool, err error) {
	for {
		line, ok := s.cut()
		if !ok {
			return statement{}, false, nil
		}
		if line = trim(line); line == "" || line[0] == '#' {
			continue
		}
		st := statement{line: s.line}
		if line[0] == '[' {
			st.header, err = s.header(line)
		} else {
			err = s.assignment(line, &st)
		}
		return st, err == nil, err
	}
}

func trim(s string) string { return strings.TrimLeft(s, " \t") }

func (s *scanner) errorf(format string, a ...any) error {
	return &SyntaxError{Line: s.line, Msg: fmt.Sprintf(format, a...)}
}

// header reads [name] or [[name]]; name is one or more bare keys joined by dots.
func (s *scanner) header(line string) (string, error) {
	end := strings.LastIndexByte(strings.SplitN(line, "#", 2)[0], ']') + 1
	header := line[:end]
	name := strings.TrimSuffix(strings.TrimPrefix(header, "["), "]")
	if strings.HasPrefix(header, "[[") {
		name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	}
	for part := range strings.SplitSeq(name, ".") {
		if !isBare(part) {
			return "", s.errorf("header %.60q, expected [name] or [[name]]", line)
		}
	}
	if header != "["+name+"]" && header != "[["+name+"]]" {
		return "", s.errorf("header %.60q, expected [name] or [[name]]", line)
	}
	return header, s.end(line[end:])
}

// isBare reports whether a key may stand without quotes.
func isBare(key string) bool {
	return key != "" && strings.Trim(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == ""
}

// end refuses anything but a comment after a statement.
func (s *scanner) end(rest string) error {
	if rest = trim(rest); rest != "" && rest[0] != '#' {
		return s.errorf("%.40q follows the statement, expected the end of the line", rest)
	}
	return nil
}

func (s *scanner) assignment(line string, st *statement) error {
	key, rest, ok := strings.Cut(line, "=")
	key = strings.TrimRight(key, " \t")
	if !ok || !isBare(key) {
		return s.errorf("%.60q, expected KEY = VALUE with a key of letters, digits, _ and -", line)
	}
	st.key = key
	value, rest, err := s.value(trim(rest))
	if err != nil {
		return err
	}
	st.value = value
	return s.end(rest)
}

// value reads the value that text begins with, and returns the rest of its last line.
func (s *scanner) value(text string) (value any, rest string, err error) {
	switch {
	case strings.HasPrefix(text, "["):
		return s.array(text[1:])
	case strings.HasPrefix(text, `"`), strings.HasPrefix(text, "'"):
		return s.str(text)
	}
	n := strings.IndexAny(text, " \t,]#")
	if n < 0 {
		n = len(text)
	}
	word, rest := text[:n], text[n:]
	switch {
	case word == "true" || word == "false":
		return word == "true", rest, nil
	case len(word) > 4 && word[4] == '-':
		t, err := parseTime(word)
		if err != nil {
			return nil, "", s.errorf("time %.40q, expected RFC 3339 such as 2026-01-31T12:00:00Z", word)
		}
		return t, rest, nil
	case isDecimal(word):
		n, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			return nil, "", s.errorf("integer %.40s is out of range", word)
		}
		return n, rest, nil
	}
	return nil, "", s.errorf("value %.40q, expected a string, a decimal integer, true, false, a time or an array of strings", text)
}

// isDecimal reports whether s is an integer without plus sign, leading zeros and underscores.
func isDecimal(s string) bool {
	digits := strings.TrimPrefix(s, "-")
	return digits != "" && strings.Trim(digits, "0123456789") == "" && (digits[0] != '0' || s == "0")
}

// timeForm is RFC 3339 with an offset, with at most the nanoseconds that a time holds. Package time alone is laxer: it takes
// hours of one digit, a comma before the fraction, and offsets of 24 hours.
var timeForm = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

func parseTime(s string) (time.Time, error) {
	if !timeForm.MatchString(s) {
		return time.Time{}, errors.New("not RFC 3339")
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	return t.UTC(), err
}

// array reads the strings after the opening bracket. They may be on several lines, with comments.
func (s *scanner) array(text string) (value any, rest string, err error) {
	list := []string{}
	for comma := true; ; {
		for text = trim(text); text == "" || text[0] == '#'; text = trim(text) {
			var ok bool
			if text, ok = s.cut(); !ok {
				return nil, "", s.errorf("array is not closed, expected ]")
			}
		}
		switch {
		case text[0] == ']':
			return list, text[1:], nil
		case text[0] == ',' && !comma:
			comma, text = true, text[1:]
			continue
		case !comma || text[0] != '"' && text[0] != '\'':
			return nil, "", s.errorf("%.40q in an array, expected strings with a comma between them", text)
		}
		if len(list) == maxList {
			return nil, "", s.errorf("array has more than %d strings", maxList)
		}
		var item string
		if item, text, err = s.str(text); err != nil {
			return nil, "", err
		}
		list, comma = append(list, item), false
	}
}

// str reads the string that text begins with.
func (s *scanner) str(text string) (value string, rest string, err error) {
	quote := text[:1]
	if strings.HasPrefix(text, strings.Repeat(quote, 3)) {
		return "", "", s.errorf("multi-line string, expected a string on one line")
	}
	text = text[1:]
	var b strings.Builder
	for {
		n := strings.IndexAny(text, quote+`\`)
		if n < 0 {
			return "", "", s.errorf("string is not closed, expected %s", quote)
		}
		b.WriteString(text[:n])
		switch text = text[n:]; {
		case strings.HasPrefix(text, quote):
			return b.String(), text[1:], nil
		case quote == "'": // a backslash stands for itself
			b.WriteByte('\\')
			text = text[1:]
		default:
			r, size, err := s.escape(text)
			if err != nil {
				return "", "", err
			}
			b.WriteRune(r)
			text = text[size:]
		}
	}
}

// escape reads the escape sequence that text begins with.
func (s *scanner) escape(text string) (r rune, size int, err error) {
	if len(text) < 2 {
		return 0, 0, s.errorf("string ends in a backslash")
	}
	if i := strings.IndexByte(`btnfr"\`, text[1]); i >= 0 {
		return rune("\b\t\n\f\r\"\\"[i]), 2, nil
	}
	size = map[byte]int{'u': 6, 'U': 10}[text[1]]
	if size == 0 || len(text) < size {
		return 0, 0, s.errorf("escape sequence %.10q, expected one of TOML 1.0", text)
	}
	n, err := strconv.ParseUint(text[2:size], 16, 32)
	if err != nil || n > unicode.MaxRune || !utf8.ValidRune(rune(n)) {
		return 0, 0, s.errorf("escape sequence %.10q is no character", text)
	}
	return rune(n), size, nil
}

// quote writes a string as the scanner reads it. Bytes that are not UTF-8 stay, and are refused by the reader.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for s != "" {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case unicode.IsControl(r):
			fmt.Fprintf(&b, `\u%04X`, r)
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			fallthrough
		default:
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	b.WriteByte('"')
	return b.String()
}
