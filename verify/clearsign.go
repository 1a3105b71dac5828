package verify

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

var (
	clearsignMark  = []byte("-----BEGIN PGP SIGNED MESSAGE-----")
	signatureMark  = []byte("-----BEGIN PGP SIGNATURE-----")
	dashEscape     = []byte("- ")
	clearsignTypes = []string{"SHA256", "SHA384", "SHA512", "SHA3-256", "SHA3-512"}
)

// IsClearsigned reports whether doc begins, at its first byte, as a clearsigned document. It may still be malformed.
func IsClearsigned(doc []byte) bool { return bytes.HasPrefix(doc, clearsignMark) }

// clearsigned is a parsed clearsigned document.
type clearsigned struct {
	text   []byte   // the lines, each ended by LF, for the parser
	signed []byte   // the lines, joined by CRLF, covered by the signature (RFC 9580 section 7.1)
	hashes []string // names in the Hash headers; may be none
	sig    []byte   // content of the signature's armor
}

// parseClearsigned accepts only the spelling for which text and signed cannot differ in meaning: LF as line end, no
// control characters, no blanks at the end of a line, a dash escape exactly where one is needed, one document, nothing
// before or after it. gpg, and go-crypto, write this for every text that has no such blanks and controls itself.
//
// The format does not record whether the text had a final newline before it was signed: gpg leaves it out of the signature, and
// text always ends with one. (go-crypto's encoder adds a newline of its own, also after a final one.)
func parseClearsigned(doc []byte) (*clearsigned, error) {
	if i := bytes.IndexFunc(doc, isControl); i >= 0 {
		return nil, fmt.Errorf("line %d holds the control character %#02x", lineAt(doc, i), doc[i])
	}
	first, rest := nextLine(doc)
	if !bytes.Equal(first, clearsignMark) {
		return nil, fmt.Errorf("first line is not %s", clearsignMark)
	}
	c := new(clearsigned)
	rest, err := c.headers(rest)
	if err != nil {
		return nil, err
	}
	c.text = make([]byte, 0, len(rest)) // not trusted yet: growing step by step would cost several times as much
	c.signed = make([]byte, 0, len(rest)+bytes.Count(rest, []byte("\n")))
	if rest, err = c.body(rest, lineAt(doc, len(doc)-len(rest))); err != nil {
		return nil, err
	}
	kind, sig, rest, err := dearmor(rest)
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading its signature: %w", err)
	case kind != armorSignature:
		return nil, fmt.Errorf("its signature is armored as %q, expected %q", kind, armorSignature)
	case len(rest) > 0 || bytes.HasSuffix(doc, []byte("\n\n")):
		return nil, fmt.Errorf("something follows the signature; expected the end of the file")
	}
	c.sig = sig
	return c, nil
}

func isControl(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 }

func lineAt(doc []byte, offset int) int { return 1 + bytes.Count(doc[:offset], []byte("\n")) }

// headers reads the lines up to the blank one. Only Hash is allowed (RFC 9580 section 7).
func (c *clearsigned) headers(b []byte) ([]byte, error) {
	for len(b) > 0 {
		var line []byte
		if line, b = nextLine(b); len(line) == 0 {
			return b, nil
		}
		list, ok := strings.CutPrefix(string(line), "Hash: ")
		if !ok {
			return nil, fmt.Errorf("header %.40q is not allowed, expected Hash", line)
		}
		for name := range strings.SplitSeq(list, ",") {
			name = strings.TrimPrefix(name, " ")
			if !slices.Contains(clearsignTypes, name) {
				return nil, fmt.Errorf("header names the hash %q, expected one of %s", name, strings.Join(clearsignTypes, ", "))
			}
			if len(c.hashes) == maxSignatures {
				return nil, fmt.Errorf("headers name more than %d hashes", maxSignatures)
			}
			c.hashes = append(c.hashes, name)
		}
	}
	return nil, fmt.Errorf("document is truncated in its headers")
}

// body reads the signed lines up to the signature, which it leaves in the result. number is that of the first line.
func (c *clearsigned) body(b []byte, number int) ([]byte, error) {
	for n := number; len(b) > 0; n++ {
		line, rest := nextLine(b)
		if bytes.Equal(line, signatureMark) {
			if len(c.text) == 0 {
				return nil, fmt.Errorf("document is empty")
			}
			return b, nil
		}
		b = rest
		line, escaped := bytes.CutPrefix(line, dashEscape)
		switch needed := bytes.HasPrefix(line, []byte("-")) || bytes.HasPrefix(line, []byte("From ")); {
		case escaped && !needed:
			return nil, fmt.Errorf("line %d is dash-escaped for no reason", n)
		case !escaped && bytes.HasPrefix(line, []byte("-")):
			return nil, fmt.Errorf("line %d begins with a dash that is not escaped", n)
		case bytes.HasSuffix(line, []byte(" ")) || bytes.HasSuffix(line, []byte("\t")):
			return nil, fmt.Errorf("line %d ends with a blank, which the signature does not cover", n)
		}
		if len(c.text) > 0 {
			c.signed = append(c.signed, "\r\n"...)
		}
		c.signed = append(c.signed, line...)
		c.text = append(append(c.text, line...), '\n')
	}
	return nil, fmt.Errorf("document is truncated: its signature is missing")
}
