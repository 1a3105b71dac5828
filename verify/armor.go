package verify

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
)

const (
	armorSignature = "PGP SIGNATURE"
	armorPublicKey = "PGP PUBLIC KEY BLOCK"
	armorSecretKey = "PGP PRIVATE KEY BLOCK"

	maxArmorLine = 256 // base64 lines have 64 or 76 characters, header lines hold comments
)

var (
	armorBegin = []byte("-----BEGIN ")
	dashes     = []byte("-----")
)

func isArmored(b []byte) bool { return bytes.HasPrefix(b, armorBegin) }

// nextLine cuts the first line off b, without its ending LF or CRLF.
func nextLine(b []byte) (line, rest []byte) {
	line, rest, _ = bytes.Cut(b, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r")), rest
}

// dearmor decodes the ASCII armor (RFC 9580 section 6.2) that b starts with, and returns its type, its content and the bytes after it, without
// blank lines. It is stricter than the standard: nothing before the armor, whole lines, strict base64, and a checksum, if present, must match.
func dearmor(b []byte) (kind string, data, rest []byte, err error) {
	first, rest := nextLine(b)
	name, ok := bytes.CutPrefix(first, armorBegin)
	if name, ok = cutSuffix(name, dashes, ok); !ok {
		return "", nil, nil, fmt.Errorf("line %.40q does not begin an armored block", first)
	}
	end := fmt.Appendf(nil, "-----END %s-----", name)
	if rest, err = skipHeaders(rest); err != nil {
		return "", nil, nil, err
	}
	var text, sum []byte
	for {
		if len(rest) == 0 {
			return "", nil, nil, fmt.Errorf("armor is truncated: line %q is missing", end)
		}
		var line []byte
		line, rest = nextLine(rest)
		switch {
		case bytes.Equal(line, end):
			data, err = decodeArmor(text, sum)
			return string(name), data, bytes.TrimLeft(rest, "\r\n"), err
		case sum != nil || len(line) == 0 || len(line) > maxArmorLine:
			return "", nil, nil, fmt.Errorf("line %.40q is not armor", line)
		case line[0] == '=':
			sum = line[1:]
		default:
			text = append(text, line...)
		}
	}
}

func cutSuffix(b, suffix []byte, ok bool) ([]byte, bool) {
	b, found := bytes.CutSuffix(b, suffix)
	return b, ok && found
}

// skipHeaders skips the "Key: value" lines and the blank line that ends them.
func skipHeaders(b []byte) ([]byte, error) {
	for len(b) > 0 {
		var line []byte
		if line, b = nextLine(b); len(line) == 0 {
			return b, nil
		}
		if len(line) > maxArmorLine || !bytes.Contains(line, []byte(": ")) && !bytes.HasSuffix(line, []byte(":")) {
			return nil, fmt.Errorf("line %.40q is not an armor header; expected a blank line after the headers", line)
		}
	}
	return nil, errors.New("armor is truncated: the blank line after its headers is missing")
}

func decodeArmor(text, sum []byte) ([]byte, error) {
	// The decoder would skip line breaks.
	if bytes.ContainsAny(text, "\r\n") {
		return nil, errors.New("armor holds a stray carriage return")
	}
	data, err := base64.StdEncoding.Strict().AppendDecode(nil, text)
	if err != nil {
		return nil, fmt.Errorf("decoding armor: %w", err)
	}
	if sum == nil {
		return data, nil // optional since RFC 9580
	}
	crc := crc24(data)
	if want := base64.StdEncoding.EncodeToString([]byte{byte(crc >> 16), byte(crc >> 8), byte(crc)}); string(sum) != want {
		return nil, fmt.Errorf("armor checksum is %q, expected %q", sum, want)
	}
	return data, nil
}

// crc24 is the checksum of RFC 9580 section 6.1.1. It finds damage, not forgery.
func crc24(b []byte) uint32 {
	crc := uint32(0xb704ce)
	for _, c := range b {
		crc ^= uint32(c) << 16
		for range 8 {
			if crc <<= 1; crc&0x1000000 != 0 {
				crc ^= 0x1864cfb
			}
		}
	}
	return crc
}
