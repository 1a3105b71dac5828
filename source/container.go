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
	name, magic string
	at          int
}{
	{"zip", "PK\x03\x04", 0}, {"zip", "PK\x05\x06", 0}, {"zip", "PK\x07\x08", 0}, {"7z", "7z\xbc\xaf\x27\x1c", 0}, {"RAR", "Rar!\x1a\x07", 0},
	{"lzop", "\x89LZO\x00\r\n\x1a\n", 0}, {"lzip", "LZIP\x00", 0}, {"lzip", "LZIP\x01", 0},
	{"legacy lz4", "\x02\x21\x4c\x18", 0},
	{"lrzip", "LRZI\x00", 0}, {"rzip", "RZIP\x02", 0}, {"zpaq", "7kSt\xa0\x31\x83\xd3\x8c\xb2\x28\xb0\xd3zPQ", 0}, {"zpaq", "zPQ", 0}, {"xar", "xar!", 0},
	{"compress", "\x1f\x9d", 0}, {"lzfse", "bvx2", 0}, {"lzfse", "bvxn", 0},
	{"snappy", "\xff\x06\x00\x00sNaPpY", 0}, {"lz5", "\x05\x22\x4d\x18", 0}, {"lizard", "\x06\x22\x4d\x18", 0}, {"bzip3", "BZ3v1", 0}, {"bzip", "BZ0", 0},
	{"zstd dictionary", "\x37\xa4\x30\xec", 0}, {"old zstd", "\x1e\xb5\x2f\xfd", 0}, {"old zstd", "\x22\xb5\x2f\xfd", 0},
	{"old zstd", "\x23\xb5\x2f\xfd", 0}, {"old zstd", "\x24\xb5\x2f\xfd", 0}, {"old zstd", "\x25\xb5\x2f\xfd", 0},
	{"old zstd", "\x26\xb5\x2f\xfd", 0}, {"old zstd", "\x27\xb5\x2f\xfd", 0}, {"zchunk", "\x00ZCK1", 0}, {"zchunk", "\x00ZHR1", 0},
	{"tar", "ustar\x00", 257}, {"tar", "ustar ", 257}, {"SWUpdate image", "070702", 0}, {"ar archive", "!<arch>\n", 0}, {"RPM", "\xed\xab\xee\xdb", 0},
	{"cabinet", "MSCF\x00\x00\x00\x00", 0}, {"ACE", "**ACE**", 7}, {"WIM", "MSWIM\x00\x00\x00", 0}, {"partclone image", "partclone-image", 0},
	{"Android sparse image", "\x3a\xff\x26\xed", 0}, {"Android OTA payload", "CrAU\x00\x00\x00\x00", 0}, {"ntfsclone image", "\x00ntfsclone-image", 0},
	{"qcow2", "QFI\xfb", 0}, {"VMDK", "KDMV", 0}, {"VMDK", "COWD", 0}, {"VMDK", "# Disk DescriptorFile", 0}, {"VHDX", "vhdxfile", 0}, {"VHD", "conectix", 0},
	{"VDI", "\x7f\x10\xda\xbe", 64}, {"Parallels image", "WithoutFreeSpace", 0}, {"Parallels image", "WithouFreSpacExt", 0}, {"QED", "QED\x00", 0},
	{"bsdiff patch", "BSDIFF40", 0}, {"VCDIFF patch", "\xd6\xc3\xc4", 0}, {"age file", "age-encryption.org/", 0}, {"OpenPGP message", "-----BEGIN PGP ", 0},
	{"XML document", "<?xml version", 0}, {"Intel hex", ":10000000", 0}, {"OpenSSL salted file", "Salted__", 0},
}

// container returns the name of the unsupported container that head begins; "" if there is none.
func container(head []byte) string {
	for _, c := range containers {
		if len(head) > c.at && strings.HasPrefix(string(head[c.at:]), c.magic) {
			return c.name
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
