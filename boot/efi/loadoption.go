package efi

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf16"
)

// Partition is the GPT partition that a boot option loads from: the ESP.
type Partition struct {
	Number      int
	Start, Size uint64 // sectors
	GUID        string // PARTUUID
}

// Target is the program that a boot option starts.
type Target struct {
	Partition   Partition
	Path        string // path of the EFI program on the partition, with backslashes
	Description string // shown in the firmware's menu
}

const (
	active       = 1      // LOAD_OPTION_ACTIVE: the firmware may choose the option
	category     = 0x1f00 // LOAD_OPTION_CATEGORY: BootOrder only applies to options with 0
	typeMedia    = 4
	typeEnd      = 0x7f
	subHardDrive = 1
	subFilePath  = 4

	signatureGUID = 2
)

// encode returns an EFI_LOAD_OPTION (UEFI specification 2.10, section 3.1.3): attributes, length of the device path,
// description, and a device path of the partition (10.3.5.1) and the file (10.3.5.4).
func (t Target) encode() ([]byte, error) {
	guid, err := guidBytes(t.Partition.GUID)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	path := []byte{typeMedia, subHardDrive, 42, 0}
	path = le.AppendUint32(path, uint32(t.Partition.Number))
	path = le.AppendUint64(path, t.Partition.Start)
	path = le.AppendUint64(path, t.Partition.Size)
	path = append(append(path, guid...), 2, 2) // a GPT, identified by its GUID
	file := utf16z(t.Path)
	path = append(path, typeMedia, subFilePath)
	path = le.AppendUint16(path, uint16(4+len(file)))
	path = append(append(path, file...), 0x7f, 0xff, 4, 0)
	out := le.AppendUint32(nil, active)
	out = le.AppendUint16(out, uint16(len(path)))
	return append(append(out, utf16z(t.Description)...), path...), nil
}

// option holds the decoded fields of a boot option.
type option struct {
	active      bool // BootOrder applies to it
	description string
	guid        []byte // of the partition; nil if the path has none
	path        string
}

// parse decodes an EFI_LOAD_OPTION as far as the end of its first device path. The firmware may have put nodes before those
// of the partition, and a path may be spread over several nodes (UEFI specification 2.10, section 10.3.5.4). A path without an end
// is not ok.
func parse(data []byte) (o option, ok bool) {
	if len(data) < 8 {
		return o, false
	}
	o.active = data[0]&active != 0 && binary.LittleEndian.Uint32(data)&category == 0
	length := int(binary.LittleEndian.Uint16(data[4:]))
	text, rest := cutUTF16(data[6:])
	o.description = text
	if length > len(rest) {
		return o, false
	}
	for nodes := rest[:length]; len(nodes) >= 4; {
		if nodes[0] == typeEnd {
			return o, true
		}
		size := int(binary.LittleEndian.Uint16(nodes[2:]))
		if size < 4 || size > len(nodes)-4 {
			break
		}
		body := nodes[4:size]
		switch {
		case nodes[0] == typeMedia && nodes[1] == subHardDrive && len(body) == 38 && body[37] == signatureGUID:
			o.guid = body[20:36]
		case nodes[0] == typeMedia && nodes[1] == subFilePath:
			path := decodeUTF16(body)
			if o.path != "" {
				path = strings.TrimSuffix(o.path, `\`) + `\` + strings.TrimPrefix(path, `\`)
			}
			o.path = path
		}
		nodes = nodes[size:]
	}
	return o, false
}

// starts reports whether the option starts t. Paths on FAT are compared without regard to case.
func (o option) starts(t Target) bool {
	guid, err := guidBytes(t.Partition.GUID)
	return err == nil && bytes.Equal(o.guid, guid) && strings.EqualFold(o.path, t.Path)
}

// guidBytes returns a GUID in mixed byte order (UEFI specification, appendix A).
func guidBytes(s string) ([]byte, error) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != 16 {
		return nil, fmt.Errorf("%q is not a GUID", s)
	}
	return []byte{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]}, nil
}

func utf16z(s string) []byte {
	var out []byte
	for _, u := range utf16.Encode([]rune(s + "\x00")) {
		out = binary.LittleEndian.AppendUint16(out, u)
	}
	return out
}

// cutUTF16 splits data behind its first NUL-terminated string. Nothing is left if there is none.
func cutUTF16(data []byte) (string, []byte) {
	for i := 0; i+1 < len(data); i += 2 {
		if data[i] == 0 && data[i+1] == 0 {
			return decodeUTF16(data[:i]), data[i+2:]
		}
	}
	return "", nil
}

func decodeUTF16(data []byte) string {
	var units []uint16
	for ; len(data) >= 2; data = data[2:] {
		units = append(units, binary.LittleEndian.Uint16(data))
	}
	return strings.TrimRight(string(utf16.Decode(units)), "\x00")
}
