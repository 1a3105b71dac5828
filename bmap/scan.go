package bmap

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds how deep elements nest; real maps have three levels.
const maxDepth = 16

// spaces is the white space of XML.
const spaces = " \t\r\n"

// A SyntaxError is a fault in a bmap file.
type SyntaxError struct {
	Line    int    // from 1; 0 if the fault has no line
	Element string // name of the element, "" for none
	Msg     string // what was found and what was expected
}

func (e *SyntaxError) Error() string {
	var b strings.Builder
	b.WriteString("bmap")
	if e.Line > 0 {
		fmt.Fprintf(&b, " line %d", e.Line)
	}
	if e.Element != "" {
		fmt.Fprintf(&b, ": <%s>", e.Element)
	}
	return b.String() + ": " + e.Msg
}

// A scanner reads the elements of the file.
type scanner struct{ lexer }

func newScanner(data []byte) (*scanner, error) {
	if len(data) > MaxFileSize {
		return nil, &SyntaxError{Msg: fmt.Sprintf("file has %d bytes, expected at most %d", len(data), MaxFileSize)}
	}
	if i := invalidByte(data); i >= 0 {
		line := 1 + bytes.Count(data[:i], []byte("\n"))
		return nil, &SyntaxError{Line: line, Msg: fmt.Sprintf("byte 0x%02x at offset %d is not UTF-8 text", data[i], i)}
	}
	return &scanner{newLexer(data)}, nil
}

// invalidByte returns the offset of the first byte that is neither a character of XML nor part of one, or -1.
func invalidByte(data []byte) int {
	for i := 0; i < len(data); {
		switch c := data[i]; {
		case c >= ' ' && c < utf8.RuneSelf || c == '\n' || c == '\t' || c == '\r':
			i++
		case c < utf8.RuneSelf:
			return i
		default:
			r, n := utf8.DecodeRune(data[i:])
			if r == utf8.RuneError && n == 1 || !isChar(r) {
				return i
			}
			i += n
		}
	}
	return -1
}

// next returns the next token, without comments.
func (s *scanner) next() (tokenKind, error) {
	for {
		kind, err := s.token()
		if err != nil || kind != tokenComment {
			return kind, err
		}
	}
}

// children calls start for each child of the element called name, whose start tag was read last, up to its end tag.
// start must read the child whole. Only white space and comments may stand between children.
func (s *scanner) children(name string, start func(tag) error) error {
	for {
		kind, err := s.next()
		if err != nil {
			return err
		}
		switch kind {
		case tokenEnd:
			return s.cutOff(name)
		case tokenClose:
			return s.checkClose(name)
		case tokenStart:
			err = start(s.tag)
		default:
			err = s.checkBlank(name)
		}
		if err != nil {
			return err
		}
	}
}

// text reads the plain text of the element called name, whose start tag was read last, up to its end tag. It returns
// the text without the white space around it, and where that stands in the file. Nothing may split or encode the text, neither a
// comment nor CDATA nor an entity: other readers disagree on such values.
func (s *scanner) text(name string) ([]byte, span, error) {
	line, lineFrom, from, plain := s.line, s.lineFrom, s.at.to, true
	for {
		kind, err := s.token()
		if err != nil {
			return nil, span{}, err
		}
		switch kind {
		case tokenEnd:
			return nil, span{}, s.cutOff(name)
		case tokenStart:
			return nil, span{}, s.errorf(name, "contains element <%.40s>, expected plain text", s.tag.name)
		case tokenClose:
			if err := s.checkClose(name); err != nil {
				return nil, span{}, err
			}
			at := s.trim(span{from, s.at.from})
			raw := s.data[at.from:at.to]
			s.line, s.lineFrom = line, lineFrom
			if !plain || bytes.IndexByte(raw, '&') >= 0 {
				return nil, span{}, s.errorf(name, "contains a comment, CDATA or an entity, expected plain text")
			}
			return raw, at, nil
		case tokenText:
		default:
			plain = false
		}
	}
}

// skip reads past the element whose start tag was read last.
func (s *scanner) skip(start tag, depth int) error {
	name := string(start.name)
	if depth > maxDepth {
		return s.errorf(name, "is nested deeper than %d elements", maxDepth)
	}
	for {
		kind, err := s.next()
		if err != nil {
			return err
		}
		switch kind {
		case tokenEnd:
			return s.cutOff(name)
		case tokenClose:
			return s.checkClose(name)
		case tokenStart:
			if err := s.skip(s.tag, depth+1); err != nil {
				return err
			}
		}
	}
}

// checkClose compares the end tag that was read last with the element it must end.
func (s *scanner) checkClose(name string) error {
	if string(s.tag.name) != name {
		return s.errorf(name, "ends with </%.40s>", s.tag.name)
	}
	return nil
}

// checkBlank refuses the text or CDATA section that was read last, unless it is white space.
func (s *scanner) checkBlank(parent string) error {
	text := s.data[s.at.from:s.at.to]
	white := len(text) - len(bytes.TrimLeft(text, spaces))
	if white == len(text) {
		return nil
	}
	s.line += bytes.Count(text[:white], []byte("\n"))
	return s.errorf(parent, "has text %.40q between elements, expected white space", bytes.TrimSpace(text))
}

func (s *scanner) trim(at span) span {
	for at.from < at.to && strings.IndexByte(spaces, s.data[at.from]) >= 0 {
		at.from++
	}
	for at.from < at.to && strings.IndexByte(spaces, s.data[at.to-1]) >= 0 {
		at.to--
	}
	return at
}

func (s *scanner) cutOff(name string) error {
	return s.errorf(name, "is cut off: the file ends inside it")
}
