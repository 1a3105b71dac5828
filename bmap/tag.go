package bmap

import (
	"bytes"
	"unicode"
	"unicode/utf8"
)

// maxAttributes bounds the attributes of one element; real maps have one.
const maxAttributes = 16

// A tag is the start tag of an element. Its slices point into the file and are good until the next token.
type tag struct {
	name  []byte
	attrs []attribute
}

// An attribute is one of a tag; the value is not decoded.
type attribute struct{ name, value []byte }

func (l *lexer) closeTag(rest []byte) error {
	name := nameOf(rest[2:])
	end := bytes.TrimLeft(rest[2+len(name):], spaces)
	if len(name) == 0 || len(end) == 0 || end[0] != '>' {
		return l.malformed("end tag %.40q", firstLine(rest))
	}
	l.tag = tag{name: name, attrs: l.tag.attrs[:0]}
	l.at.to = len(l.data) - len(end) + 1
	return nil
}

func (l *lexer) startTag(rest []byte) error {
	name := nameOf(rest[1:])
	if len(name) == 0 {
		return l.malformed("tag %.40q", firstLine(rest))
	}
	l.tag = tag{name: name, attrs: l.tag.attrs[:0]}
	body := rest[1+len(name):]
	for {
		a, after, err := l.attribute(body)
		if err != nil {
			return err
		}
		body = after
		if a.name == nil {
			break
		}
		if err := l.addAttribute(a); err != nil {
			return err
		}
	}
	switch {
	case bytes.HasPrefix(body, []byte(">")):
		l.at.to = len(l.data) - len(body) + 1
	case bytes.HasPrefix(body, []byte("/>")):
		l.at.to, l.unclosed = len(l.data)-len(body)+2, true
	default:
		return l.malformed("tag %.60q", firstLine(rest))
	}
	if prefix, local, ok := bytes.Cut(name, []byte(":")); ok {
		return l.errorf(string(local), "has the name-space prefix %.40q, expected none", prefix)
	}
	return nil
}

func (l *lexer) addAttribute(a attribute) error {
	if len(l.tag.attrs) == maxAttributes {
		return l.errorf(string(l.tag.name), "has too many attributes, expected at most %d", maxAttributes)
	}
	if string(a.name) == "xmlns" || bytes.IndexByte(a.name, ':') >= 0 {
		return l.errorf(string(l.tag.name), "has a name-space attribute, expected none")
	}
	for _, b := range l.tag.attrs {
		if bytes.Equal(a.name, b.name) {
			return l.errorf(string(l.tag.name), "has attribute %.40s twice", a.name)
		}
	}
	l.tag.attrs = append(l.tag.attrs, a)
	return nil
}

// attribute reads white space and one name="value" from the inside of a tag. Without one, the name is nil.
func (l *lexer) attribute(body []byte) (a attribute, rest []byte, err error) {
	rest = bytes.TrimLeft(body, spaces)
	name := nameOf(rest)
	if len(name) == 0 {
		return attribute{}, rest, nil
	}
	value := bytes.TrimLeft(rest[len(name):], spaces)
	if len(rest) == len(body) || len(value) == 0 || value[0] != '=' {
		return a, nil, l.malformed("attribute %.40q, expected white space before it and = behind it", name)
	}
	value = bytes.TrimLeft(value[1:], spaces)
	if len(value) == 0 || value[0] != '"' && value[0] != '\'' {
		return a, nil, l.malformed("attribute %.40s without quotes", name)
	}
	n := bytes.IndexByte(value[1:], value[0])
	if n < 0 || bytes.IndexByte(value[1:1+n], '<') >= 0 {
		return a, nil, l.malformed("attribute %.40s without its closing quote", name)
	}
	return attribute{name, value[1 : 1+n]}, value[2+n:], l.checkEntities(value[1 : 1+n])
}

// nameOf returns the name that text starts with, empty for none. It may contain colons.
func nameOf(text []byte) []byte {
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' || c == ':':
			i++
		case i > 0 && (c >= '0' && c <= '9' || c == '-' || c == '.'):
			i++
		case c >= utf8.RuneSelf:
			r, n := utf8.DecodeRune(text[i:])
			if !unicode.IsLetter(r) {
				return text[:i]
			}
			i += n
		default:
			return text[:i]
		}
	}
	return text
}
