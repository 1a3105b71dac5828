package source

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// A ContainerError reports an image in a container that is not supported. It has to be unpacked or converted first.
type ContainerError struct {
	Name      string // of the image
	Container string // such as "zip" or "Android sparse image"
}

func (e *ContainerError) Error() string {
	return fmt.Sprintf("%s: unsupported container %s, expected a raw image, or one compressed with zstd, xz, gzip, lz4 or bzip2", e.Name, e.Container)
}

// unsupported is the name of a container, as an error of detect.
type unsupported string

func (u unsupported) Error() string { return "unsupported container " + string(u) }

// containers are formats whose bytes are not those of a disk or a file system. Formats that a slot may hold as they are, such as
// squashfs, LUKS, a newc archive or an Android boot image, are not among them.
var containers = []struct {
	name   string
	at     int // offset of the magic
	magics []string
}{
	{"zip", 0, []string{"PK\x03\x04", "PK\x05\x06", "PK\x07\x08"}},
	{"7z", 0, []string{"7z\xbc\xaf\x27\x1c"}},
	{"RAR", 0, []string{"Rar!\x1a\x07"}},
	{"lzop", 0, []string{"\x89LZO\x00\r\n\x1a\n"}},
	{"lzip", 0, []string{"LZIP\x00", "LZIP\x01"}},
	{"legacy lz4", 0, []string{"\x02\x21\x4c\x18"}},
	{"lrzip", 0, []string{"LRZI\x00"}},
	{"rzip", 0, []string{"RZIP\x02"}},
	{"zpaq", 0, []string{"7kSt\xa0\x31\x83\xd3\x8c\xb2\x28\xb0\xd3zPQ", "zPQ"}},
	{"xar", 0, []string{"xar!"}},
	{"compress", 0, []string{"\x1f\x9d"}},
	{"lzfse", 0, []string{"bvx2", "bvxn"}},
	{"snappy", 0, []string{"\xff\x06\x00\x00sNaPpY"}},
	{"lz5", 0, []string{"\x05\x22\x4d\x18"}},
	{"lizard", 0, []string{"\x06\x22\x4d\x18"}},
	{"bzip3", 0, []string{"BZ3v1"}},
	{"bzip", 0, []string{"BZ0"}},
	{"zstd dictionary", 0, []string{"\x37\xa4\x30\xec"}},
	{"old zstd", 0, []string{"\x1e\xb5\x2f\xfd", "\x22\xb5\x2f\xfd", "\x23\xb5\x2f\xfd", "\x24\xb5\x2f\xfd"}},
	{"old zstd", 0, []string{"\x25\xb5\x2f\xfd", "\x26\xb5\x2f\xfd", "\x27\xb5\x2f\xfd"}},
	{"zchunk", 0, []string{"\x00ZCK1", "\x00ZHR1"}},
	{"tar", 257, []string{"ustar\x00", "ustar "}},
	{"SWUpdate image", 0, []string{"070702"}},
	{"ar archive", 0, []string{"!<arch>\n"}},
	{"RPM", 0, []string{"\xed\xab\xee\xdb"}},
	{"cabinet", 0, []string{"MSCF\x00\x00\x00\x00"}},
	{"ACE", 7, []string{"**ACE**"}},
	{"WIM", 0, []string{"MSWIM\x00\x00\x00"}},
	{"partclone image", 0, []string{"partclone-image"}},
	{"Android sparse image", 0, []string{"\x3a\xff\x26\xed"}},
	{"Android OTA payload", 0, []string{"CrAU\x00\x00\x00\x00"}},
	{"ntfsclone image", 0, []string{"\x00ntfsclone-image"}},
	{"qcow2", 0, []string{"QFI\xfb"}},
	{"VMDK", 0, []string{"KDMV", "COWD", "# Disk DescriptorFile"}},
	{"VHDX", 0, []string{"vhdxfile"}},
	{"VHD", 0, []string{"conectix"}},
	{"VDI", 64, []string{"\x7f\x10\xda\xbe"}},
	{"Parallels image", 0, []string{"WithoutFreeSpace", "WithouFreSpacExt"}},
	{"QED", 0, []string{"QED\x00"}},
	{"bsdiff patch", 0, []string{"BSDIFF40"}},
	{"VCDIFF patch", 0, []string{"\xd6\xc3\xc4"}},
	{"age file", 0, []string{"age-encryption.org/"}},
	{"OpenPGP message", 0, []string{"-----BEGIN PGP "}},
	{"XML document", 0, []string{"<?xml version"}},
	{"Intel hex", 0, []string{":10000000"}},
	{"OpenSSL salted file", 0, []string{"Salted__"}},
}

// container returns the name of the unsupported container that head begins; "" if there is none.
func container(head []byte) string {
	for _, c := range containers {
		for _, magic := range c.magics {
			if len(head) > c.at && strings.HasPrefix(string(head[c.at:]), magic) {
				return c.name
			}
		}
	}
	switch {
	case isTar(head):
		return "tar"
	case isLZMA(head):
		return "lzma"
	}
	return ""
}

// isTar checks the sum of a header (POSIX pax, ustar header block), which archives without a magic have as well.
func isTar(head []byte) bool {
	if len(head) < 512 || head[0] == 0 {
		return false
	}
	field := strings.Trim(string(head[148:156]), " \x00")
	want, err := strconv.ParseUint(field, 8, 32)
	if err != nil {
		return false
	}
	sum := uint64(8 * ' ')
	for i, b := range head[:512] {
		if i < 148 || i >= 156 {
			sum += uint64(b)
		}
	}
	return sum == want
}

// isLZMA recognizes a .lzma file as xz does (src/liblzma/common/alone_decoder.c): valid properties, a dictionary of 2^n or
// 2^n + 2^(n-1) bytes, and a size that is unknown or below 256 GiB; here with the usual properties only. The first byte of the data
// is always 0.
func isLZMA(head []byte) bool {
	if len(head) < 14 || head[0] != 0x5d || head[13] != 0 {
		return false
	}
	dict, size := binary.LittleEndian.Uint32(head[1:]), binary.LittleEndian.Uint64(head[5:])
	top := bits.Len32(dict) - 1
	known := dict == 1<<32-1 || dict >= 1<<12 && (dict == 1<<top || dict == 1<<top|1<<(top-1))
	return known && (size == 1<<64-1 || size > 0 && size < 1<<38)
}
