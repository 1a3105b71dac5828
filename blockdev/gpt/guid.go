package gpt

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// GUID is a globally unique identifier as a table stores it: the first three fields are little-endian (UEFI 2.10, appendix A).
type GUID [16]byte

// String writes the GUID in lower case, as Linux writes PARTUUID.
func (g GUID) String() string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(g[:]), le.Uint16(g[4:]), le.Uint16(g[6:]), g[8:10], g[10:])
}

// ParseGUID reads the 36 characters of a GUID, in either case.
func ParseGUID(s string) (g GUID, err error) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return g, fmt.Errorf("parsing GUID %.40q: expected xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", s)
	}
	b, err := hex.DecodeString(s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:])
	if err != nil {
		return g, fmt.Errorf("parsing GUID %.40q: %w", s, err)
	}
	le, be := binary.LittleEndian, binary.BigEndian
	le.PutUint32(g[:], be.Uint32(b))
	le.PutUint16(g[4:], be.Uint16(b[4:]))
	le.PutUint16(g[6:], be.Uint16(b[6:]))
	copy(g[8:], b[8:])
	return g, nil
}

// NewGUID makes a random GUID (RFC 9562, version 4).
func NewGUID() (g GUID) {
	_, _ = rand.Read(g[:]) // never fails (crypto/rand)
	g[7], g[8] = g[7]&0x0f|0x40, g[8]&0x3f|0x80
	return g
}
