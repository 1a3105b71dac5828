package verify

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Packet types of RFC 9580 section 5 that this package distinguishes.
const (
	tagSignature     = 2
	tagSecretKey     = 5
	tagPublicKey     = 6
	tagSecretSubkey  = 7
	tagTrust         = 12
	tagUserID        = 13
	tagPublicSubkey  = 14
	tagUserAttribute = 17
)

// rawPacket is one OpenPGP packet of the input.
type rawPacket struct {
	tag    int
	offset int    // bytes from the start of the input
	bytes  []byte // header and body
	body   []byte
}

// splitPackets splits b into packets and refuses anything else. Bodies of unknown or partial length are allowed for data only
// (RFC 9580 section 4.2.1.4), and refused.
func splitPackets(b []byte) ([]rawPacket, error) {
	var list []rawPacket
	for offset := 0; offset < len(b); {
		p, err := cutPacket(b[offset:])
		if err != nil {
			return nil, fmt.Errorf("byte %d: %w", offset, err)
		}
		p.offset = offset
		list = append(list, p)
		offset += len(p.bytes)
	}
	return list, nil
}

var errTruncated = errors.New("OpenPGP packet is truncated")

func cutPacket(b []byte) (rawPacket, error) {
	if b[0]&0x80 == 0 {
		return rawPacket{}, fmt.Errorf("%#02x does not begin an OpenPGP packet", b[0])
	}
	var tag, header int
	var size int64
	var err error
	if b[0]&0x40 != 0 {
		tag = int(b[0] & 0x3f)
		header, size, err = newLength(b)
	} else {
		tag = int(b[0] >> 2 & 0x0f)
		header, size, err = oldLength(b)
	}
	if err != nil {
		return rawPacket{}, err
	}
	if size > int64(len(b)-header) {
		return rawPacket{}, errTruncated
	}
	end := header + int(size)
	return rawPacket{tag: tag, bytes: b[:end], body: b[header:end]}, nil
}

// newLength reads the length of RFC 9580 section 4.2.1; header counts the bytes in front of the body.
func newLength(b []byte) (header int, size int64, err error) {
	switch {
	case len(b) < 2:
		return 0, 0, errTruncated
	case b[1] < 192:
		return 2, int64(b[1]), nil
	case b[1] < 224 && len(b) >= 3:
		return 3, int64(b[1]-192)<<8 + int64(b[2]) + 192, nil
	case b[1] == 255 && len(b) >= 6:
		return 6, int64(binary.BigEndian.Uint32(b[2:])), nil
	case b[1] >= 224 && b[1] < 255:
		return 0, 0, errors.New("OpenPGP packet has a partial length")
	}
	return 0, 0, errTruncated
}

// oldLength reads the length of RFC 9580 section 4.2.2.
func oldLength(b []byte) (header int, size int64, err error) {
	switch kind := b[0] & 3; {
	case kind == 3:
		return 0, 0, errors.New("OpenPGP packet has no length")
	case kind == 0 && len(b) >= 2:
		return 2, int64(b[1]), nil
	case kind == 1 && len(b) >= 3:
		return 3, int64(binary.BigEndian.Uint16(b[1:])), nil
	case kind == 2 && len(b) >= 5:
		return 5, int64(binary.BigEndian.Uint32(b[1:])), nil
	}
	return 0, 0, errTruncated
}

// parse reads the packet into the library's type and refuses trailing bytes.
func (p rawPacket) parse() (packet.Packet, error) {
	r := bytes.NewReader(p.bytes)
	parsed, err := packet.Read(r)
	if err != nil {
		return nil, err
	}
	if r.Len() > 0 {
		return nil, fmt.Errorf("packet has %d bytes too many", r.Len())
	}
	return parsed, nil
}

// signature reads a signature packet of version 4 or 6 that names its issuer.
func (p rawPacket) signature() (*packet.Signature, error) {
	if len(p.body) > 0 && p.body[0] < 4 {
		return nil, fmt.Errorf("signature is of version %d, which is obsolete; expected 4 or 6", p.body[0])
	}
	parsed, err := p.parse()
	if err != nil {
		return nil, err
	}
	sig, ok := parsed.(*packet.Signature)
	if !ok {
		return nil, fmt.Errorf("packet of type %d is not a signature", p.tag)
	}
	if sig.IssuerKeyId == nil {
		return nil, errors.New("signature does not name the key that made it")
	}
	return sig, nil
}

// signatureType returns the type octet of a signature packet that may be unreadable otherwise; -1 if it has none.
func (p rawPacket) signatureType() int {
	at := 1
	if len(p.body) > 0 && p.body[0] < 4 {
		at = 2 // versions 2 and 3: a length octet comes first
	}
	if p.tag != tagSignature || len(p.body) <= at {
		return -1
	}
	return int(p.body[at])
}
