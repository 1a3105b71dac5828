package bmap

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Limits of the XML itself; real maps have two attributes and four levels.
const (
	maxDepth      = 16
	maxAttributes = 16
)

// A SyntaxError says what is wrong with a bmap file and where.
type SyntaxError struct {
	Line    int    // from 1; 0 when the fault has no line
	Element string // name of the element, "" when there is none
	Msg     string // what it is and what was expected
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

// A scanner cuts the file into XML tokens with their line and exact byte span. It lets through only the XML that every
// reader understands in the same way: no DOCTYPE, no processing instruction, no name with a prefix, no attribute twice.
type scanner struct {
	data []byte
	dec  *xml.Decoder
	line int  // line on which the last token starts
	at   span // bytes of the last token
}

func newScanner(data []byte) (*scanner, error) {
	if len(data) > MaxFileSize {
		return nil, &SyntaxError{Msg: fmt.Sprintf("file has %d bytes, expected at most %d", len(data), MaxFileSize)}
	}
	if i := invalidByte(data); i >= 0 {
		line := 1 + bytes.Count(data[:i], []byte("\n"))
		return nil, &SyntaxError{Line: line, Msg: fmt.Sprintf("byte 0x%02x at offset %d is not UTF-8 text", data[i], i)}
	}
	return &scanner{data: data, dec: xml.NewDecoder(bytes.NewReader(data))}, nil
}

// invalidByte returns the offset of the first control byte or broken UTF-8 sequence, or -1. encoding/xml does not look
// inside comments.
func invalidByte(data []byte) int {
	for i := 0; i < len(data); {
		switch c := data[i]; {
		case c >= ' ' && c < utf8.RuneSelf || c == '\n' || c == '\t' || c == '\r':
			i++
		case c < utf8.RuneSelf:
			return i
		default:
			r, n := utf8.DecodeRune(data[i:])
			if r == utf8.RuneError && n == 1 {
				return i
			}
			i += n
		}
	}
	return -1
}

// next returns the next start, end or text token, or io.EOF. It drops comments and the XML declaration.
func (s *scanner) next() (xml.Token, error) {
	for {
		s.line, _ = s.dec.InputPos()
		s.at.from = int(s.dec.InputOffset())
		// RawToken: names as written; who calls matches the end tags.
		tok, err := s.dec.RawToken()
		s.at.to = int(s.dec.InputOffset())
		if err != nil {
			return nil, s.wrap(err)
		}
		switch t := tok.(type) {
		case xml.StartElement:
			return t, s.checkStart(t)
		case xml.Comment:
		case xml.ProcInst:
			if t.Target != "xml" || s.at.from != 0 {
				return nil, s.errorf("", "processing instruction <?%.40s, expected none but the XML declaration at the start", t.Target)
			}
		case xml.Directive:
			return nil, s.errorf("", "directive <!%.20s, expected no DOCTYPE or other directive", t)
		default:
			return tok, nil
		}
	}
}

func (s *scanner) checkStart(t xml.StartElement) error {
	if t.Name.Space != "" {
		return s.errorf(t.Name.Local, "has the name-space prefix %.40q, expected none", t.Name.Space)
	}
	if len(t.Attr) > maxAttributes {
		return s.errorf(t.Name.Local, "has %d attributes, expected at most %d", len(t.Attr), maxAttributes)
	}
	for i, a := range t.Attr {
		if a.Name.Space != "" || a.Name.Local == "xmlns" {
			return s.errorf(t.Name.Local, "has a name-space attribute, expected none")
		}
		for _, b := range t.Attr[:i] {
			if a.Name == b.Name {
				return s.errorf(t.Name.Local, "has attribute %s twice", a.Name.Local)
			}
		}
	}
	return nil
}

// children calls start for each child of the element called name, whose start tag was read last, up to its end tag.
// start must read the child whole. Only white space and comments may stand between children.
func (s *scanner) children(name string, start func(xml.StartElement) error) error {
	for {
		tok, err := s.next()
		if err != nil {
			return s.inside(name, err)
		}
		switch t := tok.(type) {
		case xml.StartElement:
			err = start(t)
		case xml.EndElement:
			return s.checkEnd(t, name)
		case xml.CharData:
			err = s.checkBlank(t, name)
		}
		if err != nil {
			return err
		}
	}
}

// text reads the plain text of the element called name, whose start tag was read last, up to its end tag. It returns
// the text without the white space around it, and where that stands in the file. Nothing may split or encode the text,
// neither a comment nor CDATA nor an entity: other readers disagree on what such a value is.
func (s *scanner) text(name string) ([]byte, span, error) {
	line, from := s.line, s.at.to
	for {
		tok, err := s.next()
		if err != nil {
			return nil, span{}, s.inside(name, err)
		}
		switch t := tok.(type) {
		case xml.StartElement:
			return nil, span{}, s.errorf(name, "contains element <%.40s>, expected plain text", t.Name.Local)
		case xml.EndElement:
			if err := s.checkEnd(t, name); err != nil {
				return nil, span{}, err
			}
			at := s.trim(span{from, s.at.from})
			raw := s.data[at.from:at.to]
			s.line = line
			if bytes.ContainsAny(raw, "<&") {
				return nil, span{}, s.errorf(name, "contains a comment, CDATA or an entity, expected plain text")
			}
			return raw, at, nil
		}
	}
}

// skip reads past the element whose start tag was read last.
func (s *scanner) skip(start xml.StartElement, depth int) error {
	if depth > maxDepth {
		return s.errorf(start.Name.Local, "is nested deeper than %d elements", maxDepth)
	}
	for {
		tok, err := s.next()
		if err != nil {
			return s.inside(start.Name.Local, err)
		}
		switch t := tok.(type) {
		case xml.StartElement:
			if err := s.skip(t, depth+1); err != nil {
				return err
			}
		case xml.EndElement:
			return s.checkEnd(t, start.Name.Local)
		}
	}
}

func (s *scanner) checkEnd(t xml.EndElement, name string) error {
	if t.Name.Local != name || t.Name.Space != "" {
		return s.errorf(name, "ends with </%.40s>", t.Name.Local)
	}
	return nil
}

func (s *scanner) checkBlank(text []byte, parent string) error {
	white := len(text) - len(bytes.TrimLeft(text, spaces))
	if white == len(text) {
		return nil
	}
	s.line += bytes.Count(text[:white], []byte("\n"))
	return s.errorf(parent, "has text %.40q between elements, expected white space", bytes.TrimSpace(text))
}

// spaces is the white space of XML.
const spaces = " \t\r\n"

func (s *scanner) trim(at span) span {
	for at.from < at.to && strings.IndexByte(spaces, s.data[at.from]) >= 0 {
		at.from++
	}
	for at.from < at.to && strings.IndexByte(spaces, s.data[at.to-1]) >= 0 {
		at.to--
	}
	return at
}

// inside turns the end of the file inside an element into an error.
func (s *scanner) inside(name string, err error) error {
	if errors.Is(err, io.EOF) {
		return s.errorf(name, "is cut off: the file ends inside it")
	}
	return err
}

func (s *scanner) wrap(err error) error {
	if bad, ok := errors.AsType[*xml.SyntaxError](err); ok {
		return &SyntaxError{Line: bad.Line, Msg: "not well-formed XML: " + bad.Msg}
	}
	if errors.Is(err, io.EOF) {
		return err
	}
	return s.errorf("", "not well-formed XML: %s", strings.TrimPrefix(err.Error(), "xml: "))
}

// errorf makes an error at the line of the last token.
func (s *scanner) errorf(element, format string, args ...any) error {
	return &SyntaxError{Line: s.line, Element: element, Msg: fmt.Sprintf(format, args...)}
}
