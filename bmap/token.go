package bmap

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// A tokenKind is the kind of a token.
type tokenKind int

const (
	tokenEnd     tokenKind = iota // of the file
	tokenStart                    // <a b="c">, also of <a/>, which a tokenClose follows
	tokenClose                    // </a>
	tokenText                     // text between tags, not decoded
	tokenCDATA                    // <![CDATA[...]]>
	tokenComment                  // <!--...-->, or the XML declaration
)

// A lexer splits the file into tokens with their line and exact byte span. It reads the subset of XML 1.0 in UTF-8 that a bmap needs
// and all readers parse alike: no DOCTYPE, no processing instruction, no name space, no duplicate attribute, only predefined entities.
// encoding/xml takes ten times as long on a large map, and does not report the position of values; the tests compare the two.
type lexer struct {
	data     []byte
	at       span // bytes of the last token
	line     int  // line on which the last token starts, from 1
	lineFrom int  // offset that line was counted up to
	tag      tag  // of the last tokenStart or tokenClose
	unclosed bool // the last tag was <a/>, whose end is still to come
	start    int  // offset after a byte order mark
}

func newLexer(data []byte) lexer {
	// A byte order mark belongs to the encoding (XML 1.0, section 4.3.3).
	start := len(data) - len(bytes.TrimPrefix(data, []byte("\ufeff")))
	return lexer{data: data, line: 1, start: start, at: span{to: start}}
}

// token reads the next one.
func (l *lexer) token() (tokenKind, error) {
	l.at.from = l.at.to
	if l.unclosed {
		l.unclosed = false
		return tokenClose, nil
	}
	l.line += bytes.Count(l.data[l.lineFrom:l.at.from], []byte("\n"))
	l.lineFrom = l.at.from
	rest := l.data[l.at.from:]
	switch {
	case len(rest) == 0:
		return tokenEnd, nil
	case rest[0] != '<':
		return tokenText, l.text(rest)
	case bytes.HasPrefix(rest, []byte("</")):
		return tokenClose, l.closeTag(rest)
	case bytes.HasPrefix(rest, []byte("<!--")):
		return tokenComment, l.comment(rest)
	case bytes.HasPrefix(rest, []byte("<![CDATA[")):
		return tokenCDATA, l.until(rest, "<![CDATA[", "]]>", "CDATA section")
	case bytes.HasPrefix(rest, []byte("<!")):
		return 0, l.errorf("", "directive <!%.20s, expected no DOCTYPE or other directive", rest[2:])
	case bytes.HasPrefix(rest, []byte("<?")):
		return tokenComment, l.instruction(rest)
	}
	return tokenStart, l.startTag(rest)
}

// until ends the token with the first end that follows open.
func (l *lexer) until(rest []byte, open, end, what string) error {
	n := bytes.Index(rest[len(open):], []byte(end))
	if n < 0 {
		return l.malformed("%s without %s", what, end)
	}
	l.at.to = l.at.from + len(open) + n + len(end)
	return nil
}

func (l *lexer) text(rest []byte) error {
	n := bytes.IndexByte(rest, '<')
	if n < 0 {
		n = len(rest)
	}
	l.at.to = l.at.from + n
	if bytes.Contains(rest[:n], []byte("]]>")) {
		return l.malformed("]]> outside a CDATA section")
	}
	return l.checkEntities(rest[:n])
}

func (l *lexer) comment(rest []byte) error {
	const open = len("<!--")
	n := bytes.Index(rest[open:], []byte("--"))
	if n < 0 || !bytes.HasPrefix(rest[open+n:], []byte("-->")) {
		return l.malformed("comment without -->, or with -- in it")
	}
	l.at.to = l.at.from + open + n + len("-->")
	return nil
}

// instruction reads the XML declaration, which may only stand at the very start.
func (l *lexer) instruction(rest []byte) error {
	if err := l.until(rest, "<?", "?>", "processing instruction"); err != nil {
		return err
	}
	body := rest[len("<?") : l.at.to-l.at.from-len("?>")]
	target := nameOf(body)
	if string(target) != "xml" || l.at.from != l.start {
		return l.errorf("", "processing instruction <?%.40s, expected none but the XML declaration at the start", body)
	}
	body = body[len(target):]
	for _, want := range []string{"version", "encoding", "standalone"} {
		a, rest, err := l.attribute(body)
		if err != nil {
			return err
		}
		if string(a.name) != want {
			continue
		}
		body = rest
		value := strings.ToLower(string(a.value))
		if want == "version" && value != "1.0" || want == "encoding" && value != "utf-8" {
			return l.malformed("%s %.40q, expected version 1.0 and encoding UTF-8", want, a.value)
		}
	}
	if first, _, _ := l.attribute(rest[len("<?xml"):]); string(first.name) != "version" || len(bytes.Trim(body, spaces)) > 0 {
		return l.malformed("XML declaration %.60q", rest[:l.at.to-l.at.from])
	}
	return nil
}

// checkEntities accepts character references and the five predefined entities of XML.
func (l *lexer) checkEntities(text []byte) error {
	for {
		_, after, ok := bytes.Cut(text, []byte("&"))
		if !ok {
			return nil
		}
		name, _, ok := bytes.Cut(after[:min(len(after), 12)], []byte(";"))
		if !ok || !isEntity(string(name)) {
			return l.malformed("entity &%.20s, expected one that XML predefines", firstLine(after))
		}
		text = after[len(name)+1:]
	}
}

func isEntity(name string) bool {
	switch name {
	case "lt", "gt", "amp", "apos", "quot":
		return true
	}
	digits, ok := strings.CutPrefix(name, "#")
	if !ok {
		return false
	}
	base := 10
	if hex, ok := strings.CutPrefix(digits, "x"); ok {
		digits, base = hex, 16
	}
	r := 0
	for i := range len(digits) {
		d := strings.IndexByte("0123456789abcdef", digits[i]|0x20)
		if d < 0 || d >= base || r > utf8.MaxRune {
			return false
		}
		r = r*base + d
	}
	return digits != "" && r <= utf8.MaxRune && isChar(rune(r)) && utf8.ValidRune(rune(r))
}

// isChar is Char of XML 1.0 section 2.2, for valid UTF-8.
func isChar(r rune) bool {
	return r >= ' ' && r != 0xfffe && r != 0xffff || r == '\n' || r == '\t' || r == '\r'
}

func firstLine(text []byte) []byte {
	line, _, _ := bytes.Cut(text[:min(len(text), 100)], []byte("\n"))
	return line
}

func (l *lexer) malformed(format string, args ...any) error {
	return l.errorf("", "not well-formed XML: "+format, args...)
}

// errorf makes an error at the line of the last token.
func (l *lexer) errorf(element, format string, args ...any) error {
	return &SyntaxError{Line: l.line, Element: element, Msg: fmt.Sprintf(format, args...)}
}
