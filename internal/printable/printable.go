// Package printable makes text from outside harmless where people read it: a file name, a disk model, a server's answer or a user ID must
// not move a terminal's cursor, change the order of its characters, or begin a line of its own.
//
// Guarantees: after [Line] and [Fprintf] no byte of an argument begins a line; after [Text] and [Writer] no control character but line feed and tab, no
// bidirectional control and no line separator reaches the output, and the output is valid UTF-8.
//
// The package does not judge words: a printable lie passes.
package printable

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// substitute replaces every character that is not printable.
const substitute = '?'

// Line returns s on one line: line feeds, as between joined errors, become "; ", and every other character that is not printable a question mark.
func Line(s string) string {
	return strings.Map(keep, strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "; "))
}

// Text replaces every character of whole lines that is not printable; line feeds and tabs stay.
func Text(b []byte) []byte {
	return bytes.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		return keep(r)
	}, b)
}

func keep(r rune) rune {
	if unicode.IsPrint(r) {
		return r
	}
	return substitute
}

// Fprintf prints as fmt.Fprintf does, with every argument on one line as [Line] returns it. The format itself is kept. An argument of a width or
// precision "*" has to be an int.
func Fprintf(w io.Writer, format string, a ...any) (int, error) {
	clean := make([]any, len(a))
	for i, v := range a {
		clean[i] = argument{v}
		if n, ok := v.(int); ok {
			clean[i] = n
		}
	}
	return fmt.Fprintf(w, format, clean...)
}

// argument formats a value with the verb and flags of the format, then cleans the text.
type argument struct{ value any }

func (a argument) Format(s fmt.State, verb rune) {
	_, _ = io.WriteString(s, Line(fmt.Sprintf(fmt.FormatString(s, verb), a.value)))
}

// Writer replaces, on the way to another writer, every character that is not printable; line feeds and tabs pass. A character that is split
// between two writes is handled as a whole. It is safe for concurrent use.
type Writer struct {
	mu    sync.Mutex
	w     io.Writer
	split []byte // first bytes of a character whose rest has not been written yet
}

// NewWriter returns a [Writer] to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Unwrap returns the writer behind it, for output that is no text.
func (p *Writer) Unwrap() io.Writer { return p.w }

// Write implements io.Writer. It returns len(b), or the error of the other writer and 0.
func (p *Writer) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := append(p.split, b...)
	whole := len(text)
	for i := 1; i <= min(len(text), utf8.UTFMax-1); i++ {
		if utf8.RuneStart(text[len(text)-i]) {
			if !utf8.FullRune(text[len(text)-i:]) {
				whole -= i
			}
			break
		}
	}
	p.split = bytes.Clone(text[whole:])
	if _, err := p.w.Write(Text(text[:whole])); err != nil {
		return 0, err
	}
	return len(b), nil
}

// JSON escapes every character of encoded JSON that is not printable. encoding/json escapes C0 and the line separators only, not DEL, C1 and the
// bidirectional controls. Such characters occur in strings only, where the escape means the same.
func JSON(encoded []byte) []byte {
	var b bytes.Buffer
	for _, r := range string(encoded) {
		switch {
		case r == '\n' || unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.Bytes()
}
